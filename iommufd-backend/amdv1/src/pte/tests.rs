// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use address::Iova;
use proptest::prelude::*;

use super::*;

/// log2 of the size, level, items, sample output address, raw entry (READ, WRITE, coherent).
#[rustfmt::skip]
const SIZES: [(u32, u8, usize, u64, u64); 39] = [
    (12, 0,   1, 0x0000_0000_0000_5000, 0x7000_0000_0000_5001),
    (13, 0,   2, 0x0000_0000_0000_a000, 0x7000_0000_0000_ae01),
    (14, 0,   4, 0x0000_0000_0001_4000, 0x7000_0000_0001_5e01),
    (15, 0,   8, 0x0000_0000_0002_8000, 0x7000_0000_0002_be01),
    (16, 0,  16, 0x0000_0000_0005_0000, 0x7000_0000_0005_7e01),
    (17, 0,  32, 0x0000_0000_000a_0000, 0x7000_0000_000a_fe01),
    (18, 0,  64, 0x0000_0000_0014_0000, 0x7000_0000_0015_fe01),
    (19, 0, 128, 0x0000_0000_0028_0000, 0x7000_0000_002b_fe01),
    (20, 0, 256, 0x0000_0000_0050_0000, 0x7000_0000_0057_fe01),
    (21, 1,   1, 0x0000_0000_00a0_0000, 0x7000_0000_00a0_0001),
    (22, 1,   2, 0x0000_0000_0140_0000, 0x7000_0000_015f_fe01),
    (23, 1,   4, 0x0000_0000_0280_0000, 0x7000_0000_02bf_fe01),
    (24, 1,   8, 0x0000_0000_0500_0000, 0x7000_0000_057f_fe01),
    (25, 1,  16, 0x0000_0000_0a00_0000, 0x7000_0000_0aff_fe01),
    (26, 1,  32, 0x0000_0000_1400_0000, 0x7000_0000_15ff_fe01),
    (27, 1,  64, 0x0000_0000_2800_0000, 0x7000_0000_2bff_fe01),
    (28, 1, 128, 0x0000_0000_5000_0000, 0x7000_0000_57ff_fe01),
    (29, 1, 256, 0x0000_0000_a000_0000, 0x7000_0000_afff_fe01),
    (30, 2,   1, 0x0000_0001_4000_0000, 0x7000_0001_4000_0001),
    (31, 2,   2, 0x0000_0002_8000_0000, 0x7000_0002_bfff_fe01),
    (32, 2,   4, 0x0000_0005_0000_0000, 0x7000_0005_7fff_fe01),
    (33, 2,   8, 0x0000_000a_0000_0000, 0x7000_000a_ffff_fe01),
    (34, 2,  16, 0x0000_0014_0000_0000, 0x7000_0015_ffff_fe01),
    (35, 2,  32, 0x0000_0028_0000_0000, 0x7000_002b_ffff_fe01),
    (36, 2,  64, 0x0000_0050_0000_0000, 0x7000_0057_ffff_fe01),
    (37, 2, 128, 0x0000_00a0_0000_0000, 0x7000_00af_ffff_fe01),
    (38, 2, 256, 0x0000_0140_0000_0000, 0x7000_015f_ffff_fe01),
    (40, 3,   2, 0x0000_0500_0000_0000, 0x7000_057f_ffff_fe01),
    (41, 3,   4, 0x0000_0a00_0000_0000, 0x7000_0aff_ffff_fe01),
    (42, 3,   8, 0x0000_1400_0000_0000, 0x7000_15ff_ffff_fe01),
    (43, 3,  16, 0x0000_2800_0000_0000, 0x7000_2bff_ffff_fe01),
    (44, 3,  32, 0x0000_5000_0000_0000, 0x7000_57ff_ffff_fe01),
    (45, 3,  64, 0x0000_a000_0000_0000, 0x7000_afff_ffff_fe01),
    (46, 3, 128, 0x0001_4000_0000_0000, 0x7001_5fff_ffff_fe01),
    (47, 3, 256, 0x0002_8000_0000_0000, 0x7002_bfff_ffff_fe01),
    (48, 4,   1, 0x0005_0000_0000_0000, 0x7005_0000_0000_0001),
    (49, 4,   2, 0x000a_0000_0000_0000, 0x700a_ffff_ffff_fe01),
    (50, 4,   4, 0x0004_0000_0000_0000, 0x7005_ffff_ffff_fe01),
    (51, 4,   8, 0x0008_0000_0000_0000, 0x700b_ffff_ffff_fe01),
];

