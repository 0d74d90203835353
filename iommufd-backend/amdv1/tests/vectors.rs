// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The published test vectors of the format: what the kernel's code writes for a mapping, and
//! what it removes.
#![expect(clippy::unwrap_used, reason = "a test")]

use address::{Hpa, Iova};
use amdv1::pte::Item;
use amdv1::{Attributes, HeapTables, Level, MapError, PageSize, Table, TableAddress, TableMemory};

const COHERENT: Attributes = Attributes::FORCE_COHERENT;
const R: Attributes = COHERENT.union(Attributes::READ);
const W: Attributes = COHERENT.union(Attributes::WRITE);
const RW: Attributes = R.union(W);

fn table() -> Table<HeapTables> {
    Table::new(HeapTables::new()).unwrap()
}

fn map(table: &mut Table<HeapTables>, iova: u64, hpa: u64, len: u64) -> Result<(), MapError> {
    table.map(Iova(iova), Hpa(hpa), len, RW)
}

fn phys(table: &Table<HeapTables>, iova: u64) -> Option<u64> {
    table.translate(Iova(iova)).map(|hpa| hpa.0)
}

/// One line for each run of equal entries, "level[index] x count = value", with a pointer's
/// address left out and what it points to after it.
fn dump(table: &Table<HeapTables>) -> Vec<String> {
    let mut lines = vec![format!("top {}", table.root().level)];
    dump_below(table, table.root().table, table.root().level, &mut lines);
    lines
}

fn dump_below(of: &Table<HeapTables>, table: TableAddress, level: Level, lines: &mut Vec<String>) {
    let load = |index| of.memory().load(table, index).unwrap();
    let mut index = 0;
    while index < 512 {
        let entry = load(index);
        match entry.decode(level).unwrap() {
            Item::Empty => index += 1,
            Item::Table { table: next, .. } => {
                let raw = 0x6000_0000_0000_0001 | u64::from(level.number()) << 9 | next.get();
                assert_eq!(entry.0, raw);
                lines.push(format!("T{level}[{index}]"));
                dump_below(of, next, level.below().unwrap(), lines);
                index += 1;
            }
            Item::Leaf { size, .. } => {
                assert!((index..index + size.items()).all(|nth| load(nth) == entry));
                lines.push(format!("L{level}[{index}]x{} {:#x}", size.items(), entry.0));
                index += size.items();
            }
        }
    }
}

fn check(iova: u64, hpa: u64, len: u64, attributes: Attributes, expected: &[&str]) {
    let mut table = table();
    table.map(Iova(iova), Hpa(hpa), len, attributes).unwrap();
    assert_eq!(dump(&table), expected);
    for offset in [0, len / 3, len / 2 + 1, len - 1] {
        assert_eq!(phys(&table, iova + offset), Some(hpa + offset));
        let leaf = table.lookup(Iova(iova + offset)).unwrap();
        assert_eq!(leaf.attributes, attributes);
    }
    assert_eq!(phys(&table, iova.wrapping_sub(1)), None);
    assert_eq!(phys(&table, iova.wrapping_add(len)), None);
}

#[test]
#[rustfmt::skip]
fn single_pages_and_runs_below_512_gib() {
    check(0x0, 0x1000, 0x1000, RW, &["top 2", "T2[0]", "T1[0]", "L0[0]x1 0x7000000000001001"]);
    check(0x1000, 0x34_5678_9000, 0x1000, R, &["top 2", "T2[0]", "T1[0]", "L0[1]x1 0x3000003456789001"]);
    check(0x2000, 0x34_5678_8000, 0x2000, W, &["top 2", "T2[0]", "T1[0]", "L0[2]x2 0x5000003456788e01"]);
    check(0x0, 0x1_0000, 0x1_0000, RW, &["top 2", "T2[0]", "T1[0]", "L0[0]x16 0x7000000000017e01"]);
    check(0x10_0000, 0x23_4560_0000, 0x10_0000, RW, &["top 2", "T2[0]", "T1[0]", "L0[256]x256 0x700000234567fe01"]);
    check(0x20_0000, 0x20_0000, 0x20_0000, RW, &["top 2", "T2[0]", "L1[1]x1 0x7000000000200001"]);
    check(0x40_0000, 0x1240_0000, 0x40_0000, RW, &["top 2", "T2[0]", "L1[2]x2 0x70000000125ffe01"]);
    check(0x4000_0000, 0x1_c000_0000, 0x4000_0000, RW, &["top 2", "L2[1]x1 0x70000001c0000001"]);
    check(0x8000_0000, 0x1_8000_0000, 0x8000_0000, RW, &["top 2", "L2[2]x2 0x70000001bffffe01"]);
    check(0x0, 0x1_0000_0000, 0x3_0000_0000, RW, &[
        "top 2", "L2[0]x4 0x700000017ffffe01", "L2[4]x4 0x700000027ffffe01", "L2[8]x4 0x700000037ffffe01",
    ]);
    check(0x0, 0x0, 0x80_0000_0000, RW, &["top 2", "L2[0]x256 0x7000001ffffffe01", "L2[256]x256 0x7000005ffffffe01"]);
}

