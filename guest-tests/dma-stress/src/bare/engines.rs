//! Which of the functions on the bus are tested, and how.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use dma_stress::dma_address::DmaMap;
use dma_stress::engine::edu::{self, Edu};
use dma_stress::options::Options;
use dma_stress::report::Report;
use spin::Mutex;

use super::machine::Machine;
use super::mmio::Mmio;
use super::physical::PhysicalMemory;
use super::run::Item;
use super::serial::Console;
use super::traps;
use super::wiring::Wiring;

/// A test of a device that is no matter of transfers.
pub struct Extra {
    name: String,
    result: Result<(), &'static str>,
}

impl Extra {
    /// How many tests it is.
    pub fn tests(&self) -> u64 {
        1
    }

    /// Reports it.
    pub fn run(&self, report: &Report<Console>, _: &PhysicalMemory, _: u64) {
        match self.result {
            Ok(()) => report.test(true, format_args!("{}", self.name)),
            Err(why) => report.test(false, format_args!("{} # {why}", self.name)),
        }
    }
}

/// Finds them. What is found is enabled.
pub fn find(machine: &Machine, options: &Options, dma: DmaMap) -> (Vec<Item>, Vec<Extra>) {
    let (mut items, mut extras) = (Vec::new(), Vec::new());
    let mut vector = traps::MESSAGES;
    for function in &machine.functions {
        let wiring = Wiring::new(function, machine.ecam, vector, machine.ticks_per_ms);
        if function.id == edu::ID
            && options.wants("edu")
            && let Some(bar) = function.memory_bar(0)
        {
            function.enable(&machine.ecam);
            // SAFETY: every BAR is mapped uncached.
            let registers = unsafe { Mmio::new(bar) };
            let Some(mut edu) = Edu::new(registers, wiring, dma) else {
                continue;
            };
            extras.push(Extra {
                name: alloc::format!("edu {function}: liveness and factorial"),
                result: edu.self_test(),
            });
            items.push(Item {
                name: "edu",
                bdf: function.to_string(),
                engine: Mutex::new(Box::new(edu)),
            });
            vector += 1;
        }
    }
    (items, extras)
}
