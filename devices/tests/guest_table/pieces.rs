// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What guest memory is, and how much room its table takes.

use address::Iova;
use amdv1::{Attributes, Table};
use devices::guest_table::bar_size;
use proptest::prelude::*;

use super::*;

#[test]
fn neighbours_become_one_piece_if_they_are_in_both_spaces() {
    let pieces = pieces(&[
        (0x30_0000, 0x9000_0000, 0x1000),
        (0x10_0000, 0x4000_0000, 0x1000),
        (0x10_1000, 0x4000_1000, 0x3000),
        (0x10_4000, 0x5000_0000, 0x1000),
    ]);
    assert_eq!(
        pieces.as_slice(),
        [
            piece(0x10_0000, 0x4000_0000, 0x4000),
            piece(0x10_4000, 0x5000_0000, 0x1000),
            piece(0x30_0000, 0x9000_0000, 0x1000),
        ]
    );
}

#[test]
fn what_cannot_be_memory_is_refused() {
    let end = 1 << 52;
    for (gpa, hpa, len) in [
        (0x1000, 0x1000, 0),
        (0x1001, 0x1000, 0x1000),
        (0x1000, 0x1800, 0x1000),
        (0x1000, 0x1000, 0x1001),
    ] {
        let result = Pieces::new([piece(gpa, hpa, len)]);
        assert!(
            matches!(result, Err(TableError::Pages { .. })),
            "{gpa:#x} {hpa:#x} {len:#x}"
        );
    }
    for (gpa, hpa, len) in [
        (end, 0, 0x1000),
        (0, end - 0x1000, 0x2000),
        (end - 0x1000, 0, 0x2000),
        (u64::MAX - 0xfff, 0, 0x1000),
        (0x1000, u64::MAX - 0xfff, 0x1000),
    ] {
        let result = Pieces::new([piece(gpa, hpa, len)]);
        assert!(
            matches!(result, Err(TableError::Range { .. })),
            "{gpa:#x} {hpa:#x} {len:#x}"
        );
    }
    let overlap = Pieces::new([piece(0x2000, 0, 0x1000), piece(0, 0x9000, 0x3000)]);
    let gpa = Gpa(0x2000);
    assert_eq!(overlap, Err(TableError::Overlap { gpa }));
    assert!(Pieces::new([piece(end - 0x1000, end - 0x1000, 0x1000)]).is_ok());
}

#[test]
fn tables_are_as_many_as_the_alignment_costs() {
    for (all, pages) in [
        // Nothing but the top.
        (&[][..], 1),
        // 1 GiB in one entry of the top.
        (&[(GIB, 7 * GIB, GIB)][..], 1),
        // 2 MiB pages below it.
        (&[(2 * MIB, 6 * MIB, 2 * MIB)], 2),
        // 4 KiB pages: 512 to a table.
        (&[(GIB, 0x1000, 4 * MIB)], 4),
        (&[(GIB, 0x1000, 4 * MIB + 0x1000)], 5),
        // Above 512 GiB one level more, with the table of the lowest 512 GiB that it grew from.
        (&[(512 * GIB, 0, GIB)], 3),
        (&[(512 * GIB - 0x1000, 0x1000, 0x2000)], 7),
    ] {
        assert_eq!(pieces(all).table_pages(), pages, "{all:x?}");
        assert_eq!(bar_size(pages), 4096 * (pages as u64).next_power_of_two());
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn tables_are_counted_exactly(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
        let pieces = Pieces::new(testing::pieces(&bytes)).unwrap();
        let mut table = Table::default();
        for piece in pieces.as_slice() {
            let iova = Iova(piece.gpa.0);
            table.map(iova, piece.hpa, piece.len, Attributes::all()).unwrap();
        }
        prop_assert_eq!(pieces.table_pages(), amdv1::TableMemory::in_use(table.memory()));
    }
}
