// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A function's interrupts, whichever way they come.

use alloc::vec::Vec;

use dma_stress::nvme::Clock;
use dma_stress::pci::Function;
use dma_stress::signals::Signals;
use stress_format::Interrupt;

use super::arch::{controller, interrupts};
use super::ecam::Ecam;
use super::mmio::Mmio;
use super::{clock, vectors};

/// Bytes of a vector's entry in an MSI-X table.
const ENTRY: u64 = 16;

/// The wires of one function. Its one vector is the first of its MSI or MSI-X, or that of its
/// line.
#[derive(Debug)]
pub struct Wiring {
    function: Function,
    ecam: Ecam,
    ticks_per_ms: u64,
    message: u8,
    current: u8,
}

impl Wiring {
    /// The wires of `function`, whose messages have the vector `message`.
    pub fn new(function: &Function, ecam: Ecam, message: u8, ticks_per_ms: u64) -> Self {
        Self {
            function: function.clone(),
            ecam,
            ticks_per_ms,
            message,
            current: message,
        }
    }

    /// Time without interrupts.
    pub fn clock(&self) -> Tsc {
        Tsc(self.ticks_per_ms)
    }

    fn line_vector(&self) -> Option<u8> {
        self.function.gsi.and_then(vectors::line)
    }

    /// Whether its MSI can name what takes messages.
    fn has_msi(&self) -> bool {
        let msi = self.function.msi.as_ref();
        msi.is_some_and(|msi| msi.is_64bit() || !controller::MESSAGES_ARE_HIGH)
    }

    fn all_off(&mut self) {
        if let Some(msi) = &self.function.msi {
            msi.set_enabled(false, self.ecam);
        }
        if let Some(msix) = &mut self.function.msix {
            msix.set_enabled(false, self.ecam);
        }
        self.function.enable_line(false, &self.ecam);
    }

    fn select_msix(&mut self) -> Option<()> {
        let msix = self.function.msix.as_mut()?;
        let bar = usize::from(msix.table_bar());
        let table = u64::from(msix.table_offset());
        msix.set_enabled(true, self.ecam);
        msix.set_function_mask(false, self.ecam);
        let range = self.function.memory_bar(bar)?;
        if range.start.checked_add(table + ENTRY)? > range.end {
            return None;
        }
        let (address, data) = controller::message(self.function.address, self.message);
        // SAFETY: every BAR is mapped uncached.
        let registers = unsafe { Mmio::new(range) };
        registers.set32(table, address as u32);
        registers.set32(table + 4, (address >> 32) as u32);
        registers.set32(table + 8, data);
        registers.set32(table + 12, 0);
        Some(())
    }
}

/// The clock, with its ticks in a millisecond.
#[derive(Clone, Copy, Debug)]
pub struct Tsc(u64);

impl Clock for Tsc {
    fn ticks(&self) -> u64 {
        clock::now()
    }
    fn ticks_per_ms(&self) -> u64 {
        self.0
    }
}

impl Signals for Wiring {
    fn now(&self) -> u64 {
        clock::now()
    }

    fn ticks_per_ms(&self) -> u64 {
        self.ticks_per_ms
    }

    fn kinds(&self) -> Vec<Interrupt> {
        let function = &self.function;
        [
            (true, Interrupt::Polling),
            (self.line_vector().is_some(), Interrupt::Intx),
            (self.has_msi(), Interrupt::Msi),
            (function.msix.is_some(), Interrupt::Msix),
        ]
        .into_iter()
        .filter_map(|(has, kind)| has.then_some(kind))
        .collect()
    }

    fn select(&mut self, kind: Interrupt) -> Result<(), &'static str> {
        self.all_off();
        self.current = self.message;
        match kind {
            Interrupt::Polling => (),
            Interrupt::Intx => {
                let vector = self.line_vector().ok_or("it has no interrupt line")?;
                self.current = vector;
                controller::route(vector - vectors::LINES);
                self.function.enable_line(true, &self.ecam);
            }
            Interrupt::Msi => {
                let msi = self.function.msi.as_ref().ok_or("it has no MSI")?;
                let (address, data) = controller::message(self.function.address, self.message);
                msi.set_message_info(address, data, self.ecam);
                msi.set_enabled(true, self.ecam);
            }
            Interrupt::Msix => self.select_msix().ok_or("its MSI-X table cannot be used")?,
        }
        Ok(())
    }

    fn count(&self) -> u64 {
        vectors::count(self.current)
    }

    fn sleep(&self, seen: u64) {
        interrupts::disable();
        // With interrupts off none can come between the look and the sleep, which lets them in
        // only as it begins.
        if self.count() == seen {
            interrupts::enable_and_hlt();
        } else {
            interrupts::enable();
        }
    }

    fn rearm(&self) {
        if let Some(vector) = self.line_vector() {
            vectors::rearm(vector - vectors::LINES);
        }
    }
}
