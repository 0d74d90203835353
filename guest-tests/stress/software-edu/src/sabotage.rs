// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Faults to inject between an engine and its environment, to verify that a DMA test detects them.
//! Unused unless requested.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use devices::pci::MsiMessage;

use crate::outside::{DmaMemory, DmaRefused, InterruptSink};

/// Memory at addresses that are off by a fixed distance.
pub struct Misplaced {
    memory: Box<dyn DmaMemory>,
    by: i64,
}

impl Misplaced {
    /// `memory`, in which an access to address `a` reaches `a + by`, modulo 2^64.
    #[must_use]
    pub fn new(memory: Box<dyn DmaMemory>, by: i64) -> Self {
        Self { memory, by }
    }
}

impl fmt::Debug for Misplaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Misplaced")
            .field("by", &self.by)
            .finish_non_exhaustive()
    }
}

impl DmaMemory for Misplaced {
    fn begin(&self) {
        self.memory.begin();
    }

    fn read(&self, address: u64, data: &mut [u8]) -> Result<(), DmaRefused> {
        self.memory.read(address.wrapping_add_signed(self.by), data)
    }

    fn write(&self, address: u64, data: &[u8]) -> Result<(), DmaRefused> {
        self.memory
            .write(address.wrapping_add_signed(self.by), data)
    }
}

/// Memory that gets one bit wrong in every Nth transfer.
pub struct FlippedBits {
    memory: Box<dyn DmaMemory>,
    every: NonZeroU64,
    transfers: AtomicU64,
    /// The transfer under way is to be spoilt and is not yet.
    armed: AtomicBool,
}

impl FlippedBits {
    /// `memory`, with one bit of the first burst of every transfer whose number, from 1, is a
    /// multiple of `every`, flipped on its way. It is another bit every time.
    #[must_use]
    pub fn new(memory: Box<dyn DmaMemory>, every: NonZeroU64) -> Self {
        Self {
            memory,
            every,
            transfers: AtomicU64::new(0),
            armed: AtomicBool::new(false),
        }
    }

    fn flip(&self, data: &mut [u8]) {
        let number = self.transfers.load(Ordering::Relaxed) / self.every;
        let bits = (data.len() as u64 * 8).max(1);
        // An odd factor, so that all bits get their turn in bursts of a power of two.
        let bit = number.wrapping_mul(37) % bits;
        let place = usize::try_from(bit / 8).ok();
        if let Some(byte) = place.and_then(|place| data.get_mut(place)) {
            *byte ^= 1 << (bit % 8);
        }
    }
}

impl fmt::Debug for FlippedBits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlippedBits")
            .field("every", &self.every)
            .field("transfers", &self.transfers)
            .finish_non_exhaustive()
    }
}

impl DmaMemory for FlippedBits {
    fn begin(&self) {
        let number = self.transfers.fetch_add(1, Ordering::Relaxed) + 1;
        let armed = number.is_multiple_of(self.every.get());
        self.armed.store(armed, Ordering::Relaxed);
        self.memory.begin();
    }

    fn read(&self, address: u64, data: &mut [u8]) -> Result<(), DmaRefused> {
        self.memory.read(address, data)?;
        if self.armed.swap(false, Ordering::Relaxed) {
            self.flip(data);
        }
        Ok(())
    }

    fn write(&self, address: u64, data: &[u8]) -> Result<(), DmaRefused> {
        if !self.armed.swap(false, Ordering::Relaxed) {
            return self.memory.write(address, data);
        }
        let mut spoilt = data.to_vec();
        self.flip(&mut spoilt);
        self.memory.write(address, &spoilt)
    }
}

/// A sink that loses every Nth interrupt: a message, or that the line was asserted.
pub struct LostInterrupts {
    sink: Box<dyn InterruptSink>,
    every: NonZeroU64,
    interrupts: AtomicU64,
}

impl LostInterrupts {
    /// `sink`, which does not see the interrupts whose number, from 1, is a multiple of `every`.
    #[must_use]
    pub fn new(sink: Box<dyn InterruptSink>, every: NonZeroU64) -> Self {
        Self {
            sink,
            every,
            interrupts: AtomicU64::new(0),
        }
    }

    fn is_lost(&self) -> bool {
        let number = self.interrupts.fetch_add(1, Ordering::Relaxed) + 1;
        number.is_multiple_of(self.every.get())
    }
}

impl fmt::Debug for LostInterrupts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LostInterrupts")
            .field("every", &self.every)
            .field("interrupts", &self.interrupts)
            .finish_non_exhaustive()
    }
}

impl InterruptSink for LostInterrupts {
    fn message(&self, message: MsiMessage) {
        if !self.is_lost() {
            self.sink.message(message);
        }
    }

    fn line(&self, asserted: bool) {
        if !asserted || !self.is_lost() {
            self.sink.line(asserted);
        }
    }
}
