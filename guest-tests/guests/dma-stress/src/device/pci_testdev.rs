// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! QEMU's `pci-testdev` (docs/specs/pci-testdev): a BAR that counts what is written to it, in
//! memory and in ports.

use alloc::string::String;

/// PCI vendor and device.
pub const ID: (u16, u16) = (0x1b36, 0x0005);

const TEST: u64 = 0;
const WIDTH: u64 = 1;
const OFFSET: u64 = 4;
const DATA: u64 = 8;
const COUNT: u64 = 12;
const NAME: u64 = 16;
/// Bytes of the header that are compared.
const HEADER: u64 = 16;

/// Longest name that is read.
const MAX_NAME: u64 = 32;
/// Tests that a BAR may have.
const MAX_TESTS: u8 = 64;
/// Writes of a test.
const WRITES: u32 = 16;
/// The test whose writes the device itself counts; those of the others it may hand on.
const COUNTED: &str = "no-eventfd";

/// A BAR, in memory or in ports.
pub trait Space {
    /// Reads `width` bytes, 1, 2 or 4, at a multiple of that.
    fn read(&self, offset: u64, width: u8) -> u32;
    /// Writes `width` bytes.
    fn write(&self, offset: u64, width: u8, value: u32);
}

/// Runs every test of the BAR, and returns how many there are.
///
/// # Errors
/// What is wrong.
pub fn run(space: &impl Space) -> Result<u8, &'static str> {
    for test in 0..MAX_TESTS {
        space.write(TEST, 1, test.into());
        let width = space.read(WIDTH, 1);
        let Some(width) = [1, 2, 4]
            .into_iter()
            .find(|known| u32::from(*known) == width)
        else {
            return match test {
                0 => Err("the BAR has no tests"),
                tests => Ok(tests),
            };
        };
        compare_widths(space)?;
        let (offset, data) = (space.read(OFFSET, 4), space.read(DATA, 4));
        for _ in 0..WRITES {
            space.write(offset.into(), width, data);
        }
        let count = space.read(COUNT, 4);
        let counted = name(space).ends_with(COUNTED);
        if count != WRITES && (counted || count != 0) {
            return Err("writes were not counted");
        }
    }
    Err("the BAR has no end of tests")
}

/// Reads the header with every width.
fn compare_widths(space: &impl Space) -> Result<(), &'static str> {
    for offset in (WIDTH..HEADER).filter(|offset| *offset >= 4) {
        let byte = space.read(offset, 1);
        for width in [2_u8, 4] {
            let start = offset / u64::from(width) * u64::from(width);
            let wide = space.read(start, width) >> (8 * (offset - start));
            if wide & 0xff != byte {
                return Err("reads of different widths differ");
            }
        }
    }
    Ok(())
}

fn name(space: &impl Space) -> String {
    (0..MAX_NAME)
        .map_while(|at| {
            u8::try_from(space.read(NAME + at, 1))
                .ok()
                .filter(|byte| *byte != 0)
        })
        .map(char::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use core::cell::{Cell, RefCell};

    use super::*;

    /// Three tests of byte writes at 0x800 and on; the first is counted.
    struct Bar {
        header: RefCell<[u8; 48]>,
        test: Cell<u8>,
        lost: bool,
    }

    impl Bar {
        fn new(lost: bool) -> Self {
            Self {
                header: RefCell::new([0; 48]),
                test: Cell::new(0xff),
                lost,
            }
        }
    }

    impl Space for Bar {
        fn read(&self, offset: u64, width: u8) -> u32 {
            let header = self.header.borrow();
            let at = usize::try_from(offset).unwrap();
            (0..usize::from(width)).fold(0, |value, byte| {
                value | u32::from(header[at + byte]) << (8 * byte)
            })
        }

        fn write(&self, offset: u64, width: u8, value: u32) {
            let mut header = self.header.borrow_mut();
            if offset == TEST {
                *header = [0; 48];
                let test = u8::try_from(value).unwrap();
                self.test.set(test);
                if test < 3 {
                    header[1] = 1;
                    header[5] = 8;
                    header[8] = 0xfa;
                    let name = [
                        "mmio-no-eventfd",
                        "mmio-wildcard-eventfd",
                        "mmio-datamatch-eventfd",
                    ];
                    let name = name[usize::from(test)].as_bytes();
                    header[16..16 + name.len()].copy_from_slice(name);
                }
            } else if offset == 0x800
                && width == 1
                && value == 0xfa
                && self.test.get() == 0
                && !self.lost
            {
                header[12] += 1;
            }
        }
    }

    #[test]
    fn every_test_is_run() {
        assert_eq!(run(&Bar::new(false)), Ok(3));
    }

    #[test]
    fn lost_writes_are_noticed() {
        assert_eq!(run(&Bar::new(true)), Err("writes were not counted"));
    }

    #[test]
    fn a_bar_without_tests_is_reported() {
        struct Nothing;
        impl Space for Nothing {
            fn read(&self, _: u64, _: u8) -> u32 {
                u32::MAX
            }
            fn write(&self, _: u64, _: u8, _: u32) {}
        }
        assert!(run(&Nothing).is_err());
    }
}
