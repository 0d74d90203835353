// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The table's bytes.

use address::Iova;
use amdv1::Attributes;
use amdv1::TableAddress;
use amdv1::walk::{self, Window};
use proptest::prelude::*;

use super::*;

/// The entry `index` of the table at `page`.
fn entry(table: &GuestTable<Box<[TablePage]>>, page: usize, index: usize) -> u64 {
    table.pages()[page].load(index).unwrap().0
}

const EXAMPLE: [(u64, u64, u64); 3] = [
    (0x10_0000, 0x1_2345_6000, 0x3000),
    (0x20_0000, 0x2_4020_0000, 0x20_0000),
    (0x4000_0000, 0x3_c000_0000, 0x4000_0000),
];

/// The example of `docs/reference/dma-window.md`.
fn example() -> GuestTable<Box<[TablePage]>> {
    table(&EXAMPLE)
}

#[test]
fn the_specifications_example_is_what_is_built() {
    let table = example();
    assert_eq!(table.bar_size(), 0x4000);
    assert_eq!(table.bytes(), 0x3000);
    assert_eq!(table.root().table.get(), TABLE);
    assert_eq!(table.root().level.number(), 2);
    for (page, index, expected) in [
        (0, 0, 0x6000_00c0_0000_1401),
        (0, 1, 0x7000_0003_c000_0001),
        (1, 0, 0x6000_00c0_0000_2201),
        (1, 1, 0x7000_0002_4020_0001),
        (2, 0x100, 0x7000_0001_2345_6e01),
        (2, 0x101, 0x7000_0001_2345_6e01),
        (2, 0x102, 0x7000_0001_2345_8001),
    ] {
        let found = entry(&table, page, index);
        assert_eq!(found, expected, "page {page}, entry {index:#x}: {found:#x}");
    }
    let entries = |page| (0..512).map(move |index| (page, index));
    let all = (0..3).flat_map(entries);
    let present = all.filter(|&(page, index)| entry(&table, page, index) != 0);
    assert_eq!(present.count(), 7);
}

#[test]
fn a_table_has_the_guests_memory_and_nothing_else() {
    let table = example();
    let reader = Window {
        base: TableAddress::new(TABLE).unwrap(),
        pages: table.pages(),
    };
    let all = Iova(0)..=Iova(u64::MAX);
    let leaves = walk::leaves(reader, table.root(), all, 1 << 16);
    let mut mapped = 0;
    for leaf in leaves {
        let leaf = leaf.unwrap();
        assert_eq!(leaf.attributes, Attributes::all());
        let size = leaf.size.bytes();
        let expected = Some((leaf.hpa.0, size));
        assert_eq!(run(&table, leaf.iova.0, size), expected);
        mapped += size;
    }
    assert_eq!(mapped, EXAMPLE.iter().map(|(_, _, len)| len).sum::<u64>());
}

#[test]
fn pages_are_only_where_pointers_reach() {
    let all = pieces(&[(0x10_0000, 0x1000, 0x40_0000)]);
    let pages = all.table_pages();
    let bytes = pages as u64 * 4096;
    for base in [0x800, 1 << 52, (1 << 52) - bytes + 4096, !0xfff] {
        let result = build(&all, base);
        let base = Gpa(base);
        assert_eq!(result.unwrap_err(), TableError::Place { base, pages });
    }
    for base in [0, 0x1000, (1 << 52) - bytes] {
        assert_eq!(build(&all, base).unwrap().base(), Gpa(base));
    }
}

#[test]
fn a_table_that_is_too_small_is_refused() {
    let all = pieces(&[(0x10_0000, 0x1000, 0x40_0000)]);
    for pages in 0..all.table_pages() {
        let pages = (0..pages).map(|_| TablePage::default());
        let result = GuestTable::build(&all, Gpa(TABLE), pages.collect::<Box<[_]>>());
        assert!(matches!(
            result,
            Err(TableError::Tables(_) | TableError::Map(_))
        ));
    }
}

#[test]
fn runs_end_where_either_space_does() {
    let table = table(&[
        (0x10_0000, 0x4000_0000, 0x2000),
        (0x10_2000, 0x5000_0000, 0x1000),
    ]);
    assert_eq!(run(&table, 0x10_0000, 1), Some((0x4000_0000, 1)));
    assert_eq!(
        run(&table, 0x10_0fff, u64::MAX),
        Some((0x4000_0fff, 0x1001))
    );
    assert_eq!(run(&table, 0x10_1fff, 2), Some((0x4000_1fff, 1)));
    assert_eq!(run(&table, 0x10_2fff, 2), Some((0x5000_0fff, 1)));
    for gpa in [0, 0xf_ffff, 0x10_3000, u64::MAX] {
        assert_eq!(run(&table, gpa, 1), None, "{gpa:#x}");
    }
    assert_eq!(run(&table, 0x10_0000, 0), None);
    assert_eq!(run(&super::table(&[]), 0, 1), None);
}

#[test]
fn ranges_touch_memory_by_a_byte() {
    let table = table(&[(0x2000, 0, 0x1000), (0x5000, 0x9000, 0x1000)]);
    for (gpa, len, touches) in [
        (0, 0x2000, false),
        (0, 0x2001, true),
        (0x2fff, 1, true),
        (0x3000, 0x2000, false),
        (0x3000, u64::MAX, true),
        (0x2800, 0, false),
        (0x6000, u64::MAX, false),
    ] {
        assert_eq!(table.touches(Gpa(gpa), len), touches, "{gpa:#x} {len:#x}");
    }
}

/// The result by the pieces themselves.
fn expected(pieces: &Pieces, gpa: u64, len: u64) -> Option<(u64, u64)> {
    let holds = |piece: &&Piece| gpa >= piece.gpa.0 && gpa - piece.gpa.0 < piece.len;
    let piece = pieces.as_slice().iter().find(holds)?;
    let at = gpa - piece.gpa.0;
    (len > 0).then_some((piece.hpa.0 + at, len.min(piece.len - at)))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_table_agrees_with_its_pieces(
        bytes in proptest::collection::vec(any::<u8>(), 0..120),
        asked in proptest::collection::vec((any::<prop::sample::Index>(), any::<u64>(), 0_u32..64), 1..40),
    ) {
        let all = Pieces::new(testing::pieces(&bytes)).unwrap();
        let table = build(&all, 1 << 48).unwrap();
        let found: Result<Vec<_>, _> = table.pieces().collect();
        prop_assert_eq!(found.unwrap(), all.as_slice());
        for (index, number, shift) in asked {
            // In the piece and a page to either side.
            let piece = index.get(all.as_slice());
            let gpa = (piece.gpa.0 - 0x1000).wrapping_add(number % (piece.len + 0x2000));
            let len = number >> shift;
            prop_assert_eq!(run(&table, gpa, len), expected(&all, gpa, len), "{:#x} at {:#x}", len, gpa);
            let touching = |piece: &Piece| {
                gpa < piece.gpa.0 + piece.len && gpa.saturating_add(len) > piece.gpa.0
            };
            let touches = len > 0 && all.as_slice().iter().any(touching);
            prop_assert_eq!(table.touches(Gpa(gpa), len), touches, "{:#x} at {:#x}", len, gpa);
        }
    }
}
