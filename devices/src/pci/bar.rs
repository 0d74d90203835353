// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Base address registers: decode, sizing and the expansion ROM.

use address::BusAddr;
use pci_config::BarKind;
use pci_config::regs::{
    BAR_END, BAR_IO_ADDRESS, BAR_MEMORY_ADDRESS, BAR0, BARS, ROM, ROM_ADDRESS, ROM_ENABLE,
};
use thiserror::Error;

use super::access::DwordWrite;
use super::function::{Region, Space, Window};

/// The smallest size of a BAR.
fn smallest_size(kind: BarKind) -> u64 {
    match kind {
        BarKind::Io => 4,
        BarKind::Memory32 { .. } | BarKind::Memory64 { .. } => 16,
    }
}

/// The last address of the space that the register can name.
fn last_address(kind: BarKind) -> u64 {
    match kind {
        BarKind::Io => u64::from(u16::MAX),
        BarKind::Memory32 { .. } => u64::from(u32::MAX),
        BarKind::Memory64 { .. } => u64::MAX,
    }
}

/// A BAR that cannot exist as described.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BarError {
    /// The size is none that the sizing handshake can express.
    #[error("size {size:#x} is not a power of two of at least {minimum:#x}")]
    Size {
        /// Bytes asked for.
        size: u64,
        /// The least that the kind of BAR allows.
        minimum: u64,
    },
    /// The address is not aligned to the size or out of the register's reach.
    #[error(
        "address {address:#x} is not valid for a BAR of {size:#x} bytes that must end by {last:#x}"
    )]
    Address {
        /// Address asked for.
        address: u64,
        /// Bytes.
        size: u64,
        /// Last address that the register can reach.
        last: u64,
    },
    /// No such register, or it is in use.
    #[error("BAR {index} does not exist or is in use")]
    Index {
        /// Register number asked for.
        index: u8,
    },
}

/// One base address register, or a pair of them for 64-bit memory.
#[derive(Clone, Debug)]
pub struct Bar {
    kind: BarKind,
    size: u64,
    home: u64,
    address: u64,
}

impl Bar {
    /// A BAR of `size` bytes whose address at power-on is `home`; 0 means none.
    ///
    /// # Errors
    ///
    /// If `size` is not a power of two or too small, or `home` is not aligned to it or out of
    /// reach.
    pub fn new(kind: BarKind, size: u64, home: u64) -> Result<Self, BarError> {
        let minimum = smallest_size(kind);
        let last = last_address(kind);
        if !size.is_power_of_two() || size < minimum || size - 1 > last {
            return Err(BarError::Size { size, minimum });
        }
        let fits = home.checked_add(size - 1).is_some_and(|end| end <= last);
        if !home.is_multiple_of(size) || !fits {
            let address = home;
            return Err(BarError::Address {
                address,
                size,
                last,
            });
        }
        Ok(Self {
            kind,
            size,
            home,
            address: home,
        })
    }

    /// What the register decodes.
    #[must_use]
    pub fn kind(&self) -> BarKind {
        self.kind
    }

    /// The address space that the register decodes.
    #[must_use]
    pub fn space(&self) -> Space {
        match self.kind {
            BarKind::Io => Space::Io,
            BarKind::Memory32 { .. } | BarKind::Memory64 { .. } => Space::Memory,
        }
    }

    /// Bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The address at power-on.
    #[must_use]
    pub fn home(&self) -> u64 {
        self.home
    }

    /// The address that the guest has programmed.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Whether the register has its power-on address.
    #[must_use]
    pub fn is_home(&self) -> bool {
        self.address == self.home
    }

    /// Where on the bus a memory BAR is to answer: at its address, unless it has none or holds what a guest writes to learn its
    /// size, in either half.
    #[must_use]
    pub fn place(&self) -> Option<BusAddr> {
        let (low, high) = self.masks();
        let all = |half: u32, mask: u32| mask != 0 && half == mask;
        let (value_low, value_high) = halves(self.address);
        let is_sized = all(value_low, low) || all(value_high, high);
        let is_placed = self.address != 0 && (self.is_home() || !is_sized);
        (self.space() == Space::Memory && is_placed).then_some(BusAddr(self.address))
    }

    /// Where the BAR is decoded; `None` without an address, or where it would run past the end
    /// of its space.
    #[must_use]
    pub fn window(&self, index: u8) -> Option<Window> {
        let end = self.address.checked_add(self.size - 1)?;
        (self.address != 0 && end <= last_address(self.kind)).then_some(Window {
            space: self.space(),
            base: self.address,
            size: self.size,
            region: Region::Bar(index),
        })
    }

    /// Address bits of the low and the high register that can be written.
    fn masks(&self) -> (u32, u32) {
        let (low, high) = halves(!(self.size - 1));
        match self.kind {
            BarKind::Io => (low & BAR_IO_ADDRESS, 0),
            BarKind::Memory32 { .. } => (low & BAR_MEMORY_ADDRESS, 0),
            BarKind::Memory64 { .. } => (low & BAR_MEMORY_ADDRESS, high),
        }
    }

    fn read_low(&self) -> u32 {
        halves(self.address).0 | self.kind.flags()
    }

    fn read_high(&self) -> u32 {
        halves(self.address).1
    }

    fn write_low(&mut self, value: u32) {
        self.address = self.address >> 32 << 32 | u64::from(value & self.masks().0);
    }

    fn write_high(&mut self, value: u32) {
        self.address = u64::from(value & self.masks().1) << 32 | u64::from(halves(self.address).0);
    }
}

