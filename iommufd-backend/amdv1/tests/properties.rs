// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The table against a plain model, on random operations.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod bodies;

use address::{Hpa, Iova};
use amdv1::{Attributes, HeapTables, Leaf, Level, PageSize, Table, TableMemory};
use proptest::prelude::*;

const CASES: u32 = 340;
/// Operations of a case.
const OPERATIONS: usize = 300;
const _: () = assert!(CASES as usize * OPERATIONS >= 100_000);

fn leaves(table: &Table<HeapTables>) -> Vec<Leaf> {
    let all = table.leaves(Iova(0), Iova(u64::MAX));
    all.map(Result::unwrap).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn operations_agree_with_the_model(
        data in prop::collection::vec(any::<u8>(), 3 + 6 * OPERATIONS),
    ) {
        bodies::operations(&data);
    }

    #[test]
    fn walks_of_anything_end(data in prop::collection::vec(any::<u8>(), 10..500)) {
        bodies::scribble(&data);
    }

    /// One range on an empty table: its pages cover it, are aligned, and no two neighbours
    /// could be one; the top is no higher than needed, and no table is without a page.
    #[test]
    fn a_range_takes_the_largest_pages(
        iova: u64, hpa: u64, len: u64, congruent in 0..52_u32, shift in 0..40_u32,
    ) {
        let hpa = (hpa % (1 << 52)) & !0xfff;
        // Agree in the bits that decide which sizes fit.
        let low = ((1 << congruent) - 1) & !0xfff;
        let iova = ((iova & !low) | (hpa & low)) & !0xfff;
        // No more than some thousand pages without congruence.
        let pages = (len >> shift >> 24) & (((1 << congruent) - 1) | 0xfff);
        let room = ((1 << 52) - hpa).min((u64::MAX - iova) & !0xfff) >> 12;
        let len = (1 + pages.min(room.saturating_sub(1))) << 12;
        prop_assume!(room > 0 && len >> congruent.max(12) < 4096);

        let mut table = Table::new(HeapTables::new()).unwrap();
        let rw = Attributes::READ | Attributes::WRITE;
        table.map(Iova(iova), Hpa(hpa), len, rw).unwrap();
        let mut next = Iova(iova);
        for leaf in leaves(&table) {
            prop_assert_eq!(leaf.iova, next);
            prop_assert_eq!(leaf.hpa.0, hpa + (next.0 - iova));
            let rest = len - (next.0 - iova);
            prop_assert_eq!(Some(leaf.size), PageSize::best(next.0, leaf.hpa.0, rest));
            next = Iova(next.0.wrapping_add(leaf.size.bytes()));
        }
        prop_assert_eq!(next.0, iova.wrapping_add(len));
        let below = table.root().level.below().unwrap();
        let smallest = table.root().level == Level::START;
        let holds_leaves = leaves(&table).iter().any(|leaf| leaf.size.level() > below);
        prop_assert!(smallest || holds_leaves || !below.reaches(Iova(iova + (len - 1))));

        prop_assert_eq!(table.unmap(Iova(iova), len), Ok(len));
        prop_assert_eq!(leaves(&table), []);
        prop_assert_eq!(table.into_memory().in_use(), 0);
    }
}
