// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A machine in software: memory, and an edu that can be made to go wrong.

#![expect(clippy::unwrap_used, reason = "a test may end here")]

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use address::{Gpa, Hpa};
use dma_stress::dma_address::Translate;
use dma_stress::memory::{Memory, OutsideRam};
use dma_stress::registers::Registers;
use dma_stress::signals::Signals;
use dma_window::{Run, TranslateError};
use stress_format::Interrupt;

pub const BASE: u64 = 0x1_0000_0000;
pub const SIZE: usize = 6 << 20;

/// What goes wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    #[default]
    None,
    /// Every nth transfer to memory has a bit flipped.
    Bit(u64),
    /// Addresses are off.
    Offset(i64),
    /// Only those of transfers to memory are.
    WriteOffset(i64),
    /// The first and the second 2 MiB are swapped.
    Swap,
    /// Every nth interrupt is lost.
    Interrupt(u64),
    /// One byte too many is written.
    Overrun,
    /// Nothing ever ends.
    Hang,
    /// Memory is at other addresses for devices, in single pages, as [`Scattered`] has it.
    Scattered,
    /// The same, but the table has every second page in place of the one before it.
    ScatteredSwap,
}

/// Where devices find memory that is scattered.
const SCATTER: u64 = 0x40_0000_0000;
const PAGE: u64 = 4096;
const PAGES: u64 = SIZE as u64 / PAGE;
/// One is the other's inverse modulo the number of pages.
const SPREAD: (u64, u64) = (5, 1229);

/// The table of memory that is scattered.
#[derive(Debug)]
pub struct Scattered;

impl Translate for Scattered {
    fn translate(&self, gpa: Gpa, len: u64) -> Result<Run, TranslateError> {
        let place = gpa.0.checked_sub(BASE).filter(|at| at / PAGE < PAGES);
        let at = place.ok_or(TranslateError::NotMemory { gpa, len })?;
        Ok(Run {
            hpa: Hpa(SCATTER + at / PAGE * SPREAD.0 % PAGES * PAGE + at % PAGE),
            len: len.min(PAGE - at % PAGE),
        })
    }
}

#[derive(Default)]
pub struct State {
    memory: RefCell<Vec<u8>>,
    buffer: RefCell<Vec<u8>>,
    registers: RefCell<[u64; 32]>,
    time: Cell<u64>,
    interrupts: Cell<u64>,
    transfers: Cell<u64>,
    pub fault: Fault,
}

#[derive(Clone)]
pub struct Machine(pub Rc<State>);

impl Machine {
    pub fn new(fault: Fault) -> Self {
        Self(Rc::new(State {
            memory: RefCell::new(vec![0; SIZE]),
            buffer: RefCell::new(vec![0; 4096]),
            fault,
            ..State::default()
        }))
    }

    fn at(&self, gpa: Gpa, len: usize) -> Result<usize, OutsideRam> {
        let at = gpa.0.checked_sub(BASE).ok_or(OutsideRam)?;
        let at = usize::try_from(at).map_err(|_| OutsideRam)?;
        (at + len <= SIZE).then_some(at).ok_or(OutsideRam)
    }

    /// Where the device ends up.
    fn bus(&self, address: u64, to_memory: bool) -> usize {
        let at = address.wrapping_sub(BASE);
        let scattered = |flip| {
            let at = address - SCATTER;
            ((at / PAGE * SPREAD.1 % PAGES) ^ flip) * PAGE + at % PAGE
        };
        let at = match self.0.fault {
            Fault::Scattered => scattered(0),
            Fault::ScatteredSwap => scattered(1),
            Fault::Offset(by) => at.wrapping_add_signed(by),
            Fault::WriteOffset(by) if to_memory => at.wrapping_add_signed(by),
            Fault::Swap if at < 4 << 20 => at ^ 2 << 20,
            _ => at,
        };
        usize::try_from(at).unwrap() % (SIZE - 8192)
    }

