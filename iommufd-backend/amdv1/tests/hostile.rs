// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tables that no builder would have written.
#![expect(clippy::unwrap_used, reason = "a test")]

use address::{Hpa, Iova};
use amdv1::pte::Malformed;
use amdv1::walk::{Found, leaves, run, walk};
use amdv1::{Attributes, Entry, Level, PageSize, ReadEntry, Root, Run, TableAddress, WalkError};

/// Four tables, at 0x1000 to 0x4000.
struct Tables([[u64; 512]; 4]);

impl ReadEntry for Tables {
    fn read_entry(&self, address: u64) -> Option<Entry> {
        let word = usize::try_from(address.checked_sub(0x1000)? / 8).ok()?;
        self.0.get(word / 512).map(|table| Entry(table[word % 512]))
    }
}

const NO_TABLES: Tables = Tables([[0; 512]; 4]);
const RW: Attributes = Attributes::READ.union(Attributes::WRITE);

fn root() -> Root {
    Root {
        table: TableAddress::new(0x1000).unwrap(),
        level: Level::L2,
    }
}

fn pointer(to: u64, level: Level) -> u64 {
    Entry::table(TableAddress::new(to).unwrap(), level)
        .unwrap()
        .0
}

fn leaf(hpa: u64, lg2: u32) -> u64 {
    Entry::leaf(Hpa(hpa), PageSize::new(lg2).unwrap(), RW)
        .unwrap()
        .0
}

#[test]
fn cycles_end() {
    let mut tables = NO_TABLES;
    tables.0[0][0] = pointer(0x1000, Level::L2);
    let error = walk(&tables, root(), Iova(0)).unwrap_err();
    assert!(matches!(error, WalkError::Cycle { entry: 0x1000, .. }));

    tables.0[0][0] = pointer(0x2000, Level::L2);
    tables.0[1][0] = pointer(0x1000, Level::L1);
    let error = walk(&tables, root(), Iova(0)).unwrap_err();
    assert!(matches!(error, WalkError::Cycle { entry: 0x2000, .. }));
}

#[test]
fn levels_are_neither_skipped_nor_repeated() {
    let mut tables = NO_TABLES;
    for next in [1, 3, 4, 5, 6] {
        tables.0[0][0] = pointer(0x2000, Level::L2) & !0xe00 | next << 9;
        let error = walk(&tables, root(), Iova(0)).unwrap_err();
        let WalkError::Malformed { level, cause, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(level, Level::L2);
        assert!(matches!(cause, Malformed::WrongLevel { .. }));
    }
}

#[test]
fn pointers_out_of_the_memory_are_not_followed() {
    let mut tables = NO_TABLES;
    for to in [0, 0x5000, (1 << 52) - 0x1000] {
        tables.0[0][0] = pointer(to, Level::L2);
        let outside = WalkError::Outside {
            iova: Iova(0x20_0000),
            entry: to + 8,
        };
        assert_eq!(walk(&tables, root(), Iova(0x20_0000)), Err(outside));
    }
}

#[test]
fn permissions_are_those_of_all_levels() {
    let mut tables = NO_TABLES;
    tables.0[0][0] = pointer(0x2000, Level::L2) & !Attributes::WRITE.bits();
    tables.0[1][0] = leaf(0x20_0000, 21) | Attributes::FORCE_COHERENT.bits();
    let Ok(Found::Leaf(leaf)) = walk(&tables, root(), Iova(0x1234)) else {
        panic!("not mapped");
    };
    let expected = Attributes::READ | Attributes::FORCE_COHERENT;
    assert_eq!((leaf.hpa, leaf.attributes), (Hpa(0x20_0000), expected));
}

#[test]
fn torn_leaves_are_found() {
    let mut tables = NO_TABLES;
    tables.0[0][0] = pointer(0x2000, Level::L2);
    tables.0[1][0] = pointer(0x3000, Level::L1);
    // Of the four items of 16 KiB the first two are others.
    tables.0[2][0] = leaf(0x12_2000, 12);
    tables.0[2][1] = leaf(0x12_3000, 12);
    tables.0[2][2] = leaf(0x12_4000, 14);
    tables.0[2][3] = leaf(0x12_4000, 14);
    let found: Vec<_> = leaves(&tables, root(), Iova(0)..=Iova(0xffff), 100).collect();
    let torn = WalkError::Torn {
        iova: Iova(0x2000),
        leaf: Iova(0),
    };
    assert_eq!(found.len(), 3);
    assert_eq!(found[2], Err(torn));
    let two = Run {
        hpa: Hpa(0x12_2000),
        len: 0x2000,
    };
    assert_eq!(run(&tables, root(), Iova(0), 0x4000), Ok(Some(two)));
}

#[test]
fn shared_tables_do_not_multiply_without_end() {
    let mut tables = NO_TABLES;
    tables.0[0] = [pointer(0x2000, Level::L2); 512];
    tables.0[1] = [pointer(0x3000, Level::L1); 512];
    tables.0[2] = [leaf(0, 12); 512];
    let mut found = leaves(&tables, root(), Iova(0)..=Iova(u64::MAX), 1000);
    assert_eq!(found.by_ref().take_while(Result::is_ok).count(), 1000);
    assert_eq!(found.next(), None);
}

#[test]
fn addresses_beyond_the_top_are_holes() {
    let beyond = Iova(1 << 39);
    let last = Iova(u64::MAX);
    assert_eq!(walk(&NO_TABLES, root(), beyond), Ok(Found::Hole { last }));
    assert_eq!(leaves(&NO_TABLES, root(), beyond..=last, 10).next(), None);
}
