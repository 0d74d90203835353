//! What guest memory is, and how much room its table takes.

use proptest::prelude::*;

use super::*;

#[test]
fn neighbours_become_one_piece_if_they_are_in_both_spaces() {
    let memory = memory(&[
        (0x30_0000, 0x9000_0000, 0x1000),
        (0x10_0000, 0x4000_0000, 0x1000),
        (0x10_1000, 0x4000_1000, 0x3000),
        (0x10_4000, 0x5000_0000, 0x1000),
    ]);
    assert_eq!(
        memory.pieces(),
        [
            piece(0x10_0000, 0x4000_0000, 0x4000),
            piece(0x10_4000, 0x5000_0000, 0x1000),
            piece(0x30_0000, 0x9000_0000, 0x1000),
        ]
    );
}

#[test]
fn runs_end_where_either_space_does() {
    let memory = memory(&[
        (0x10_0000, 0x4000_0000, 0x2000),
        (0x10_2000, 0x5000_0000, 0x1000),
    ]);
    assert_eq!(run(&memory, 0x10_0000, 1), Some((0x4000_0000, 1)));
    assert_eq!(
        run(&memory, 0x10_0fff, u64::MAX),
        Some((0x4000_0fff, 0x1001))
    );
    assert_eq!(run(&memory, 0x10_1fff, 2), Some((0x4000_1fff, 1)));
    assert_eq!(run(&memory, 0x10_2fff, 2), Some((0x5000_0fff, 1)));
    for gpa in [0, 0xf_ffff, 0x10_3000, u64::MAX] {
        assert_eq!(run(&memory, gpa, 1), None, "{gpa:#x}");
    }
    assert_eq!(run(&memory, 0x10_0000, 0), None);
    assert_eq!(run(&GuestMemory::default(), 0, 1), None);
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
        let result = GuestMemory::new([piece(gpa, hpa, len)]);
        assert!(
            matches!(result, Err(MemoryError::Pages { .. })),
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
        let result = GuestMemory::new([piece(gpa, hpa, len)]);
        assert!(
            matches!(result, Err(MemoryError::Range { .. })),
            "{gpa:#x} {hpa:#x} {len:#x}"
        );
    }
    let overlap = GuestMemory::new([piece(0x2000, 0, 0x1000), piece(0, 0x9000, 0x3000)]);
    let gpa = Gpa(0x2000);
    assert_eq!(overlap, Err(MemoryError::Overlap { gpa }));
    assert!(GuestMemory::new([piece(end - 0x1000, end - 0x1000, 0x1000)]).is_ok());
}

#[test]
fn ranges_touch_memory_by_a_byte() {
    let memory = memory(&[(0x2000, 0, 0x1000), (0x5000, 0x9000, 0x1000)]);
    for (gpa, len, touches) in [
        (0, 0x2000, false),
        (0, 0x2001, true),
        (0x2fff, 1, true),
        (0x3000, 0x2000, false),
        (0x3000, u64::MAX, true),
        (0x2800, 0, false),
        (0x6000, u64::MAX, false),
    ] {
        assert_eq!(memory.touches(Gpa(gpa), len), touches, "{gpa:#x} {len:#x}");
    }
}

#[test]
fn tables_are_as_many_as_the_alignment_costs() {
    for (pieces, pages) in [
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
        let memory = memory(pieces);
        assert_eq!(memory.table_pages(), pages, "{pieces:x?}");
        assert_eq!(memory.bar_size(), 4096 * (pages as u64).next_power_of_two());
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
        let pieces = testing::pieces(&bytes);
        let memory = GuestMemory::new(pieces).unwrap();
        let mut table = amdv1::Table::default();
        for piece in memory.pieces() {
            let iova = address::Iova(piece.gpa.0);
            table.map(iova, piece.hpa, piece.len, amdv1::Attributes::all()).unwrap();
        }
        prop_assert_eq!(memory.table_pages(), amdv1::TableMemory::in_use(table.memory()));
    }
}