#[test]
#[rustfmt::skip]
fn sizes_ramp_up_and_down_with_the_alignment() {
    check(0x1000, 0x20_1000, 0x3f_f000, RW, &[
        "top 2", "T2[0]", "T1[0]",
        "L0[1]x1 0x7000000000201001", "L0[2]x2 0x7000000000202e01", "L0[4]x4 0x7000000000205e01",
        "L0[8]x8 0x700000000020be01", "L0[16]x16 0x7000000000217e01", "L0[32]x32 0x700000000022fe01",
        "L0[64]x64 0x700000000025fe01", "L0[128]x128 0x70000000002bfe01", "L0[256]x256 0x700000000037fe01",
        "L1[1]x1 0x7000000000400001",
    ]);
    check(0x3_fe40_0000, 0x3_fe40_0000, 0xc220_0000, RW, &[
        "top 2", "T2[15]",
        "L1[498]x2 0x70000003fe5ffe01", "L1[500]x4 0x70000003febffe01", "L1[504]x8 0x70000003ff7ffe01",
        "L2[16]x2 0x700000043ffffe01", "L2[18]x1 0x7000000480000001",
        "T2[19]", "L1[0]x2 0x70000004c01ffe01", "L1[2]x1 0x70000004c0400001",
    ]);
    // No congruence beyond 4 KiB: 32 single pages.
    let mut expected = vec!["top 2".into(), "T2[3]".into(), "T1[503]".into()];
    expected.extend((0..32).map(|i| format!("L0[{}]x1 {:#x}", 384 + i, 0x7000_0020_8b95_d001_u64 + i * 4096)));
    let expected: Vec<_> = expected.iter().map(String::as_str).collect();
    check(0xfef8_0000, 0x20_8b95_d000, 0x2_0000, RW, &expected);
}

#[test]
#[rustfmt::skip]
fn the_top_grows_on_demand() {
    check(0x7f_ffff_f000, 0xffff_ffff_f000, 0x2000, RW, &[
        "top 3",
        "T3[0]", "T2[511]", "T1[511]", "L0[511]x1 0x7000fffffffff001",
        "T3[1]", "T2[0]", "T1[0]", "L0[0]x1 0x7001000000000001",
    ]);
    check(0x80_0000_0000, 0x80_0000_0000, 0x4000_0000, RW, &["top 3", "T3[0]", "T3[1]", "L2[0]x1 0x7000008000000001"]);
    check(0x0, 0x0, 0x100_0000_0000, RW, &["top 3", "L3[0]x2 0x7000007ffffffe01"]);
    check(0x1_0000_0000_0000, 0x1_0000_0000_0000, 0x1_0000_0000_0000, RW, &[
        "top 4", "T4[0]", "T3[0]", "L4[1]x1 0x7001000000000001",
    ]);
    // Ends where a lower top would, but is a page of a higher level.
    check(0x0, 0x0, 0x1_0000_0000_0000, RW, &["top 4", "L4[0]x1 0x7000000000000001"]);
    check(0xffff_ffff_ffff_f000, 0xf_ffff_ffff_f000, 0x1000, RW, &[
        "top 5", "T5[0]", "T4[0]", "T3[0]",
        "T5[127]", "T4[511]", "T3[511]", "T2[511]", "T1[511]", "L0[511]x1 0x700ffffffffff001",
    ]);
}

#[test]
fn whole_pages_go_from_their_start_only() {
    let mut t = table();
    map(&mut t, 0x10_0000, 0x90_0000, 0x1_0000).unwrap();
    assert_eq!(t.unmap_whole_pages(Iova(0x10_1000), 0x1000), 0);
    assert_eq!(phys(&t, 0x10_1234), Some(0x90_1234));
    assert_eq!(t.unmap_whole_pages(Iova(0x10_0000), 0x1000), 0x1_0000);
    assert_eq!(dump(&t), ["top 2", "T2[0]", "T1[0]"]);

    map(&mut t, 0x10_0000, 0x90_0000, 0x1_0000).unwrap();
    assert_eq!(t.unmap_whole_pages(Iova(0x10_0000), 0x1_0000), 0x1_0000);
    map(&mut t, 0x20_0000, 0xa0_0000, 0x20_0000).unwrap();
    assert_eq!(t.unmap_whole_pages(Iova(0x20_1000), 0x1000), 0);
    assert_eq!(t.unmap_whole_pages(Iova(0x20_0000), 0x1000), 0x20_0000);

    let mut t = table();
    map(&mut t, 0, 0, 0x2000_0000).unwrap();
    assert_eq!(t.unmap_whole_pages(Iova(0), 0x1000), 0x2000_0000);
    assert_eq!(phys(&t, 0), None);
}

