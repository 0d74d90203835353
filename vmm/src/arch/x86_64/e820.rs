// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The guest's memory map in the form of the Linux boot protocol (E820).

use std::ops::Range;

use address::Gpa;

use crate::memory::plan::{MemoryPlan, PlanError};

/// Entries that fit in the zero page (Documentation/arch/x86/zero-page.rst); the rest goes into
/// a `SETUP_E820_EXT` node.
pub const ZERO_PAGE_ENTRIES: usize = 128;

/// Entries that a kernel built without NUMA keeps: `ZERO_PAGE_ENTRIES` plus three for its only
/// node (arch/x86/include/asm/e820/types.h).
pub const ENTRIES_WITHOUT_NUMA: usize = 131;

/// Pieces of RAM, low memory among them, that Linux lists without allocating
/// (mm/memblock.c, INIT_MEMBLOCK_MEMORY_REGIONS). With more, early code moves the list to pages
/// below 1 MiB, and frees these for any use once the list is not needed any more
/// (memblock_discard): they are not identity memory, and a driver may get them.
pub const SAFE_RAM_PIECES: usize = 128;

/// [`SAFE_RAM_PIECES`] less low memory: extents that identity memory may have.
pub const SAFE_EXTENTS: usize = SAFE_RAM_PIECES - 1;

/// Why more are not safe.
pub const TOO_MANY_PIECES: &str = "with more pieces, a Linux guest may give drivers pages of its first MiB for \
     DMA. Those pages are at other addresses in the host (GPA and HPA differ), so the device would access memory of \
     the host instead";

/// Entries beyond which no stock kernel keeps any: `ZERO_PAGE_ENTRIES` plus three for each of the
/// 1024 nodes that Debian's kernel is built for.
pub const MAX_ENTRIES: usize = 3200;

/// What a range is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// For any use.
    Ram = 1,
    /// Not for use as memory.
    Reserved = 2,
}

impl Kind {
    /// What reports call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ram => "ram",
            Self::Reserved => "reserved",
        }
    }
}

/// A range of guest-physical addresses and its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The addresses.
    pub range: Range<Gpa>,
    /// What they are good for.
    pub kind: Kind,
}

/// The map of a guest, in the two parts that the boot protocol has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryMap {
    /// For the zero page; at most [`ZERO_PAGE_ENTRIES`]. A kernel that moves itself before it
    /// runs looks at these only.
    pub first: Vec<Entry>,
    /// For `SETUP_E820_EXT`.
    pub more: Vec<Entry>,
}

impl MemoryMap {
    /// All entries, those of the first part first.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.first.iter().chain(&self.more)
    }

    /// The map of `plan`'s RAM and the `fixed` entries around it. The memory that holds `kernel`
    /// is in the first part.
    ///
    /// # Errors
    /// [`PlanError::TooFragmented`] with more than [`MAX_ENTRIES`] entries.
    pub fn new(plan: &MemoryPlan, fixed: Vec<Entry>, kernel: Gpa) -> Result<Self, PlanError> {
        let total = fixed.len() + plan.regions().len();
        if total > MAX_ENTRIES {
            return Err(PlanError::TooFragmented {
                regions: total,
                most: MAX_ENTRIES,
                what: "a guest kernel keeps of its memory map",
            });
        }
        let (home, rest): (Vec<_>, Vec<_>) = plan
            .regions()
            .iter()
            .map(|region| Entry {
                range: region.range(),
                kind: Kind::Ram,
            })
            .partition(|entry| entry.range.contains(&kernel));
        let mut first: Vec<Entry> = fixed.into_iter().chain(home).chain(rest).collect();
        let mut more = first.split_off(first.len().min(ZERO_PAGE_ENTRIES));
        first.sort_unstable_by_key(|entry| entry.range.start);
        more.sort_unstable_by_key(|entry| entry.range.start);
        Ok(Self { first, more })
    }

    /// Entries in both parts.
    #[must_use]
    pub fn len(&self) -> usize {
        self.first.len() + self.more.len()
    }
}

#[cfg(test)]
mod tests {
    use address::Hpa;

    use super::*;
    use crate::memory::layout::Identity;
    use crate::memory::plan::{Constraints, Region};

    fn plan(count: u64) -> MemoryPlan {
        let regions = (0..count)
            .map(|i| Region {
                hpa: Some(Hpa((2 * i + 1) << 21)),
                len: 1 << 21,
                parts: Vec::new(),
            })
            .collect();
        let constraints = Constraints {
            taken: Vec::new(),
            address_bits: 48,
            slots: 32_000,
            kept: 0,
            dma: host::DmaMap::Identity,
        };
        MemoryPlan::new(regions, &Identity, &constraints).unwrap()
    }

    fn low() -> Vec<Entry> {
        vec![Entry {
            range: Gpa(0)..Gpa(0xa_0000),
            kind: Kind::Ram,
        }]
    }

    #[test]
    fn the_kernels_memory_is_always_in_the_first_part() {
        let plan = plan(300);
        let last = plan.regions()[299].gpa;
        let map = MemoryMap::new(&plan, low(), last + 4096).unwrap();
        assert_eq!((map.first.len(), map.more.len()), (128, 173));
        assert!(map.first.iter().any(|entry| entry.range.start == last));
        assert!(map.more.iter().all(|entry| entry.range.start != last));
        assert!(map.first.is_sorted_by_key(|entry| entry.range.start));
        assert!(map.more.is_sorted_by_key(|entry| entry.range.start));
    }

    #[test]
    fn more_than_a_kernel_keeps_is_refused() {
        let most = plan(3199);
        let home = most.regions()[0].gpa;
        assert_eq!(MemoryMap::new(&most, low(), home).unwrap().len(), 3200);
        assert!(matches!(
            MemoryMap::new(&plan(3200), low(), home),
            Err(PlanError::TooFragmented {
                regions: 3201,
                most: MAX_ENTRIES,
                ..
            })
        ));
    }

    #[test]
    fn a_small_map_needs_no_extension() {
        let plan = plan(127);
        let map = MemoryMap::new(&plan, low(), plan.regions()[0].gpa).unwrap();
        assert_eq!((map.len(), map.more.len()), (128, 0));
    }
}
