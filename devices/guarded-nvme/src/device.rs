// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the monitor needs of the real device: registers, memory that it can reach, and an end of its DMA.

use std::error::Error;
use std::fmt;

use address::Hpa;

use crate::guest::Doorbell;
use crate::spec::registers::{Capabilities, DOORBELLS};

/// How the pages of a block have to lie for the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One after the other: a queue of several pages.
    Contiguous,
    /// Anywhere.
    Pages,
}

/// Memory of the monitor's that the device accesses: whole pages of 4 KiB, zeroed, pinned, on no guest's table.
///
/// The device changes it while this runs. Accesses are of 8 bytes, little-endian, each a single load or store. They are in
/// no order by themselves; the crate puts fences where it needs one. An offset past the end does nothing and gives 0.
///
/// Dropping a block unpins it. The crate drops none while the device may be running.
pub trait Block: fmt::Debug {
    /// How many pages there are.
    fn pages(&self) -> usize;

    /// Where a page is for the device.
    fn hpa(&self, page: usize) -> Hpa;

    /// Reads the 8 bytes at `offset`, a multiple of 8.
    fn load(&self, offset: usize) -> u64;

    /// Writes the 8 bytes at `offset`, a multiple of 8.
    fn store(&self, offset: usize, value: u64);
}

/// An operation that the host refused. The text names the device, the operation and the cause.
#[derive(Debug)]
pub struct DeviceError(pub Box<dyn Error + Send + Sync>);

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for DeviceError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

/// The real controller: its BAR0 and what the host does for it.
///
/// An implementation owns, besides the device, all that has to stay as long as its DMA may run: the pins of guest memory.
/// The crate drops it only when the device is quiet, and leaks it otherwise.
pub trait Device: fmt::Debug {
    /// Memory for it.
    type Block: Block;

    /// Reads the 4 bytes of BAR0 at `offset`. All ones where nothing responds.
    fn read(&self, offset: u32) -> u32;

    /// Writes the 4 bytes of BAR0 at `offset`.
    fn write(&self, offset: u32, value: u32);

    /// Writes a doorbell of the device's, one store of 4 bytes, after everything that was stored in blocks before (arm64:
    /// `dmb oshst`). It is at [`doorbell_offset`].
    fn ring(&self, doorbell: Doorbell, value: u16);

    /// Makes a block. `None` if there is none of this shape.
    fn allocate(&mut self, pages: usize, shape: Shape) -> Option<Self::Block>;

    /// Turns bus mastering on or off. The guest's own bit is not the device's.
    ///
    /// # Errors
    ///
    /// If config space cannot be written.
    fn set_bus_master(&mut self, on: bool) -> Result<(), DeviceError>;

    /// Resets the function. When it returns, no DMA of the device runs any more and CC.EN is 0.
    ///
    /// # Errors
    ///
    /// If that is not certain.
    fn reset(&mut self) -> Result<(), DeviceError>;
}

/// Where a doorbell is in BAR0 of a device with these capabilities (Base 3.1.4.x: 1000h + index * (4 << CAP.DSTRD)).
#[must_use]
pub fn doorbell_offset(cap: Capabilities, doorbell: Doorbell) -> u64 {
    u64::from(DOORBELLS) + u64::from(doorbell.index()) * u64::from(cap.stride())
}
