// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Windows with arbitrary contents, and tables that are not trusted.

extern crate std;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::vec;
use std::vec::Vec;

use address::{Bdf, Gpa, Hpa};
use amdv1::{Run, WalkError};

use super::*;

const TABLE: u64 = 0xc0_0000_0000;

/// A window made of numbers.
#[derive(Debug, Default)]
struct Fake {
    registers: RefCell<BTreeMap<u64, u32>>,
    writes: RefCell<Vec<(u64, u32)>>,
    table: Vec<u64>,
}

impl Fake {
    /// A window with a table of these entries: (index of the 64-bit word, value).
    fn new(pages: usize, entries: &[(usize, u64)]) -> Self {
        let mut fake = Self {
            table: vec![0; pages * 512],
            ..Self::default()
        };
        for (index, entry) in entries {
            fake.table[*index] = *entry;
        }
        let bytes = u32::try_from(pages * 4096).unwrap();
        for (offset, value) in [
            (0x00, MAGIC),
            (0x04, 1),
            (0x08, 7),
            (0x0c, 3),
            (0x14, 0xc0),
            (0x18, bytes),
            (0x20, 9),
        ] {
            fake.set(offset, value);
        }
        fake
    }

    fn set(&self, offset: u64, value: u32) {
        self.registers.borrow_mut().insert(offset, value);
    }

    fn with(self, offset: u64, value: u32) -> Self {
        self.set(offset, value);
        self
    }

    fn open(self) -> Result<DmaWindow<Self>, OpenError> {
        DmaWindow::open(self, Gpa(TABLE))
    }
}

impl Bars for Fake {
    fn read_register(&self, offset: u64) -> u32 {
        self.registers.borrow().get(&offset).copied().unwrap_or(0)
    }

    fn write_register(&self, offset: u64, value: u32) {
        self.writes.borrow_mut().push((offset, value));
    }

    fn read64(&self, offset: u64) -> u64 {
        assert!(offset.is_multiple_of(8), "{offset:#x}");
        self.table[usize::try_from(offset / 8).unwrap()]
    }
}

/// The example of `docs/reference/dma-window.md`.
fn example() -> DmaWindow<Fake> {
    let entries = [
        (0, 0x6000_00c0_0000_1401),
        (1, 0x7000_0003_c000_0001),
        (0x200, 0x6000_00c0_0000_2201),
        (0x201, 0x7000_0002_4020_0001),
        (0x500, 0x7000_0001_2345_6e01),
        (0x501, 0x7000_0001_2345_6e01),
        (0x502, 0x7000_0001_2345_8001),
    ];
    Fake::new(3, &entries).open().unwrap()
}

#[test]
fn the_specifications_example_is_understood() {
    let window = example();
    for (gpa, len, hpa, found) in [
        (0x10_0000, 0x10_0000, 0x1_2345_6000, 0x3000),
        (0x10_1fff, 2, 0x1_2345_7fff, 2),
        (0x3f_ffff, 2, 0x2_403f_ffff, 1),
        (0x4123_4567, u64::MAX, 0x3_c123_4567, 0x3edc_ba99),
    ] {
        let run = Run {
            hpa: Hpa(hpa),
            len: found,
        };
        assert_eq!(window.translate(Gpa(gpa), len), Ok(run), "{gpa:#x}");
    }
    for (gpa, len) in [(0xf_ffff, 2), (0x10_3000, 1), (0x10_0000, 0), (u64::MAX, 1)] {
        let gpa = Gpa(gpa);
        let refused = Err(TranslateError::NotMemory { gpa, len });
        assert_eq!(window.translate(gpa, len), refused);
    }
    assert_eq!(window.generation(), 9);
    assert_eq!(window.table_bytes(), 0x3000);
}

