//! Where guest memory is: the one table of a run.

use address::{Gpa, Hpa};
use devices::guest_table::{GuestTable, Piece, Pieces, TableError, bar_size};
use iommufd_backend::TablePages;

use super::plan::{FileExtent, MemoryPlan};
use crate::error::Error;

/// The table from guest-physical to host-physical addresses that a run asks. Its pages are what a
/// guest with a DMA window is shown.
pub type RamTable = GuestTable<TablePages>;

/// The table of the memory of `plan`, which is pinned at `extents`, ascending in its file; empty if
/// nothing is pinned. `place` is told the bytes of a BAR that shows the table and says where the
/// guest has that.
///
/// # Errors
/// [`Error::Physical`], [`Error::Backend`], and those of `place`.
pub fn fill(
    plan: &MemoryPlan,
    extents: &[FileExtent],
    place: impl FnOnce(u64) -> Result<Gpa, Error>,
) -> Result<RamTable, Error> {
    let pieces = Pieces::new(physical(plan, extents))?;
    let count = pieces.table_pages();
    let size = bar_size(count);
    let base = place(size)?;
    let pages = TablePages::new(count, size, base.0)?;
    Ok(GuestTable::build(&pieces, base, pages)?)
}

/// What is known of a table without going through it again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Pieces of host-physical memory.
    pub pieces: usize,
    /// Bytes that lie below 4 GiB in the host.
    pub below_4g: u64,
    /// Behind the last byte.
    pub end: Hpa,
}

impl Summary {
    /// Goes through `table`.
    ///
    /// # Errors
    /// [`TableError::Walk`]
    pub fn of(table: &RamTable) -> Result<Self, TableError> {
        const LIMIT: u64 = 1 << 32;
        let mut summary = Self::default();
        for piece in table.pieces() {
            let piece = piece?;
            summary.pieces += 1;
            summary.end = summary.end.max(piece.hpa + piece.len);
            summary.below_4g += LIMIT.saturating_sub(piece.hpa.0).min(piece.len);
        }
        Ok(summary)
    }
}

/// Where the memory of `plan` is.
fn physical(plan: &MemoryPlan, extents: &[FileExtent]) -> Vec<Piece> {
    let mut all = Vec::new();
    for piece in plan.pieces() {
        let (start, end) = (piece.file_offset, piece.file_offset + piece.length);
        let first = extents.partition_point(|extent| extent.offset + extent.length <= start);
        let inside = extents[first..]
            .iter()
            .take_while(|extent| extent.offset < end);
        all.extend(inside.map(|extent| {
            let from = extent.offset.max(start);
            Piece {
                gpa: piece.gpa + (from - start),
                hpa: extent.hpa + (from - extent.offset),
                len: (extent.offset + extent.length).min(end) - from,
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
    use crate::memory::plan::{self, Constraints, Run};

    const MIB: u64 = 1 << 20;

    fn extent(offset: u64, hpa: u64, length: u64) -> FileExtent {
        FileExtent {
            offset,
            hpa: Hpa(hpa),
            length,
        }
    }

    fn plan(runs: Vec<Run>, layout: &dyn Layout) -> MemoryPlan {
        let constraints = Constraints {
            taken: vec![
                ("low memory", Gpa(0)..Gpa(MIB)),
                ("a PCI window", Gpa(8 * MIB)..Gpa(16 * MIB)),
            ],
            address_bits: 40,
            slots: 100,
        };
        MemoryPlan::new(runs, layout, &constraints).unwrap()
    }

    #[test]
    fn memory_that_is_laid_out_anywhere_is_found_where_it_is_pinned() {
        let extents = [
            extent(0, 0x1_0000_0000, 2 * MIB),
            extent(2 * MIB, 0x8_0000_0000, 8 * MIB),
            extent(10 * MIB, 0x4000_0000, 6 * MIB),
        ];
        let piece = plan::Piece {
            file_offset: 0,
            length: 16 * MIB,
        };
        let run = Run {
            hpa: None,
            length: 16 * MIB,
            pieces: vec![piece],
        };
        let plan = plan(vec![run], &Conventional);
        assert!(plan.slots().len() > 1, "in two pieces around the window");
        let table = fill(&plan, &extents, |_| Ok(Gpa(0))).unwrap();
        for slot in plan.slots() {
            for at in (0..slot.run.length).step_by(4096) {
                let offset = slot.run.pieces[0].file_offset + at;
                let of = |e: &&FileExtent| (e.offset..e.offset + e.length).contains(&offset);
                let extent = extents.iter().find(of).unwrap();
                let run = table.translate(slot.gpa + at, 4096).unwrap();
                assert_eq!(run.hpa, extent.hpa + (offset - extent.offset));
                assert_eq!(run.len, 4096);
            }
        }
        let summary = Summary::of(&table).unwrap();
        assert_eq!(summary.below_4g, 6 * MIB);
        assert!(summary.pieces >= 3);
    }

    #[test]
    fn identity_memory_is_where_it_is() {
        let extents = [
            extent(0, 0x1_0020_0000, 2 * MIB),
            extent(2 * MIB, 0x1_0000_0000, 2 * MIB),
        ];
        let plan = plan(plan::runs(&extents), &Identity);
        let mut asked = 0;
        let table = fill(&plan, &extents, |size| {
            asked = size;
            Ok(Gpa(0x40_0000_0000))
        })
        .unwrap();
        assert_eq!((asked, table.base()), (0x2000, Gpa(0x40_0000_0000)));
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
        let piece = plan::Piece {
            file_offset: 0,
            length: 2 * MIB,
        };
        let run = Run {
            hpa: None,
            length: 2 * MIB,
            pieces: vec![piece],
        };
        let table = fill(&plan(vec![run], &Conventional), &[], |_| Ok(Gpa(0))).unwrap();
        assert_eq!(table.pieces().count(), 0);
        assert_eq!(Summary::of(&table).unwrap(), Summary::default());
    }
}