/// Low and high half.
fn halves(value: u64) -> (u32, u32) {
    let bytes = value.to_le_bytes();
    let [a, b, c, d, e, f, g, h] = bytes;
    (
        u32::from_le_bytes([a, b, c, d]),
        u32::from_le_bytes([e, f, g, h]),
    )
}

/// The expansion ROM's base address register.
#[derive(Clone, Debug)]
struct RomBar {
    size: u32,
    home: u32,
    register: u32,
}

#[derive(Clone, Debug, Default)]
enum Slot {
    #[default]
    Empty,
    Bar(Bar),
    /// High half of the BAR before.
    Upper,
}

/// The base address registers of one function.
#[derive(Clone, Debug, Default)]
pub struct Bars {
    slots: [Slot; BARS as usize],
    rom: Option<RomBar>,
}

impl Bars {
    /// Makes `bar` BAR `index`, and for 64-bit memory the upper half of it `index + 1`.
    ///
    /// # Errors
    ///
    /// If one of the registers does not exist or is taken.
    pub fn insert(&mut self, index: u8, bar: Bar) -> Result<(), BarError> {
        let error = BarError::Index { index };
        let first = usize::from(index);
        let count = match bar.kind {
            BarKind::Memory64 { .. } => 2,
            BarKind::Io | BarKind::Memory32 { .. } => 1,
        };
        let slots = self.slots.get_mut(first..first + count).ok_or(error)?;
        if !slots.iter().all(|slot| matches!(slot, Slot::Empty)) {
            return Err(error);
        }
        if let [_, upper] = &mut *slots {
            *upper = Slot::Upper;
        }
        slots[0] = Slot::Bar(bar);
        Ok(())
    }

    /// Gives the function an expansion ROM of `size` bytes that is at `home` at power-on (0:
    /// nowhere), disabled.
    ///
    /// # Errors
    ///
    /// If `size` is not a power of two of 2 KiB or more, or `home` is not aligned to it or out of
    /// reach.
    pub fn set_rom(&mut self, size: u64, home: u64) -> Result<(), BarError> {
        let minimum = 0x800;
        let last = u64::from(u32::MAX);
        let valid = size.is_power_of_two() && (minimum..=last).contains(&size);
        let small = u32::try_from(size).ok().filter(|_| valid);
        let size_bits = small.ok_or(BarError::Size { size, minimum })?;
        let home_bits = u32::try_from(home)
            .ok()
            .filter(|home| home.is_multiple_of(size_bits));
        let home_bits = home_bits.ok_or(BarError::Address {
            address: home,
            size,
            last,
        })?;
        self.rom = Some(RomBar {
            size: size_bits,
            home: home_bits,
            register: home_bits,
        });
        Ok(())
    }

    /// BAR `index`, unless it is absent or the upper half of another.
    #[must_use]
    pub fn get(&self, index: u8) -> Option<&Bar> {
        match self.slots.get(usize::from(index)) {
            Some(Slot::Bar(bar)) => Some(bar),
            _ => None,
        }
    }

    /// All BARs with their indices.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &Bar)> {
        (0..BARS).filter_map(|index| Some((index, self.get(index)?)))
    }

    /// Where the ROM is decoded: it is enabled and has an address.
    #[must_use]
    pub fn rom_window(&self) -> Option<Window> {
        let rom = self.rom.as_ref()?;
        let base = rom.register & ROM_ADDRESS;
        (rom.register & ROM_ENABLE != 0 && base != 0).then_some(Window {
            space: Space::Memory,
            base: u64::from(base),
            size: u64::from(rom.size),
            region: Region::Rom,
        })
    }

    /// Puts every register back to its value at power-on.
    pub fn reset(&mut self) {
        for slot in &mut self.slots {
            if let Slot::Bar(bar) = slot {
                bar.address = bar.home;
            }
        }
        if let Some(rom) = &mut self.rom {
            rom.register = rom.home;
        }
    }

    /// The base address register at config offset `offset`, a multiple of 4; `None` if there is
    /// no such register in the header.
    pub(crate) fn read(&self, offset: u16) -> Option<u32> {
        if offset == ROM {
            return Some(self.rom.as_ref().map_or(0, |rom| rom.register));
        }
        let index = bar_index(offset)?;
        Some(match &self.slots[index] {
            Slot::Empty => 0,
            Slot::Bar(bar) => bar.read_low(),
            Slot::Upper => match &self.slots[index - 1] {
                Slot::Bar(bar) => bar.read_high(),
                Slot::Empty | Slot::Upper => 0,
            },
        })
    }

    /// Writes the base address register that `write` lies in; false if there is none in the
    /// header.
    pub(crate) fn write(&mut self, write: DwordWrite) -> bool {
        let Some(value) = self.read(write.offset).map(|old| write.merge(old)) else {
            return false;
        };
        if let Some(index) = bar_index(write.offset) {
            let (before, rest) = self.slots.split_at_mut(index);
            match (&mut rest[0], before.last_mut()) {
                (Slot::Bar(bar), _) => bar.write_low(value),
                (Slot::Upper, Some(Slot::Bar(bar))) => bar.write_high(value),
                _ => {}
            }
        } else if let Some(rom) = &mut self.rom {
            rom.register = value & (ROM_ADDRESS & !(rom.size - 1) | ROM_ENABLE);
        }
        true
    }
}

fn bar_index(offset: u16) -> Option<usize> {
    (BAR0..BAR_END)
        .contains(&offset)
        .then(|| usize::from((offset - BAR0) / 4))
}

#[cfg(test)]
mod tests;
