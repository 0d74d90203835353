// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The DMA window of a guest that translates.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use address::Bdf;
use dma_stress::cost::{Cost, Meter};
use dma_stress::dma_address::DmaMap;
use dma_stress::pci::Function;
use dma_stress::ram::Ram;
use dma_stress::window;
use dma_window::{Bars, DEVICE, DmaWindow, VENDOR};

use super::clock;
use super::ecam::Ecam;
use super::machine::Machine;
use super::mmio::Mmio;

/// Both BARs.
#[derive(Clone, Copy, Debug)]
struct Spaces {
    registers: Mmio,
    table: Mmio,
}

impl Bars for Spaces {
    fn read_register(&self, offset: u64) -> u32 {
        self.registers.get32(offset)
    }
    fn write_register(&self, offset: u64, value: u32) {
        self.registers.set32(offset, value);
    }
    fn read64(&self, offset: u64) -> u64 {
        self.table.get64(offset)
    }
}

/// A window.
#[derive(Debug)]
pub struct Window {
    control: DmaWindow<Spaces>,
    /// The same for translation, from any processor.
    pub map: DmaMap,
}

/// What a test came to.
pub type Outcome = (&'static str, Result<String, String>);

impl Window {
    /// Finds it on the bus.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn find(machine: &Machine) -> Option<Result<Self, String>> {
        let is_window = |function: &&Function| function.id == (VENDOR, DEVICE);
        let function = machine.functions.iter().find(is_window)?;
        Some(Self::open(function, machine.ecam))
    }

    fn open(function: &Function, ecam: Ecam) -> Result<Self, String> {
        let (Some(registers), Some(table)) = (function.memory_bar(0), function.memory_bar(2))
        else {
            return Err("the DMA window lacks a BAR".into());
        };
        function.decode(&ecam);
        let base = table.start;
        // SAFETY: every BAR is mapped uncached.
        let bars = unsafe {
            Spaces {
                registers: Mmio::new(registers),
                table: Mmio::new(table),
            }
        };
        let open = || DmaWindow::open(bars, base).map_err(|error| error.to_string());
        Ok(Self {
            control: open()?,
            map: DmaMap::Translate(Arc::new(open()?)),
        })
    }

    /// Lets `function` be a bus master, whose driver will give it translated addresses.
    ///
    /// # Errors
    /// What the window answers.
    pub fn enable(&mut self, function: &Function) -> Result<(), String> {
        let address = function.address;
        let bdf = Bdf::new(0, address.bus(), address.device(), address.function());
        let bdf = bdf.ok_or("no such function")?;
        self.control.enable(bdf).map_err(|error| error.to_string())
    }

    /// What translating costs.
    ///
    /// # Errors
    /// Memory that cannot be translated.
    pub fn cost(&mut self, ram: &Ram, seed: u64) -> Result<Vec<Cost>, String> {
        let mut random = fastrand::Rng::with_seed(seed);
        Meter(clock::now)
            .window(&mut self.control, ram.extents(), &mut random)
            .map_err(|error| error.to_string())
    }

    /// Tests of the window itself.
    pub fn check(&mut self, ram: &Ram, seed: u64) -> Vec<Outcome> {
        let mut random = fastrand::Rng::with_seed(seed);
        let table = self.control.bars().table;
        let write = |offset, value| table.set64(offset, value);
        [
            ("all memory", window::covers(&self.control, ram.extents())),
            (
                "writes change nothing",
                window::withstands(&self.control, &mut random, write),
            ),
            (
                "walk and query agree",
                window::agrees(&mut self.control, ram.extents(), &mut random),
            ),
        ]
        .into()
    }
}
