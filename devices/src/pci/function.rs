// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The interface of a PCI function to its bus.

/// A region of a function's address space that its header places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Region {
    /// Base address register 0 to 5.
    Bar(u8),
    /// Expansion ROM.
    Rom,
}

/// The two address spaces that BARs are decoded in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Space {
    /// Memory: addresses on the bus.
    Memory,
    /// I/O ports.
    Io,
}

/// A range of addresses that a function answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Which address space.
    pub space: Space,
    /// First address.
    pub base: u64,
    /// Bytes.
    pub size: u64,
    /// What is behind it.
    pub region: Region,
}

impl Window {
    fn offset_of(&self, space: Space, address: u64) -> Option<u64> {
        let offset = address.checked_sub(self.base)?;
        (self.space == space && offset < self.size).then_some(offset)
    }
}

/// The windows of one function: at most six BARs and the ROM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Windows([Option<Window>; 7]);

impl Windows {
    /// Adds a window. An eighth is dropped: a function has no more regions.
    pub fn push(&mut self, window: Window) {
        if let Some(free) = self.0.iter_mut().find(|slot| slot.is_none()) {
            *free = Some(window);
        }
    }

    /// The region behind `address` and the offset into it. Of overlapping windows, the first.
    #[must_use]
    pub fn find(&self, space: Space, address: u64) -> Option<(Region, u64)> {
        self.iter()
            .find_map(|window| Some((window.region, window.offset_of(space, address)?)))
    }

    /// All windows.
    pub fn iter(&self) -> impl Iterator<Item = &Window> {
        self.0.iter().flatten()
    }
}

/// A PCI function with a type 0 header.
///
/// The bus calls one method at a time, from any vCPU thread. A function must not call back into
/// the bus from one.
pub trait PciFunction: Send {
    /// Reads config space: `data` has 1, 2 or 4 bytes and `offset` (below 4096) is a multiple of
    /// that. Registers that do not exist read as 0, or all-ones past the end of config space.
    fn config_read(&mut self, offset: u16, data: &mut [u8]);

    /// Writes config space; shapes as for [`config_read`](Self::config_read). Bits that do not
    /// exist or are read-only keep their value.
    fn config_write(&mut self, offset: u16, data: &[u8]);

    /// The addresses that the function answers at this moment, from its BARs and COMMAND.
    fn windows(&self) -> Windows;

    /// Reads a region: `data` has 1, 2, 4 or 8 bytes, `offset` is a multiple of that, and both
    /// are within the region's window.
    fn bar_read(&mut self, region: Region, offset: u64, data: &mut [u8]);

    /// Writes a region; shapes as for [`bar_read`](Self::bar_read).
    fn bar_write(&mut self, region: Region, offset: u64, data: &[u8]);

    /// Brings the function back to its state at power-on, BARs included.
    fn reset(&mut self);
}
