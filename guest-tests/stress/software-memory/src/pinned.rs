// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What is pinned, by address: the tables of the memory bus.

use address::{Hpa, Iova};
use amdv1::{Attributes, HeapTables, MapError, Table, UnmapError};

pub use amdv1::Run;
pub use iommufd_backend::extent::Extent;

/// What every leaf of the table grants, as the kernel's own noiommu table does for guest memory.
const GUEST_MEMORY: Attributes = Attributes::READ
    .union(Attributes::WRITE)
    .union(Attributes::FORCE_COHERENT);

/// Why an address has no translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TranslateError {
    /// Nothing is pinned there.
    #[error("IOVA {iova} is not pinned")]
    NotPinned {
        /// The address asked for.
        iova: Iova,
    },
    /// No bytes were asked for.
    #[error("Empty translation at IOVA {iova}")]
    NoBytes {
        /// The address asked for.
        iova: Iova,
    },
}

/// What is pinned where, asked without system calls: the memory bus of the software backend.
///
/// The same twice: a list of extents for unpinning, an AMDv1 table for translation.
#[derive(Clone, Debug, Default)]
pub struct PinnedMap {
    /// In IOVA order, without overlaps.
    extents: Vec<Extent>,
    table: Table<HeapTables>,
}

/// Why a [`PinnedMap`] refused a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PinnedMapError {
    /// Part of the range is pinned already.
    #[error("IOVA {iova}, {len:#x} bytes: partly pinned already")]
    Overlap {
        /// First address of the extent refused.
        iova: Iova,
        /// Its length in bytes.
        len: u64,
    },
    /// The table does not take an extent.
    #[error("Cannot add the extent at IOVA {iova} to the page table")]
    Map {
        /// First address of the extent refused.
        iova: Iova,
        /// Why.
        #[source]
        source: MapError,
    },
    /// The table does not let go of a range.
    #[error("Cannot remove the range at IOVA {iova} from the page table")]
    Unmap {
        /// First address of the range.
        iova: Iova,
        /// Why.
        #[source]
        source: UnmapError,
    },
}

impl PinnedMap {
    /// A map with nothing pinned.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Enters the extents of one pin, all or none.
    ///
    /// # Errors
    ///
    /// [`PinnedMapError`]; the map is as before then.
    pub fn insert(&mut self, extents: &[Extent]) -> Result<(), PinnedMapError> {
        // Most pins go behind all others, one hugepage after the other.
        let behind = extents
            .iter()
            .map(Extent::iova)
            .min()
            .unwrap_or(Iova(u64::MAX));
        let at = self.extents.partition_point(|e| e.iova_end() <= behind);
        let mut tail = self.extents[at..].to_vec();
        tail.extend_from_slice(extents);
        tail.sort_unstable_by_key(Extent::iova);
        if let Some(pair) = tail.windows(2).find(|p| p[0].iova_end() > p[1].iova()) {
            return Err(PinnedMapError::Overlap {
                iova: pair[1].iova(),
                len: pair[1].len(),
            });
        }
        for (nth, extent) in extents.iter().enumerate() {
            let (iova, hpa, len) = (extent.iova(), extent.hpa(), extent.len());
            if let Err(source) = self.table.map(iova, hpa, len, GUEST_MEMORY) {
                for done in &extents[..nth] {
                    unmap(&mut self.table, done.iova(), done.len())?;
                }
                return Err(PinnedMapError::Map { iova, source });
            }
        }
        self.extents.truncate(at);
        self.extents.append(&mut tail);
        Ok(())
    }

