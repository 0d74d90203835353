// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The register file.

use crate::transfer::{Direction, Refusal, Request};

/// What register 0xa0 reads as: "PVSE" in ASCII.
pub const SOFTWARE_ENGINE: u32 = 0x4553_5650;

const IDENTIFICATION: u32 = 0x0100_00ed;

const STATUS_COMPUTING: u32 = 1 << 0;
const STATUS_INTERRUPT: u32 = 1 << 7;

const COMMAND_START: u64 = 1 << 0;
const COMMAND_TO_MEMORY: u64 = 1 << 1;
const COMMAND_INTERRUPT: u64 = 1 << 2;

/// Interrupt status bit of a factorial that is done.
const FACTORIAL_INTERRUPT: u32 = 1;
/// Interrupt status bit of a transfer that has ended.
const DMA_INTERRUPT: u32 = 0x100;

/// What a write leads to beyond the register file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    None,
    /// There is something for the worker.
    Work,
    /// Interrupt status bits go up.
    Raise(u32),
    /// Interrupt status bits go down.
    Acknowledge(u32),
}

/// What the worker is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    Factorial(u32),
    Transfer(Request),
}

/// The registers. The interrupt status is kept here; what follows from it is not.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registers {
    buffer_size: u32,
    liveness: u32,
    factorial: u32,
    status: u32,
    pub interrupts: u32,
    source: u64,
    destination: u64,
    count: u64,
    command: u64,
    refused: u64,
    last_refused: (u64, u64),
}

impl Registers {
    /// At power-on, of an engine with a buffer of so many bytes.
    pub fn new(buffer_size: u32) -> Self {
        Self {
            buffer_size,
            ..Self::default()
        }
    }

    /// Bytes of the buffer.
    pub fn buffer_size(&self) -> u32 {
        self.buffer_size
    }

    /// Reads `width` bytes at `offset`; all-ones in 64 bits where there is nothing to read.
    pub fn read(&self, offset: u64, width: usize) -> u64 {
        if !is_access(offset, width) {
            return u64::MAX;
        }
        match offset {
            0x00 => IDENTIFICATION.into(),
            0x04 => self.liveness.into(),
            0x08 => self.factorial.into(),
            0x20 => self.status.into(),
            0x24 => self.interrupts.into(),
            0x80 => self.source,
            0x88 => self.destination,
            0x90 => self.count,
            0x98 => self.command,
            0xa0 => SOFTWARE_ENGINE.into(),
            0xa4 => self.buffer_size.into(),
            0xa8 => self.refused,
            0xb0 => self.last_refused.0,
            0xb8 => self.last_refused.1,
            _ => u64::MAX,
        }
    }

    /// Writes `value`, of `width` bytes, at `offset`.
    pub fn write(&mut self, offset: u64, width: usize, value: u64) -> Effect {
        if !is_access(offset, width) {
            return Effect::None;
        }
        match u32::try_from(value) {
            Ok(value) if offset < 0x80 => self.write_narrow(offset, value),
            _ => self.write_dma(offset, value),
        }
    }

    /// What there is to do.
    pub fn work(&self) -> Option<Work> {
        if self.status & STATUS_COMPUTING != 0 {
            return Some(Work::Factorial(self.factorial));
        }
        self.is_transferring().then(|| {
            let (direction, bus, device) = if self.command & COMMAND_TO_MEMORY == 0 {
                (Direction::Read, self.source, self.destination)
            } else {
                (Direction::Write, self.destination, self.source)
            };
            Work::Transfer(Request {
                direction,
                bus,
                device,
                count: self.count,
            })
        })
    }

    /// Ends the computation. Returns the interrupt status bits to raise.
    #[must_use]
    pub fn finish_factorial(&mut self, result: u32) -> u32 {
        self.factorial = result;
        self.status &= !STATUS_COMPUTING;
        if self.status & STATUS_INTERRUPT == 0 {
            0
        } else {
            FACTORIAL_INTERRUPT
        }
    }

    /// Ends the transfer. Returns the interrupt status bits to raise.
    #[must_use]
    pub fn finish_transfer(&mut self, refusal: Option<&Refusal>) -> u32 {
        self.command &= !COMMAND_START;
        if let Some(refusal) = refusal {
            self.refused = self.refused.saturating_add(1);
            self.last_refused = (refusal.address, refusal.length);
        }
        if self.command & COMMAND_INTERRUPT == 0 {
            0
        } else {
            DMA_INTERRUPT
        }
    }

    /// Transfers refused since reset.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    fn write_narrow(&mut self, offset: u64, value: u32) -> Effect {
        match offset {
            0x04 => self.liveness = !value,
            0x08 if self.status & STATUS_COMPUTING == 0 => {
                self.factorial = value;
                self.status |= STATUS_COMPUTING;
                return Effect::Work;
            }
            0x20 => {
                self.status = self.status & !STATUS_INTERRUPT | value & STATUS_INTERRUPT;
            }
            0x60 => return Effect::Raise(value),
            0x64 => return Effect::Acknowledge(value),
            _ => {}
        }
        Effect::None
    }

    fn write_dma(&mut self, offset: u64, value: u64) -> Effect {
        if self.is_transferring() {
            return Effect::None;
        }
        match offset {
            0x80 => self.source = value,
            0x88 => self.destination = value,
            0x90 => self.count = value,
            0x98 if value & COMMAND_START != 0 => {
                self.command = value;
                return Effect::Work;
            }
            _ => {}
        }
        Effect::None
    }

    fn is_transferring(&self) -> bool {
        self.command & COMMAND_START != 0
    }
}

/// Whether the device answers accesses of `width` bytes at `offset`.
fn is_access(offset: u64, width: usize) -> bool {
    width == 4 || width == 8 && offset >= 0x80
}

/// n! modulo 2^32, which is 0 from 34 on: 34! has 32 factors of 2.
pub(crate) fn factorial(n: u32) -> u32 {
    match n {
        ..34 => (1..=n).fold(1, u32::wrapping_mul),
        34.. => 0,
    }
}
