// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The cost of a layout of RAM for a Linux guest's kernel: the price of scattered memory.
//!
//! Counted is what depends on where memory is:
//! - `struct page`, 64 bytes for each page of 4 KiB, comes in whole sections of 128 MiB: a section
//!   that has any memory costs 2 MiB (`SECTION_SIZE_BITS` in arch/x86/include/asm/sparsemem.h,
//!   and since 5.12 in arch/arm64/include/asm/sparsemem.h for pages of 4 KiB;
//!   `__populate_section_memmap` in mm/sparse-vmemmap.c always gets `PAGES_PER_SECTION` pages).
//! - The direct map takes a page of 4 KiB for the 2 MiB entries of each GiB that has memory but is
//!   not all memory, and one for the 1 GiB entries of each 512 GiB (`init_memory_mapping` in
//!   arch/x86/mm/init.c and `map_mem` in arch/arm64/mm/mmu.c map ranges of RAM only). The CPU is
//!   taken to have 1 GiB entries.
//!
//! Low memory, where an architecture has some, is in every guest; its section costs nothing more.
//! Page tables of the memory map itself, one page for 64 GiB, and the entries of the kernel's lists
//! are left out.

use std::ops::Range;

use address::Gpa;

use super::low;

/// Bytes of a section.
pub const SECTION: u64 = 128 << 20;
/// Bytes of `struct page`s for a section.
pub const SECTION_MEMMAP: u64 = SECTION / 4096 * 64;
/// Bytes of a page of a page table.
const TABLE: u64 = 4096;
const GIB: u64 = 1 << 30;
/// What one table of 1 GiB entries covers.
const UPPER: u64 = 512 * GIB;
/// Addresses of 32 bits end here.
const LIMIT_4G: u64 = 1 << 32;

/// The shape of guest RAM above low memory, and its price.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overhead {
    /// Extents.
    pub extents: usize,
    /// Bytes of the largest one.
    pub largest: u64,
    /// Bytes below 4 GiB.
    pub below_4g: u64,
    /// Sections touched, that of low memory not counted.
    pub sections: u64,
    /// Bytes of page tables for the direct map.
    pub page_tables: u64,
}

impl Overhead {
    /// What RAM at `ranges` costs, which ascend and do not overlap.
    #[must_use]
    pub fn of(ranges: &[Range<Gpa>]) -> Self {
        let mut overhead = Self::default();
        let mut section = Count::after(low::SIZE.div_ceil(SECTION));
        let mut upper = Count::after(0);
        let mut gib = Count::after(0);
        for range in ranges {
            let (start, end) = (range.start.0, range.end.0);
            if start >= end {
                continue;
            }
            overhead.extents += 1;
            overhead.largest = overhead.largest.max(end - start);
            overhead.below_4g += LIMIT_4G.min(end).saturating_sub(start);
            section.touch(start, end, SECTION);
            upper.touch(start, end, UPPER);
            gib.touch_partly(start, end);
        }
        overhead.sections = section.units;
        overhead.page_tables = (gib.units + upper.units) * TABLE;
        overhead
    }

    /// What `bytes` cost in one piece.
    #[must_use]
    pub fn of_one_extent(bytes: u64) -> Self {
        let at = Gpa(LIMIT_4G);
        Self::of(&[at..Gpa(at.0.saturating_add(bytes))])
    }

    /// Bytes of `struct page`s.
    #[must_use]
    pub fn memmap(&self) -> u64 {
        self.sections * SECTION_MEMMAP
    }

    /// Bytes in all that the guest's kernel spends.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.memmap() + self.page_tables
    }
}

/// Counts units of the address space that ascending ranges touch.
struct Count {
    units: u64,
    /// The first unit that was not looked at yet.
    next: u64,
}

impl Count {
    fn after(next: u64) -> Self {
        Self { units: 0, next }
    }

    /// `start` is below `end`.
    fn touch(&mut self, start: u64, end: u64, unit: u64) {
        let first = (start / unit).max(self.next);
        let last = (end - 1) / unit;
        if first <= last {
            self.units += last - first + 1;
            self.next = last + 1;
        }
    }

    /// Counts GiB that the range touches and does not fill.
    fn touch_partly(&mut self, start: u64, end: u64) {
        let whole = start.div_ceil(GIB)..end / GIB;
        if whole.is_empty() {
            return self.touch(start, end, GIB);
        }
        if start < whole.start * GIB {
            self.touch(start, whole.start * GIB, GIB);
        }
        if whole.end * GIB < end {
            self.touch(whole.end * GIB, end, GIB);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn of(ranges: &[(u64, u64)]) -> Overhead {
        let range = |(start, length): &(u64, u64)| Gpa(start * MIB)..Gpa((start + length) * MIB);
        Overhead::of(&ranges.iter().map(range).collect::<Vec<_>>())
    }

    #[test]
    fn each_section_is_paid_for_once() {
        // Two pieces in one section, one across a border, one in low memory's section.
        let found = of(&[(2, 100), (130, 2), (140, 2), (254, 4)]);
        assert_eq!((found.extents, found.sections), (4, 2));
        assert_eq!(found.memmap(), 4 * MIB);
        assert_eq!(found.largest, 100 * MIB);
        assert_eq!(found.page_tables, 2 * TABLE);
        assert_eq!(Overhead::of(&[]), Overhead::default());
    }

    #[test]
    fn whole_gibs_need_no_table_of_their_own() {
        assert_eq!(of(&[(4096, 1024)]).page_tables, TABLE);
        assert_eq!(of(&[(4096, 1026)]).page_tables, 2 * TABLE);
        assert_eq!(of(&[(4094, 1028)]).page_tables, 3 * TABLE);
        assert_eq!(
            of(&[(4094, 2), (5120, 2), (5130, 2)]).page_tables,
            3 * TABLE
        );
        assert_eq!(of(&[(512 * 1024 - 2, 4)]).page_tables, 4 * TABLE);
    }

    #[test]
    fn memory_below_4g_ends_there() {
        assert_eq!(of(&[(4090, 2), (4094, 8)]).below_4g, 4 * MIB);
        assert_eq!(of(&[(5000, 2)]).below_4g, 0);
        assert_eq!(Overhead::of_one_extent(300 * MIB).sections, 3);
    }

    proptest! {
        /// Against counting one 2 MiB page after the other.
        #[test]
        fn counting_ranges_is_counting_pages(
            pieces in prop::collection::vec((0_u64..700, 1_u64..700), 1..12),
        ) {
            let mut at = 1;
            let mut ranges = Vec::new();
            let mut sections = BTreeSet::new();
            let mut gibs: Vec<u64> = vec![0; 32];
            for (gap, length) in pieces {
                at += gap + 1;
                ranges.push((2 * at, 2 * length));
                for page in at..at + length {
                    sections.insert(page * 2 * MIB / SECTION);
                    gibs[usize::try_from(page / 512).unwrap()] += 1;
                }
                at += length;
            }
            sections.remove(&0);
            let found = of(&ranges);
            prop_assert_eq!(found.sections, sections.len() as u64);
            let tables = gibs.iter().filter(|pages| (1..512).contains(*pages)).count() as u64;
            prop_assert_eq!(found.page_tables, (tables + 1) * TABLE);
        }
    }
}