#[test]
fn whole_pages_go_up_to_a_hole_and_past_the_end() {
    let mut t = table();
    map(&mut t, 0x10_0000, 0x5_0000, 0x1000).unwrap();
    map(&mut t, 0x10_2000, 0x6_0000, 0x1000).unwrap();
    assert_eq!(t.unmap_whole_pages(Iova(0x10_0000), 0x3000), 0x1000);
    assert_eq!(phys(&t, 0x10_2000), Some(0x6_0000));
    assert_eq!(t.unmap_whole_pages(Iova(0x10_0000), 0x3000), 0);

    let mut t = table();
    map(&mut t, 0x20_0000, 0x70_0000, 0x1000).unwrap();
    // 60 KiB in single pages, for lack of congruence, and a page of 64 KiB.
    map(&mut t, 0x20_1000, 0x80_0000, 0xf000).unwrap();
    map(&mut t, 0x21_0000, 0x90_0000, 0x1_0000).unwrap();
    assert_eq!(t.unmap_whole_pages(Iova(0x20_0000), 0x1_1000), 0x2_0000);
    assert_eq!(phys(&t, 0x21_f000), None);
}

#[test]
fn whole_pages_free_the_tables_that_the_range_covers() {
    let mut t = table();
    let pages = 512 * 0x1000;
    map(&mut t, 0x4000_0000, 0x1000, pages).unwrap();
    assert_eq!(t.memory().in_use(), 3);
    assert_eq!(t.unmap_whole_pages(Iova(0x4000_0000), pages), pages);
    assert_eq!(dump(&t), ["top 2", "T2[1]"]);

    map(&mut t, 0x4000_0000, 0x1000, pages).unwrap();
    for page in 0..512 {
        assert_eq!(
            t.unmap_whole_pages(Iova(0x4000_0000 + page * 0x1000), 0x1000),
            0x1000
        );
    }
    assert_eq!(dump(&t), ["top 2", "T2[1]", "T1[0]"]);
}

#[test]
fn empty_tables_give_way_to_a_page() {
    let mut t = table();
    map(&mut t, 0x4000_0000, 0x5000, 0x1000).unwrap();
    map(&mut t, 0x4000_1000, 0x9000, 0x1000).unwrap();
    assert_eq!(t.unmap_whole_pages(Iova(0x4000_0000), 0x1000), 0x1000);
    assert_eq!(t.unmap_whole_pages(Iova(0x4000_1000), 0x1000), 0x1000);
    assert_eq!(dump(&t), ["top 2", "T2[1]", "T1[0]"]);
    map(&mut t, 0x4000_0000, 0x4000_0000, 0x4000_0000).unwrap();
    assert_eq!(dump(&t), ["top 2", "L2[1]x1 0x7000000040000001"]);
    assert_eq!(t.memory().in_use(), 1);

    let in_use = MapError::InUse {
        at: Iova(0x4000_0000),
    };
    assert_eq!(map(&mut t, 0x3fff_f000, 0x3fff_f000, 0x2000), Err(in_use));
    assert_eq!(dump(&t), ["top 2", "L2[1]x1 0x7000000040000001"]);
    // As the kernel's table code writes it.
    let result = t.map_prefix(Iova(0x3fff_f000), Hpa(0x3fff_f000), 0x2000, RW);
    assert_eq!(result, Err(in_use));
    assert_eq!(phys(&t, 0x3fff_f000), Some(0x3fff_f000));
}

#[test]
fn a_page_in_a_table_is_in_the_way_of_a_larger_page() {
    let mut t = table();
    map(&mut t, 0x4000_5000, 0x5000, 0x1000).unwrap();
    let in_use = MapError::InUse {
        at: Iova(0x4000_0000),
    };
    assert_eq!(
        map(&mut t, 0x4000_0000, 0x4000_0000, 0x4000_0000),
        Err(in_use)
    );
    assert_eq!(phys(&t, 0x4000_5000), Some(0x5000));
    assert_eq!(phys(&t, 0x4000_4000), None);
}