    /// Forgets `len` bytes from `iova` on; an extent that reaches over an end keeps its rest.
    ///
    /// # Errors
    ///
    /// [`PinnedMapError`]; the map is as before then.
    pub fn remove(&mut self, iova: Iova, len: u64) -> Result<(), PinnedMapError> {
        unmap(&mut self.table, iova, len)?;
        let end = Iova(iova.0.saturating_add(len));
        let first = self.extents.partition_point(|e| e.iova_end() <= iova);
        let last = self.extents.partition_point(|e| e.iova() < end);
        if first < last {
            let touched = self.extents[first..last].iter();
            let kept: Vec<Extent> = touched
                .flat_map(|extent| outside(*extent, iova, len).into_iter().flatten())
                .collect();
            self.extents.splice(first..last, kept);
        }
        Ok(())
    }

    /// All extents in IOVA order.
    #[must_use]
    pub fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// The table with the same content.
    #[must_use]
    pub const fn table(&self) -> &Table<HeapTables> {
        &self.table
    }

    /// Physical address of `iova` and how many of the `len` bytes from there are contiguous.
    ///
    /// A run may continue from one pin into the next if that lies behind it in both spaces.
    ///
    /// # Errors
    ///
    /// [`TranslateError`] if `iova` is not pinned or `len` is 0.
    #[inline]
    pub fn translate(&self, iova: Iova, len: u64) -> Result<Run, TranslateError> {
        if len == 0 {
            return Err(TranslateError::NoBytes { iova });
        }
        let run = self.table.run(iova, len);
        run.ok_or(TranslateError::NotPinned { iova })
    }

    /// Translates single addresses, for callers that translate many.
    #[must_use]
    pub const fn lookup(&self) -> Lookup<'_> {
        Lookup {
            map: self,
            start: 0,
            len: 0,
            delta: 0,
            missed: NO_DELTA,
        }
    }

    /// The extent that covers `iova`.
    fn extent_at(&self, iova: Iova) -> Option<&Extent> {
        let nth = self.extents.partition_point(|e| e.iova_end() <= iova);
        self.extents.get(nth).filter(|e| e.hpa_of(iova).is_some())
    }
}

/// No two addresses that are multiples of a page are this far apart.
const NO_DELTA: u64 = 1;

/// Translates single addresses, and remembers the extent that it uses.
///
/// In memory of few extents, as a good layout has, the answer is one compare and one addition
/// away; elsewhere it is the table's.
#[derive(Clone, Debug)]
pub struct Lookup<'a> {
    map: &'a PinnedMap,
    /// The extent remembered: its first address, its bytes, and from there to its HPA.
    start: u64,
    len: u64,
    delta: u64,
    /// From IOVA to HPA in the last lookup outside of it.
    missed: u64,
}

impl Lookup<'_> {
    /// Host-physical address of `iova`, or `None` if it is not pinned.
    #[must_use]
    #[inline(always)]
    pub fn translate(&mut self, iova: Iova) -> Option<Hpa> {
        if iova.0.wrapping_sub(self.start) < self.len {
            return Some(Hpa(iova.0.wrapping_add(self.delta)));
        }
        self.walk(iova)
    }

    /// Asks the table. Two lookups outside, one after the other, with the same distance are
    /// probably in one extent, and then it is worth a search; among many small extents that is
    /// rare, so that nothing is spent on remembering what will not be used.
    #[inline]
    fn walk(&mut self, iova: Iova) -> Option<Hpa> {
        let hpa = self.map.table.translate(iova)?;
        let delta = hpa.0.wrapping_sub(iova.0);
        if delta == self.missed {
            self.remember(iova);
        } else {
            self.missed = delta;
        }
        Some(hpa)
    }

    #[cold]
    #[inline(never)]
    fn remember(&mut self, iova: Iova) {
        if let Some(extent) = self.map.extent_at(iova) {
            self.start = extent.iova().0;
            self.len = extent.len();
            self.delta = extent.hpa().0.wrapping_sub(extent.iova().0);
        }
        self.missed = NO_DELTA;
    }
}

fn unmap(table: &mut Table<HeapTables>, iova: Iova, len: u64) -> Result<u64, PinnedMapError> {
    let unmapped = table.unmap(iova, len);
    unmapped.map_err(|source| PinnedMapError::Unmap { iova, source })
}