fn all() -> Attributes {
    Attributes::all()
}

fn sizes() -> impl Iterator<Item = PageSize> {
    (0..64).filter_map(PageSize::new)
}

#[test]
fn every_size_is_written_and_read_bit_for_bit() {
    assert_eq!(sizes().count(), SIZES.len());
    for (lg2, level, items, hpa, raw) in SIZES {
        let size = PageSize::new(lg2).unwrap();
        assert_eq!((size.level().number(), size.items()), (level, items));
        let entry = Entry::leaf(Hpa(hpa), size, all()).unwrap();
        assert_eq!(entry, Entry(raw), "{size:?}");
        let leaf = Item::Leaf {
            hpa: Hpa(hpa),
            size,
            attributes: all(),
        };
        assert_eq!(entry.decode(size.level()), Ok(leaf));
    }
}

/// The kernel's pattern address, all ones, and zero: each cut to the size and to 52 bits.
#[test]
fn every_size_survives_the_kernels_addresses_and_every_permission() {
    for size in sizes() {
        for hpa in [0x74a7_1445_dead_beef, 0, u64::MAX] {
            let hpa = hpa & !(size.bytes() - 1) & ((1 << OUTPUT_BITS) - 1);
            for bits in 0..8 {
                let attributes = Attributes::from_bits_truncate(bits << 60);
                let entry = Entry::leaf(Hpa(hpa), size, attributes).unwrap();
                let leaf = Item::Leaf {
                    hpa: Hpa(hpa),
                    size,
                    attributes,
                };
                assert_eq!(entry.decode(size.level()), Ok(leaf));
                let offset = 0x0012_3456_789a_bcde & (size.bytes() - 1);
                let found = entry.place(size.level(), offset);
                let usual = size.items() == 1 && attributes == all();
                let hpa_found = entry.usual_hpa(offset, size.lg2());
                assert_eq!(hpa_found, usual.then_some(hpa + offset));
                assert_eq!((found.hpa, found.within), (hpa + offset, size.bytes() - 1));
            }
        }
    }
}

#[test]
fn permissions_are_the_top_bits() {
    let top = |attributes| {
        let entry = Entry::leaf(Hpa(0), PageSize::MIN, attributes).unwrap();
        entry.0 >> 56
    };
    let coherent = Attributes::FORCE_COHERENT;
    assert_eq!(top(coherent | Attributes::READ), 0x30);
    assert_eq!(top(coherent | Attributes::WRITE), 0x50);
    assert_eq!(top(all()), 0x70);
}

#[test]
fn pointers_grant_everything_and_lead_one_level_down() {
    let table = TableAddress::new(0x000f_edcb_a987_6000).unwrap();
    assert_eq!(Entry::table(table, Level::BOTTOM), None);
    for level in (1..=5).filter_map(Level::new) {
        let entry = Entry::table(table, level).unwrap();
        let next = u64::from(level.number()) << 9;
        assert_eq!(entry.0, 0x600f_edcb_a987_6001 | next);
        let permissions = Attributes::READ | Attributes::WRITE;
        assert_eq!(entry.decode(level), Ok(Item::Table { table, permissions }));
        for other in (0..=5).filter_map(Level::new).filter(|l| *l != level) {
            let next = level.number();
            assert_eq!(entry.decode(other), Err(Malformed::WrongLevel { next }));
        }
    }
}