#[test]
fn what_is_no_mapping_is_refused() {
    let mut t = table();
    let mut map = |iova, hpa, len, attributes| {
        let error = t.map(Iova(iova), Hpa(hpa), len, attributes).unwrap_err();
        assert_eq!(t.memory().in_use(), 1);
        error
    };
    assert!(matches!(
        map(0, 1 << 52, 0x1000, RW),
        MapError::OutOfRange { .. }
    ));
    assert!(matches!(
        map(0, (1 << 52) - 0x1000, 0x2000, RW),
        MapError::OutOfRange { .. }
    ));
    assert!(matches!(
        map(0, 0xf_ffff_ffff_f800, 0x1000, RW),
        MapError::Misaligned { .. }
    ));
    assert!(matches!(
        map(0x800, 0, 0x1000, RW),
        MapError::Misaligned { .. }
    ));
    assert!(matches!(map(0, 0, 0x800, RW), MapError::Misaligned { .. }));
    assert!(matches!(map(0, 0, 0, RW), MapError::NoBytes { .. }));
    assert!(matches!(
        map(0, 0, 0x1000, COHERENT),
        MapError::NoAccess { .. }
    ));
    assert!(matches!(
        map(0xffff_ffff_ffff_f000, 0, 0x2000, RW),
        MapError::Wraps { .. }
    ));
}

/// Each size once, each at twice its size, so that no two are neighbours.
#[test]
fn every_size_has_its_own_page_and_all_of_it_translates() {
    let mut t = table();
    for size in (0..64).filter_map(PageSize::new) {
        let (iova, hpa) = (2 * size.bytes(), size.bytes());
        map(&mut t, iova, hpa & ((1 << 51) - 1), size.bytes()).unwrap();
        let leaf = t.lookup(Iova(iova + size.bytes() - 1)).unwrap();
        assert_eq!((leaf.size, leaf.iova), (size, Iova(iova)));
    }
    let leaves: Vec<_> = t
        .leaves(Iova(0), Iova(u64::MAX))
        .map(Result::unwrap)
        .collect();
    assert_eq!(leaves.len(), 39);
    for leaf in leaves {
        let step = leaf.size.bytes() / 64;
        for offset in (0..64).map(|i| i * step + 7) {
            assert_eq!(t.translate(leaf.iova + offset), Some(leaf.hpa + offset));
        }
        let run = t.run(leaf.iova + 5, u64::MAX).unwrap();
        assert_eq!((run.hpa, run.len), (leaf.hpa + 5, leaf.size.bytes() - 5));
    }
}

/// The low 512 GiB have a way of their own, which must not lead into what became of a table.
#[test]
fn a_table_that_is_used_again_is_not_found_where_it_was() {
    let (high, higher) = (1 << 40, 1 << 41);
    let mut t = table();
    map(&mut t, 0, 0x5000, 0x1000).unwrap();
    map(&mut t, high, 0x6000, 0x1000).unwrap();
    assert_eq!(phys(&t, 0), Some(0x5000));
    assert_eq!(t.unmap(Iova(0), 0x1000), Ok(0x1000));
    map(&mut t, higher, 0x7000, 0x1000).unwrap();
    assert_eq!(phys(&t, 0), None);
    assert_eq!(phys(&t, high), Some(0x6000));
    assert_eq!(phys(&t, higher), Some(0x7000));
    map(&mut t, 0x1000, 0x8000, 0x1000).unwrap();
    assert_eq!(phys(&t, 0x1000), Some(0x8000));
    t.clear();
    assert_eq!(phys(&t, 0x1000), None);
}

/// A mapping of many GiB takes the place of empty tables, which are used again elsewhere.
#[test]
fn pages_in_place_of_tables_are_found_in_every_gib() {
    const GIB: u64 = 1 << 30;
    let mut t = table();
    for gib in 0..4 {
        map(&mut t, gib * GIB, 0x5000, 0x1000).unwrap();
        assert_eq!(t.unmap_whole_pages(Iova(gib * GIB), 0x1000), 0x1000);
    }
    assert_eq!(t.memory().in_use(), 9);
    map(&mut t, 0, GIB, 4 * GIB).unwrap();
    for gib in 0..16 {
        map(&mut t, (1 << 40) + gib * GIB, 64 * GIB, 0x20_0000).unwrap();
    }
    for gib in 0..4 {
        assert_eq!(phys(&t, gib * GIB + 5), Some((gib + 1) * GIB + 5));
    }
    assert_eq!(t.unmap(Iova(GIB), 2 * GIB), Ok(2 * GIB));
    let found = [0, 1, 2, 3].map(|gib| phys(&t, gib * GIB).map(|hpa| hpa / GIB));
    assert_eq!(found, [Some(1), None, None, Some(4)]);
}
