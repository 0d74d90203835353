// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Whether a DMA window keeps what it promises, as far as its guest can see.

use alloc::format;
use alloc::string::String;
use core::ops::Range;

use address::Gpa;
use dma_window::{Bars, DmaWindow, TranslateError};

/// Addresses that are asked for both ways.
const QUERIES: u64 = 192;
/// Places that are written to.
const WRITES: u64 = 64;
const PAGE: u64 = 4096;

/// Walks the table and asks the registers for addresses of all kinds, and compares.
///
/// # Errors
/// Where they disagree, or either is not about exactly the guest's memory.
pub fn agrees<B: Bars>(
    window: &mut DmaWindow<B>,
    extents: &[Range<Gpa>],
    random: &mut fastrand::Rng,
) -> Result<String, String> {
    let before = window.refused_queries();
    let mut refused = 0;
    for number in 0..QUERIES {
        let (gpa, len) = question(number, extents, random);
        let walked = window.translate(gpa, len);
        let asked = window.query(gpa, len);
        if walked != asked {
            return Err(format!(
                "{len:#x} bytes at {gpa}: the walk finds {walked:x?}, the query {asked:x?}"
            ));
        }
        let is_memory = extents.iter().any(|extent| extent.contains(&gpa)) && len > 0;
        if is_memory != walked.is_ok() && gpa >= Gpa(1 << 20) {
            return Err(format!(
                "{len:#x} bytes at {gpa} are the guest's ({is_memory}), and translate to {walked:x?}"
            ));
        }
        refused += u64::from(asked.is_err());
    }
    match window.refused_queries().wrapping_sub(before) {
        counted if counted == refused => Ok(format!("{QUERIES} addresses, {refused} refused")),
        counted => Err(format!(
            "{counted} queries count as refused, {refused} were"
        )),
    }
}

/// An address, mostly of memory or near its ends, and a length.
fn question(number: u64, extents: &[Range<Gpa>], random: &mut fastrand::Rng) -> (Gpa, u64) {
    let any = Gpa(random.u64(..) >> random.u32(..64));
    let gpa = match extents.get(random.usize(..extents.len().max(1))) {
        None => any,
        Some(extent) => match number % 6 {
            0 => any,
            1 => Gpa((extent.start.0 - 8).wrapping_add(random.u64(..16))),
            2 => Gpa((extent.end.0 - 8).wrapping_add(random.u64(..16))),
            _ => Gpa(random.u64(extent.start.0..extent.end.0)),
        },
    };
    let len = match random.u64(..8) {
        0 => random.u64(..) >> random.u32(..64),
        1 => 0,
        2 => 1,
        3 => u64::MAX,
        _ => random.u64(..16 * PAGE),
    };
    (gpa, len)
}

/// Translates all of memory, and counts its pieces.
///
/// # Errors
/// Memory that has no address for devices.
pub fn covers<B: Bars>(window: &DmaWindow<B>, extents: &[Range<Gpa>]) -> Result<String, String> {
    let mut pieces: u64 = 0;
    for extent in extents {
        let mut gpa = extent.start;
        while gpa < extent.end {
            let run = window
                .translate(gpa, extent.end - gpa)
                .map_err(|error: TranslateError| format!("{error}"))?;
            gpa = gpa + run.len;
            pieces += 1;
        }
    }
    let bytes: u64 = extents.iter().map(|extent| extent.end - extent.start).sum();
    Ok(format!("{} KiB in {pieces} pieces", bytes >> 10))
}

/// Writes to the table with `write`, which is given an offset and a value, and looks whether that
/// changes it.
///
/// # Errors
/// Where it did.
pub fn withstands<B: Bars>(
    window: &DmaWindow<B>,
    random: &mut fastrand::Rng,
    write: impl Fn(u64, u64),
) -> Result<String, String> {
    let words = window.table_bytes() / 8;
    let hash = || {
        (0..words).fold(0xcbf2_9ce4_8422_2325, |hash: u64, word| {
            (hash ^ window.bars().read64(word * 8)).wrapping_mul(0x0100_0000_01b3)
        })
    };
    let before = hash();
    for number in 0..WRITES {
        let word = match number {
            0 => 0,
            1 => words - 1,
            _ => random.u64(..words),
        };
        let old = window.bars().read64(word * 8);
        write(word * 8, !old);
        let new = window.bars().read64(word * 8);
        if new != old {
            return Err(format!("the word at {:#x} became {new:#x}", word * 8));
        }
    }
    match hash() == before {
        true => Ok(format!("{WRITES} writes, {words} words")),
        false => Err("the table is another".into()),
    }
}

