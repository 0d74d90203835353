// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Finding the window on the bus.

use address::Gpa;
use pci_config::regs::{
    self, BAR_KIND, BAR_KIND_MEMORY_32, BAR_KIND_MEMORY_64, BAR_MEMORY_ADDRESS, BAR0,
};

/// The window's vendor ID.
pub const VENDOR: u16 = 0x1234;
/// The window's device ID.
pub const DEVICE: u16 = 0x7057;

const BAR2: u16 = BAR0 + 8;
const BAR3: u16 = BAR0 + 12;

/// Where a window's BARs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// BAR 0: 4 KiB of registers.
    pub registers: Gpa,
    /// BAR 2: the table. Its length is in the registers.
    pub table: Gpa,
}

/// Where the BARs of a function are, if it is a DMA window. `config` reads 32 bits of the
/// function's config space, at a multiple of 4.
///
/// The BARs are where the monitor put them. Do not move them: table pointers name those addresses.
#[must_use]
pub fn locate(config: impl Fn(u16) -> u32) -> Option<Location> {
    if config(regs::VENDOR) != u32::from(DEVICE) << 16 | u32::from(VENDOR) {
        return None;
    }
    let (registers, low) = (config(BAR0), config(BAR2));
    if registers & BAR_KIND != BAR_KIND_MEMORY_32 || low & BAR_KIND != BAR_KIND_MEMORY_64 {
        return None;
    }
    let table = u64::from(low & BAR_MEMORY_ADDRESS) | u64::from(config(BAR3)) << 32;
    let location = Location {
        registers: Gpa((registers & BAR_MEMORY_ADDRESS).into()),
        table: Gpa(table),
    };
    (location.registers != Gpa(0) && location.table != Gpa(0)).then_some(location)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(bars: [u32; 3]) -> Option<Location> {
        locate(|offset| match offset {
            0x00 => 0x7057_1234,
            0x10 => bars[0],
            0x18 => bars[1],
            0x1c => bars[2],
            _ => 0,
        })
    }

    #[test]
    fn a_window_is_known_by_its_ids_and_bars() {
        let place = |registers, table| Location {
            registers: Gpa(registers),
            table: Gpa(table),
        };
        assert_eq!(
            with([0xfe00_0000, 0x0000_000c, 0x12]),
            Some(place(0xfe00_0000, 0x12_0000_0000))
        );
        assert_eq!(
            with([0xfe00_1008, 0xfd00_0004, 0]),
            Some(place(0xfe00_1000, 0xfd00_0000))
        );
        assert_eq!(with([0xfe00_0001, 0xfd00_000c, 0]), None, "I/O ports");
        assert_eq!(with([0xfe00_0004, 0xfd00_000c, 0]), None, "64 bits");
        assert_eq!(with([0xfe00_0000, 0xfd00_0008, 0]), None, "32 bits");
        assert_eq!(with([0, 0xfd00_000c, 0]), None, "no address");
        assert_eq!(with([0xfe00_0000, 0x0000_000c, 0]), None, "no address");
        assert_eq!(locate(|_| u32::MAX), None, "no function there");
        assert_eq!(locate(|_| 0x11e8_1234), None, "another device");
    }
}
