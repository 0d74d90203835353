// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the driver asks of the machine it runs on.

/// Bytes of a memory page, for the controller (CC.MPS = 0) and for [`DmaBuffer`].
pub const PAGE_BYTES: usize = 4096;

/// Memory that a device reads and writes.
///
/// Offsets count from the start of the first page; the pages follow one another for the CPU,
/// not necessarily for the device. Accesses are volatile. The driver's offsets are multiples
/// of the width and end at or before the end of the last page.
pub trait DmaBuffer {
    /// How many pages there are.
    fn pages(&self) -> usize;
    /// The address at which the device finds page `page`: a multiple of [`PAGE_BYTES`].
    /// `None` if there is no such page.
    fn dma_address(&self, page: usize) -> Option<u64>;
    /// The 32-bit word at `offset`.
    fn read32(&self, offset: usize) -> u32;
    /// Sets the 32-bit word at `offset`.
    fn write32(&self, offset: usize, value: u32);
    /// Sets the 64-bit word at `offset`.
    fn write64(&self, offset: usize, value: u64);
}

/// Where DMA memory comes from.
pub trait Dma {
    /// What is handed out. Dropping it gives the memory back; the driver does so only when the
    /// controller has confirmed that it is disabled, and leaks it otherwise.
    type Buffer: DmaBuffer;

    /// `pages` pages of zeros, or `None` when there is no memory.
    fn allocate(&mut self, pages: usize) -> Option<Self::Buffer>;
}

/// A clock that runs.
pub trait Clock {
    /// Ticks since some moment, never going back (a time-stamp counter).
    fn ticks(&self) -> u64;
    /// Ticks in a millisecond, at least 1.
    fn ticks_per_ms(&self) -> u64;
}

impl<T: Clock + ?Sized> Clock for &T {
    fn ticks(&self) -> u64 {
        (**self).ticks()
    }
    fn ticks_per_ms(&self) -> u64 {
        (**self).ticks_per_ms()
    }
}