#[cfg(test)]
mod tests {
    use core::cell::{Cell, RefCell};
    use std::collections::BTreeMap;
    use std::vec::Vec;

    use super::*;

    const TABLE: u64 = 0x8000_0000;
    /// Present, readable, writable.
    const LEAF: u64 = 0x7000_0000_0000_0001;

    /// A window with a table of one level: 2 MiB, of which the second half is memory, its pages
    /// in descending order.
    #[derive(Default)]
    struct Fake {
        table: RefCell<Vec<u64>>,
        registers: RefCell<BTreeMap<u64, u32>>,
        refused: Cell<u32>,
        /// What is added to answers of queries.
        off: u32,
    }

    impl Fake {
        fn new() -> Self {
            let page = |number: u64| match number {
                0..256 => 0,
                _ => LEAF | ((1 << 20) - number) << 12,
            };
            Self {
                table: RefCell::new((0..512).map(page).collect()),
                ..Self::default()
            }
        }

        fn open(self) -> DmaWindow<Self> {
            DmaWindow::open(self, Gpa(TABLE)).unwrap()
        }

        fn register(&self, offset: u64) -> u32 {
            self.registers.borrow().get(&offset).copied().unwrap_or(0)
        }

        fn wide(&self, offset: u64) -> u64 {
            u64::from(self.register(offset)) | u64::from(self.register(offset + 4)) << 32
        }

        fn answer(&self) {
            let (gpa, len) = (self.wide(0x40), self.wide(0x48));
            let page = usize::try_from(gpa >> 12).unwrap();
            let entry = self.table.borrow().get(page).copied().unwrap_or(0);
            let is_memory = entry != 0 && len > 0;
            self.refused.set(self.refused.get() + u32::from(!is_memory));
            let (hpa, len) = match is_memory {
                true => (
                    entry & !0xfff & !(0xfff << 52) | (gpa % PAGE),
                    len.min(PAGE - gpa % PAGE),
                ),
                false => (0, 0),
            };
            let mut registers = self.registers.borrow_mut();
            registers.insert(0x50, u32::try_from(hpa).unwrap());
            registers.insert(0x58, u32::try_from(len).unwrap() + self.off);
        }
    }

    impl Bars for Fake {
        fn read_register(&self, offset: u64) -> u32 {
            match offset {
                0x00 => dma_window::MAGIC,
                0x04 | 0x0c => 1,
                0x08 => 7,
                0x10 => 0x8000_0000,
                0x18 => 4096,
                0x28 => self.refused.get(),
                _ => self.register(offset),
            }
        }

        fn write_register(&self, offset: u64, value: u32) {
            self.registers.borrow_mut().insert(offset, value);
            if offset == 0x4c {
                self.answer();
            }
        }

        fn read64(&self, offset: u64) -> u64 {
            self.table.borrow()[usize::try_from(offset / 8).unwrap()]
        }
    }

    fn memory() -> [Range<Gpa>; 1] {
        [Gpa(1 << 20)..Gpa(2 << 20)]
    }

    fn random() -> fastrand::Rng {
        fastrand::Rng::with_seed(1)
    }

    #[test]
    fn a_window_that_is_well_passes() {
        let mut window = Fake::new().open();
        agrees(&mut window, &memory(), &mut random()).unwrap();
        assert_eq!(
            covers(&window, &memory()),
            Ok("1024 KiB in 256 pieces".into())
        );
        withstands(&window, &mut random(), |_, _| ()).unwrap();
    }

    #[test]
    fn faults_of_a_window_are_reported() {
        let mut window = Fake {
            off: 1,
            ..Fake::new()
        }
        .open();
        let told = agrees(&mut window, &memory(), &mut random()).unwrap_err();
        assert!(told.contains("the query"), "{told}");

        let more = Fake::new();
        more.table.borrow_mut()[300] = 0;
        let mut more = more.open();
        assert!(covers(&more, &memory()).is_err());
        let less = [Gpa(1 << 20)..Gpa((2 << 20) - PAGE)];
        assert!(agrees(&mut more, &less, &mut random()).is_err());

        let window = Fake::new().open();
        let told = withstands(&window, &mut random(), |offset, value| {
            let word = usize::try_from(offset / 8).unwrap();
            window.bars().table.borrow_mut()[word] = value;
        });
        assert!(told.unwrap_err().contains("became"));
        let told = withstands(&window, &mut random(), |offset, value| {
            let word = usize::try_from(offset / 8).unwrap();
            window.bars().table.borrow_mut()[word ^ 1] = value;
        });
        assert!(told.is_err());
    }
}