#[test]
fn leaves_that_do_not_exist_are_not_written() {
    let size = PageSize::new(21).unwrap();
    assert_eq!(PageSize::new(39), None);
    assert_eq!(Entry::leaf(Hpa(0x1000), size, all()), None);
    assert_eq!(Entry::leaf(Hpa(1 << 52), size, all()), None);
    assert_eq!(TableAddress::new(0x1001), None);
    assert_eq!(TableAddress::new(1 << 52), None);
}

#[test]
fn malformed_leaves_are_refused() {
    let wrong = |lg2| Err(Malformed::WrongSize { lg2 });
    let level = |level| Level::new(level).unwrap();
    // 512 GiB, and a natural leaf at the top.
    assert_eq!(Entry(1).decode(level(3)), wrong(39));
    assert_eq!(Entry(1).decode(level(5)), wrong(57));
    // Size codes too small and too large for the level.
    assert_eq!(Entry(0xe01).decode(level(1)), wrong(13));
    assert_eq!(Entry(0x000f_fe01).decode(level(1)), wrong(21));
    assert_eq!(Entry(0x001f_fe01).decode(level(0)), wrong(22));
    assert_eq!(Entry(0x1fff_fe01).decode(level(1)), wrong(30));
    assert_eq!(Entry(0x000f_ffff_ffff_fe01).decode(level(4)), wrong(53));
    // An address between two pages of its size.
    let hpa = Hpa(0x1000);
    assert_eq!(
        Entry(0x1001).decode(level(1)),
        Err(Malformed::Misaligned { hpa })
    );
}

#[test]
fn absent_entries_are_empty_whatever_else_is_set() {
    for level in (0..=5).filter_map(Level::new) {
        assert_eq!(Entry(!1).decode(level), Ok(Item::Empty));
    }
}

#[test]
fn sizes_of_a_level_fill_at_most_half_a_table() {
    for size in sizes() {
        let level = size.level();
        assert!(size.items() <= 256);
        assert_eq!(size.bytes(), level.item_bytes() * size.items() as u64);
        let larger = sizes().find(|other| *other > size);
        assert_eq!(size.larger(), larger);
    }
}

#[test]
fn index_bits_of_the_levels_partition_an_address() {
    let iova = 0xfedc_ba98_7654_3210;
    let sum: u64 = (0..=5)
        .filter_map(Level::new)
        .map(|level| (level.index(Iova(iova)) as u64) << level.item_lg2())
        .sum();
    assert_eq!(sum, iova & !0xfff);
}

proptest! {
    /// Whatever decodes as a leaf is the entry that a builder writes for it, but for bits that
    /// nothing reads.
    #[test]
    fn decoding_inverts_encoding(raw: u64, next in prop::sample::select(&[0_u64, 7][..]), ones in 0..52_u32, level in 0..6_u8) {
        let level = Level::new(level).unwrap();
        let raw = raw & !NEXT_MASK | next << NEXT_SHIFT | PRESENT | ((1 << ones) - 1) & ADDRESS_MASK;
        if let Ok(Item::Leaf { hpa, size, attributes }) = Entry(raw).decode(level) {
            let ignored = !(ADDRESS_MASK | NEXT_MASK | PRESENT | Attributes::all().bits());
            prop_assert_eq!(size.level(), level);
            prop_assert_eq!(Entry::leaf(hpa, size, attributes), Some(Entry(raw & !ignored)));
        }
    }

    /// Against the definition.
    #[test]
    fn best_size_is_the_largest_that_fits(iova: u64, hpa: u64, len: u64, shift in 0..64_u32, cut in 0..64_u32) {
        let (iova, hpa, len) = (iova << shift, hpa << shift, len >> cut);
        let fits = |size: &PageSize| (iova | hpa) & (size.bytes() - 1) == 0 && size.bytes() <= len;
        prop_assert_eq!(PageSize::best(iova, hpa, len), sizes().filter(fits).max());
    }
}
