//! The table's bytes.

use address::Iova;
use amdv1::TableAddress;
use amdv1::walk::{self, Window};

use super::*;

/// The entry `index` of the table at `page`.
fn entry(table: &WindowTable, page: usize, index: usize) -> u64 {
    table.pages()[page].load(index).unwrap().0
}

/// The example of `docs/dma-window.md`.
fn example() -> WindowTable {
    let memory = memory(&[
        (0x10_0000, 0x1_2345_6000, 0x3000),
        (0x20_0000, 0x2_4020_0000, 0x20_0000),
        (0x4000_0000, 0x3_c000_0000, 0x4000_0000),
    ]);
    WindowTable::build(memory, Gpa(TABLE)).unwrap()
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
    let all = (Iova(0), Iova(u64::MAX));
    let leaves = walk::leaves(reader, table.root(), all, 1 << 16);
    let mut mapped = 0;
    for leaf in leaves {
        let leaf = leaf.unwrap();
        assert_eq!(leaf.attributes, amdv1::Attributes::all());
        let size = leaf.size.bytes();
        let expected = Some((leaf.hpa.0, size));
        assert_eq!(run(table.memory(), leaf.iova.0, size), expected);
        mapped += size;
    }
    let memory: u64 = table.memory().pieces().iter().map(|piece| piece.len).sum();
    assert_eq!(mapped, memory);
}

#[test]
fn a_table_stands_only_where_its_bar_can() {
    let ram = [(0x10_0000, 0x1000, 0x40_0000)];
    let size = memory(&ram).bar_size();
    assert_eq!(size, 0x8000);
    for base in [0, 0x1000, TABLE + 0x1000, 1 << 52, !0x7fff] {
        let base = Gpa(base);
        let result = WindowTable::build(memory(&ram), base);
        assert_eq!(result.unwrap_err(), BuildError::Place { base, size });
    }
    for base in [0x10_0000, 0x4f_8000] {
        let base = Gpa(base);
        let result = WindowTable::build(memory(&ram), base);
        assert_eq!(result.unwrap_err(), BuildError::Overlap { base, size });
    }
    for base in [0xf_8000, 0x50_0000, (1 << 52) - size] {
        assert!(
            WindowTable::build(memory(&ram), Gpa(base)).is_ok(),
            "{base:#x}"
        );
    }
}