/// The parts of `extent` before and after `len` bytes from `iova` on.
fn outside(extent: Extent, iova: Iova, len: u64) -> [Option<Extent>; 2] {
    let end = Iova(iova.0.saturating_add(len));
    if extent.iova_end() <= iova || extent.iova() >= end {
        return [Some(extent), None];
    }
    let head = extent
        .split(iova.0.saturating_sub(extent.iova().0))
        .map(|(head, _)| head);
    let tail = extent
        .split(end.0.saturating_sub(extent.iova().0))
        .map(|(_, tail)| tail);
    [head, tail]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAGE: u64 = 4096;

    fn extent(page: u64, frame: u64, pages: u64) -> Extent {
        Extent::new(Iova(page * PAGE), Hpa(frame * PAGE), pages * PAGE).unwrap()
    }

    #[test]
    fn a_run_continues_into_the_next_extent_if_that_is_adjacent() {
        let mut map = PinnedMap::new();
        map.insert(&[extent(10, 100, 2), extent(12, 200, 1)])
            .unwrap();
        map.insert(&[extent(13, 201, 3)]).unwrap();
        let run = |page, len| map.translate(Iova(page * PAGE + 5), len).map(|run| run.len);
        assert_eq!(run(10, u64::MAX), Ok(2 * PAGE - 5));
        assert_eq!(run(12, u64::MAX), Ok(4 * PAGE - 5));
        assert_eq!(run(12, PAGE), Ok(PAGE));
        assert!(matches!(run(16, 1), Err(TranslateError::NotPinned { .. })));
        assert!(matches!(run(12, 0), Err(TranslateError::NoBytes { .. })));
        assert_eq!(map.extents().len(), 3);
    }

    #[test]
    fn what_is_refused_leaves_no_trace() {
        let mut map = PinnedMap::new();
        map.insert(&[extent(10, 100, 2)]).unwrap();
        let overlap = map.insert(&[extent(20, 300, 1), extent(11, 200, 1)]);
        assert!(matches!(overlap, Err(PinnedMapError::Overlap { .. })));
        let odd = Extent::new(Iova(PAGE), Hpa(1), PAGE).unwrap();
        let refused = map.insert(&[extent(20, 300, 1), odd]);
        assert!(matches!(refused, Err(PinnedMapError::Map { .. })));
        assert_eq!(map.extents(), [extent(10, 100, 2)]);
        assert!(map.translate(Iova(20 * PAGE), 1).is_err());
        let odd = map.remove(Iova(1), PAGE);
        assert!(matches!(odd, Err(PinnedMapError::Unmap { .. })));
    }

    proptest! {
        /// Extents of eight pages, then a hole in them: list, table and lookup agree.
        #[test]
        fn list_and_table_and_lookup_agree(
            frames in prop::collection::hash_set(0..64_u64, 1..16),
            hole in 0..128_u64, pages in 0..40_u64,
            asked in prop::collection::vec(0..140 * PAGE, 64),
        ) {
            let mut map = PinnedMap::new();
            let extents: Vec<_> = (0..).zip(&frames).map(|(i, f)| extent(8 * i, 8 * f, 8)).collect();
            map.insert(&extents).unwrap();
            map.remove(Iova(hole * PAGE), pages * PAGE).unwrap();
            let mut lookup = map.lookup();
            for iova in asked.into_iter().map(Iova) {
                let removed = (hole..hole + pages).contains(&(iova.0 / PAGE));
                let hpa = extents.iter().find_map(|e| e.hpa_of(iova)).filter(|_| !removed);
                prop_assert_eq!(map.extents().iter().find_map(|e| e.hpa_of(iova)), hpa);
                prop_assert_eq!(map.translate(iova, 1).ok().map(|run| run.hpa), hpa);
                prop_assert_eq!(lookup.translate(iova), hpa);
            }
        }
    }
}
