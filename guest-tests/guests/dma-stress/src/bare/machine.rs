// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! From the loader's hands to a machine that is known and mapped.

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use address::Gpa;
use dma_stress::pci::{self, Function};
use dma_stress::ram::Ram;

use super::arch::paging::{self, Kind};
use super::arch::smp::{Cpu, Starter};
use super::arch::{boot, controller, entry};
use super::clock;
use super::ecam::Ecam;

/// What is known of a machine whose memory is mapped.
#[derive(Debug)]
pub struct Booted {
    /// The command line.
    pub command_line: String,
    /// RAM.
    pub memory: Vec<Range<Gpa>>,
    /// The other processors, and what starts them; or why nothing does.
    pub others: Result<(Starter, Vec<Cpu>), &'static str>,
    /// Configuration space of bus 0.
    pub ecam: Range<Gpa>,
    /// Which interrupts its functions raise.
    pub lines: boot::Lines,
}

/// The machine.
#[derive(Debug)]
pub struct Machine {
    /// The command line.
    pub command_line: String,
    /// Where buffers may be.
    pub ram: Ram,
    /// The other processors, and what starts them; or why nothing does.
    pub others: Result<(Starter, Vec<Cpu>), &'static str>,
    /// Configuration space.
    pub ecam: Ecam,
    /// What is on the PCI bus.
    pub functions: Vec<Function>,
    /// Ticks of the clock in a millisecond.
    pub ticks_per_ms: u64,
}

impl Machine {
    /// Takes the machine over, of which the loader has handed over `data`. Interrupts are off before and after.
    ///
    /// # Errors
    /// What it lacks.
    pub fn take_over(data: u64) -> Result<Self, &'static str> {
        let booted = boot::take_over(data)?;
        let ticks_per_ms = clock::ticks_per_ms();
        controller::init_local();
        paging::map(&booted.ecam, Kind::Device);
        // SAFETY: the machine has it there, and it was just mapped.
        let ecam = unsafe { Ecam::new(&booted.ecam) };
        let mut functions = pci::scan(&ecam);
        for function in &mut functions {
            function.gsi = booted.lines.of(function);
        }
        for range in functions.iter().flat_map(Function::memory_bars) {
            paging::map(&range, Kind::Device);
        }
        let image = entry::image();
        let mut ram = Ram::new(&booted.memory);
        ram.take(Gpa(image.start)..Gpa(image.end));
        Ok(Self {
            command_line: booted.command_line,
            ram,
            others: booted.others,
            ecam,
            functions,
            ticks_per_ms,
        })
    }
}