#[test]
fn what_is_no_window_is_refused() {
    let fake = || Fake::new(3, &[]);
    let found = u32::MAX;
    assert_eq!(
        fake().with(0, found).open().unwrap_err(),
        OpenError::Magic { found }
    );
    let found = 2;
    assert_eq!(
        fake().with(4, found).open().unwrap_err(),
        OpenError::Version { found }
    );
    let found = 0b101;
    assert_eq!(
        fake().with(8, found).open().unwrap_err(),
        OpenError::Features { found }
    );
    assert!(fake().with(8, 0xff).open().is_ok(), "features to come");
    for (offset, value) in [
        // Levels.
        (0x0c, 0),
        (0x0c, 7),
        (0x0c, 0x103),
        // The top: behind the table, before it, inside of a page.
        (0x10, 0x3000),
        (0x14, 0xbf),
        (0x10, 0x8),
        // Bytes: none, odd, more than there are addresses.
        (0x18, 0),
        (0x18, 0x3008),
        (0x1c, u32::MAX),
    ] {
        let result = fake().with(offset, value).open();
        assert!(
            matches!(result, Err(OpenError::Table { .. })),
            "{offset:#x} {value:#x}"
        );
    }
    assert!(DmaWindow::open(fake(), Gpa(TABLE - 8)).is_err());
}

#[test]
fn malformed_tables_are_errors() {
    let gpa = Gpa(0x10_0000);
    let translate = |entry| {
        Fake::new(2, &[(0, entry)])
            .open()
            .unwrap()
            .translate(gpa, 1)
    };
    // Pointers behind the table, before it, back to the top, and two levels down.
    for (entry, is_expected) in [
        (
            0x6000_00c0_0000_2401,
            (|error| matches!(error, WalkError::Outside { .. })) as fn(_) -> _,
        ),
        (0x6000_0000_0000_0401, |error| {
            matches!(error, WalkError::Outside { .. })
        }),
        (0x6000_00c0_0000_0401, |error| {
            matches!(error, WalkError::Cycle { .. })
        }),
        (0x6000_00c0_0000_1201, |error| {
            matches!(error, WalkError::Malformed { .. })
        }),
    ] {
        match translate(entry) {
            Err(TranslateError::Table(error)) => assert!(is_expected(error), "{error}"),
            other => panic!("{entry:#x}: {other:?}"),
        }
    }
    let no_memory = Err(TranslateError::NotMemory { gpa, len: 1 });
    assert_eq!(translate(0x6000_00c0_0000_1400), no_memory, "not present");
}

#[test]
fn queries_write_the_low_halves_first() {
    let mut window = example();
    let result = window.query(Gpa(0x1_0000_0002), 0x3_0000_0004);
    assert!(matches!(result, Err(TranslateError::NotMemory { .. })));
    let writes = [(0x40, 2), (0x44, 1), (0x48, 4), (0x4c, 3)];
    assert_eq!(*window.bars().writes.borrow(), writes);
    for (offset, value) in [(0x50, 0x5000), (0x54, 6), (0x58, 7), (0x28, 3)] {
        window.bars().set(offset, value);
    }
    let run = Run {
        hpa: Hpa(0x6_0000_5000),
        len: 7,
    };
    assert_eq!(window.query(Gpa(0), 9), Ok(run));
    assert_eq!(window.refused_queries(), 3);
}

#[test]
fn functions_are_enabled_by_name() {
    let mut window = example();
    let function = Bdf::new(0, 2, 3, 1).unwrap();
    let mut answers = |status| {
        window.bars().set(0x64, status);
        let both = (window.enable(function), window.disable(function));
        let writes = window.bars().writes.take();
        assert_eq!(writes, [(0x60, 0x0219), (0x60, 0x8000_0219)]);
        both
    };
    let error = |status| Err(EnableError { function, status });
    assert_eq!(answers(1), (Ok(()), error(1)));
    assert_eq!(answers(2), (error(2), Ok(())));
    assert_eq!(answers(3), (error(3), error(3)));
    let elsewhere = Bdf::new(1, 0, 3, 0).unwrap();
    window.bars().set(0x64, 1);
    assert!(window.enable(elsewhere).is_err());
    assert!(window.bars().writes.take().is_empty());
}