    fn transfer(&self, command: u64) {
        let registers = *self.0.registers.borrow();
        let (source, destination, len) = (registers[16], registers[17], registers[18]);
        let len = usize::try_from(len).unwrap();
        let inside = |address: u64| {
            let at = usize::try_from(address.checked_sub(0x4_0000).unwrap()).unwrap();
            assert!(
                at + len <= 4096,
                "a device-side address outside of the buffer"
            );
            at
        };
        let mut memory = self.0.memory.borrow_mut();
        let mut buffer = self.0.buffer.borrow_mut();
        self.0.transfers.set(self.0.transfers.get() + 1);
        if command & 2 == 0 {
            let (from, to) = (self.bus(source, false), inside(destination));
            buffer[to..to + len].copy_from_slice(&memory[from..from + len]);
        } else {
            let (from, to) = (inside(source), self.bus(destination, true));
            memory[to..to + len].copy_from_slice(&buffer[from..from + len]);
            match self.0.fault {
                Fault::Bit(every) if (self.0.transfers.get() / 2).is_multiple_of(every) => {
                    memory[to + len / 2] ^= 4;
                }
                Fault::Overrun => memory[to + len] ^= 1,
                _ => (),
            }
        }
        if command & 4 != 0 {
            let lost = match self.0.fault {
                Fault::Interrupt(every) => self.0.transfers.get().is_multiple_of(every),
                _ => false,
            };
            self.0
                .interrupts
                .set(self.0.interrupts.get() + u64::from(!lost));
        }
    }
}

impl Memory for Machine {
    fn fill(&self, gpa: Gpa, len: usize, mut next: impl FnMut() -> u64) -> Result<(), OutsideRam> {
        let at = self.at(gpa, len)?;
        for chunk in self.0.memory.borrow_mut()[at..at + len].chunks_mut(8) {
            chunk.copy_from_slice(&next().to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }

    fn first_difference(
        &self,
        gpa: Gpa,
        len: usize,
        mut next: impl FnMut() -> u64,
    ) -> Result<Option<usize>, OutsideRam> {
        let at = self.at(gpa, len)?;
        let memory = self.0.memory.borrow();
        let expected = (0..len.div_ceil(8)).flat_map(|_| next().to_le_bytes());
        Ok(memory[at..at + len]
            .iter()
            .zip(expected)
            .position(|(left, right)| *left != right))
    }

    fn read(&self, gpa: Gpa, into: &mut [u8]) -> Result<(), OutsideRam> {
        let at = self.at(gpa, into.len())?;
        into.copy_from_slice(&self.0.memory.borrow()[at..at + into.len()]);
        Ok(())
    }
}

impl Registers for Machine {
    fn read32(&self, offset: u64) -> u32 {
        let value = self.0.registers.borrow()[usize::try_from(offset / 8).unwrap()];
        match offset {
            0x00 => 0x0100_00ed,
            0x04 => !u32::try_from(self.0.registers.borrow()[0]).unwrap(),
            0x08 => (1..=u32::try_from(value).unwrap()).product(),
            0xa0.. => u32::MAX,
            _ => 0,
        }
    }

    fn write32(&self, offset: u64, value: u32) {
        self.0.registers.borrow_mut()[usize::try_from(offset / 8).unwrap()] = value.into();
        let status = self.0.registers.borrow()[4];
        if offset == 0x08 && status & 0x80 != 0 {
            self.0.interrupts.set(self.0.interrupts.get() + 1);
        }
    }

    fn read64(&self, offset: u64) -> u64 {
        assert!(offset >= 0x80, "64-bit access to a 32-bit register");
        u64::from(offset == 0x98 && self.0.fault == Fault::Hang)
    }

    fn write64(&self, offset: u64, value: u64) {
        assert!(offset >= 0x80, "64-bit access to a 32-bit register");
        self.0.registers.borrow_mut()[usize::try_from(offset / 8).unwrap()] = value;
        if offset == 0x98 && self.0.fault != Fault::Hang {
            self.transfer(value);
        }
    }
}

impl Signals for Machine {
    fn now(&self) -> u64 {
        self.0.time.set(self.0.time.get() + 1);
        self.0.time.get()
    }
    fn ticks_per_ms(&self) -> u64 {
        100
    }
    fn kinds(&self) -> Vec<Interrupt> {
        vec![Interrupt::Polling, Interrupt::Intx, Interrupt::Msi]
    }
    fn select(&mut self, _: Interrupt) -> Result<(), &'static str> {
        Ok(())
    }
    fn count(&self) -> u64 {
        self.0.interrupts.get()
    }
    fn sleep(&self, _: u64) {
        self.0.time.set(self.0.time.get() + 1000);
    }
    fn rearm(&self) {}
}
