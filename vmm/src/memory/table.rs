// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Addresses of guest memory: the one table of a run.

use std::ops::Range;

use address::{BusAddr, Gpa};
use devices::guest_table::{GuestTable, Piece, Pieces, TableError, bar_size};
use host::DmaMap;
use iommufd_backend::TablePages;

use super::error::LayoutError;
use super::plan::{Extent, MemoryPlan};

/// The table from guest-physical to host-physical addresses that a run asks. Its pages are what a
/// guest with a DMA window is shown.
pub type RamTable = GuestTable<TablePages>;

/// A table whose place in the guest is not known yet.
#[derive(Debug)]
pub struct Draft(Pieces);

impl Draft {
    /// The table of the memory of `plan`, which is pinned at `extents`, ascending in its file; empty if
    /// nothing is pinned.
    ///
    /// # Errors
    /// [`TableError`]
    pub fn new(plan: &MemoryPlan, extents: &[Extent]) -> Result<Self, TableError> {
        Pieces::new(physical(plan, extents)).map(Self)
    }

    /// Bytes of a BAR that shows the table.
    #[must_use]
    pub fn bar_size(&self) -> u64 {
        bar_size(self.0.table_pages())
    }

    /// The table, in a BAR that the guest has at `base`.
    ///
    /// # Errors
    /// [`LayoutError::Physical`], [`LayoutError::Backend`]
    pub fn build(self, base: Gpa) -> Result<RamTable, LayoutError> {
        let pages = TablePages::new(self.0.table_pages(), self.bar_size(), base.0)?;
        Ok(GuestTable::build(&self.0, base, pages)?)
    }
}

/// What is known of a table without going through it again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Pieces of host-physical memory.
    pub pieces: usize,
    /// Bytes that lie below 4 GiB for devices.
    pub below_4g: u64,
    /// Behind the last byte for devices.
    pub end: BusAddr,
}

impl Summary {
    /// Goes through `table`, whose memory is where `dma` puts it for devices.
    ///
    /// # Errors
    /// [`TableError::Walk`]
    pub fn of(table: &RamTable, dma: &DmaMap) -> Result<Self, TableError> {
        const LIMIT: u64 = 1 << 32;
        let mut summary = Self::default();
        for piece in table.pieces() {
            let piece = piece?;
            summary.pieces += 1;
            // All of a piece is in one range.
            let Some(bus) = dma.to_bus(piece.hpa) else {
                continue;
            };
            summary.end = summary.end.max(bus + piece.len);
            summary.below_4g += LIMIT.saturating_sub(bus.0).min(piece.len);
        }
        Ok(summary)
    }
}

/// Where the memory of `plan` is.
fn physical(plan: &MemoryPlan, extents: &[Extent]) -> Vec<Piece> {
    let mut all = Vec::new();
    for piece in plan.parts() {
        let Range { start, end } = piece.file;
        let first = extents.partition_point(|extent| extent.offset + extent.len <= start);
        let inside = extents[first..]
            .iter()
            .take_while(|extent| extent.offset < end);
        all.extend(inside.map(|extent| {
            let from = extent.offset.max(start);
            Piece {
                gpa: piece.gpa + (from - start),
                hpa: extent.hpa + (from - extent.offset),
                len: (extent.offset + extent.len).min(end) - from,
            }
        }));
    }
    all
}

#[cfg(test)]
mod tests {
    use address::Hpa;

    use super::*;
    use crate::memory::layout::{Conventional, Identity, Layout};
    use crate::memory::plan::{self, Constraints, Region};

    const MIB: u64 = 1 << 20;

    fn extent(offset: u64, hpa: u64, len: u64) -> Extent {
        Extent {
            offset,
            hpa: Hpa(hpa),
            len,
        }
    }

    fn plan(regions: Vec<Region>, layout: &dyn Layout) -> MemoryPlan {
        let constraints = Constraints {
            taken: vec![
                ("low memory", Gpa(0)..Gpa(MIB)),
                ("a PCI window", Gpa(8 * MIB)..Gpa(16 * MIB)),
            ],
            address_bits: 40,
            slots: 100,
            kept: 0,
            dma: DmaMap::Identity,
        };
        MemoryPlan::new(regions, layout, &constraints).unwrap()
    }

    fn fill(plan: &MemoryPlan, extents: &[Extent], base: Gpa) -> Result<RamTable, LayoutError> {
        Draft::new(plan, extents)?.build(base)
    }

    #[test]
    fn memory_that_is_laid_out_anywhere_is_found_where_it_is_pinned() {
        let extents = [
            extent(0, 0x1_0000_0000, 2 * MIB),
            extent(2 * MIB, 0x8_0000_0000, 8 * MIB),
            extent(10 * MIB, 0x4000_0000, 6 * MIB),
        ];
        let region = Region::of_file(16 * MIB);
        let plan = plan(vec![region], &Conventional);
        assert!(plan.regions().len() > 1, "in two pieces around the window");
        let table = fill(&plan, &extents, Gpa(0)).unwrap();
        for placed in plan.regions() {
            for at in (0..placed.region.len).step_by(4096) {
                let offset = placed.region.parts[0].start + at;
                let of = |e: &&Extent| (e.offset..e.offset + e.len).contains(&offset);
                let extent = extents.iter().find(of).unwrap();
                let run = table.translate(placed.gpa + at, 4096).unwrap();
                assert_eq!(run.hpa, extent.hpa + (offset - extent.offset));
                assert_eq!(run.len, 4096);
            }
        }
        let summary = Summary::of(&table, &DmaMap::Identity).unwrap();
        assert_eq!(summary.below_4g, 6 * MIB);
        assert!(summary.pieces >= 3);
    }

    #[test]
    fn identity_memory_is_where_it_is() {
        let extents = [
            extent(0, 0x1_0020_0000, 2 * MIB),
            extent(2 * MIB, 0x1_0000_0000, 2 * MIB),
        ];
        let plan = plan(plan::regions(&extents), &Identity);
        let draft = Draft::new(&plan, &extents).unwrap();
        assert_eq!(draft.bar_size(), 0x2000);
        let table = draft.build(Gpa(0x40_0000_0000)).unwrap();
        assert_eq!(table.base(), Gpa(0x40_0000_0000));
        let pieces: Vec<_> = table.pieces().collect::<Result<_, _>>().unwrap();
        let whole = Piece {
            gpa: Gpa(0x1_0000_0000),
            hpa: Hpa(0x1_0000_0000),
            len: 4 * MIB,
        };
        assert_eq!(pieces, [whole]);
    }

    #[test]
    fn what_is_not_pinned_is_not_in_the_table() {
        let region = Region::of_file(2 * MIB);
        let table = fill(&plan(vec![region], &Conventional), &[], Gpa(0)).unwrap();
        assert_eq!(table.pieces().count(), 0);
        assert_eq!(
            Summary::of(&table, &DmaMap::Identity).unwrap(),
            Summary::default()
        );
    }
}
