// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Whether every page of guest memory is where the table has it, by the page tables of this
//! process, which are those that KVM uses for the guest.
//!
//! The pages that devices use stay pinned. Removing pages from the memory file gives
//! the guest others in their place; the kernel's own table of pinned memory does not record that.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use address::{Gpa, Hpa};
use devices::guest_table::{Piece, TableError};
use iommufd_backend::{AddressSource, Error as Backend, PageState, Pagemap, host_page_size};

use super::error::LayoutError;
use super::guest::GuestRam;
use super::table::RamTable;
use crate::error::explain::chain;
use crate::handover::PageView;

/// Compares every page of `ram` that is in `table`, each of `page_size` bytes, by `view`.
///
/// Where that does not show the pages' addresses and they come from elsewhere (`source`), this is logged and nothing is
/// compared.
///
/// # Errors
/// [`LayoutError::Moved`] for the first page that is elsewhere, [`LayoutError::Physical`]; [`LayoutError::Backend`] where
/// the kernel hides the addresses, and there is no other source of them.
pub fn check(
    ram: &GuestRam,
    table: &RamTable,
    page_size: u64,
    (view, source): (&PageView, AddressSource),
) -> Result<(), LayoutError> {
    let (compared, why) = match view {
        PageView::Open(pagemap) => (compare(ram, table, page_size, pagemap)?, None),
        PageView::Missing(why) => (Compared::Hidden(Pagemap::hidden()), Some(why.as_str())),
        PageView::Own | PageView::Helper { .. } => (Compared::Hidden(Pagemap::hidden()), None),
    };
    match (compared, source) {
        (Compared::All(pages), _) => {
            log::info!("{pages} pages of guest memory are at the addresses that devices use");
        }
        (Compared::Hidden(why), AddressSource::Pagemap) => return Err(why.into()),
        (Compared::Hidden(error), AddressSource::Iommufd) => {
            missing(why.unwrap_or(&chain(&error)));
        }
    }
    Ok(())
}

/// What came of a comparison in which no page was elsewhere.
enum Compared {
    /// So many pages are in their place.
    All(u64),
    /// The kernel hides it, for this reason.
    Hidden(Backend),
}

fn compare(
    ram: &GuestRam,
    table: &RamTable,
    page_size: u64,
    pagemap: &Pagemap,
) -> Result<Compared, LayoutError> {
    let hidden = |error| Ok(Compared::Hidden(error));
    // The kernel tells where each of its own pages is, however few bytes are certain to be together.
    let page_size = page_size.max(host_page_size());
    let mut planned = Planned::new(table.pieces());
    let mut pages = 0;
    for region in ram.regions() {
        let mapping = region.mapping();
        // Low memory is not there, and most of it not even used.
        if !planned.has_any(region.gpa()..region.gpa() + mapping.len())? {
            continue;
        }
        // Pinning may have taken pages out of the page tables, and reclaim does. A page that cannot
        // be entered again is found to be absent below.
        if let Err(error) = mapping.populate() {
            log::debug!("memory at {}: {}", region.gpa(), chain(&error));
        }
        let states = pagemap.pages(mapping.start(), mapping.len(), page_size);
        for (number, state) in (0..).zip(states) {
            let state = match state {
                Ok(state) => state,
                Err(error) => return hidden(error),
            };
            let gpa = region.gpa() + number * page_size;
            let Some(hpa) = planned.at(gpa)? else {
                continue;
            };
            match judge(gpa, hpa, state)? {
                Verdict::InPlace => pages += 1,
                Verdict::Hidden => return hidden(Pagemap::hidden()),
            }
        }
    }
    Ok(Compared::All(pages))
}

/// The table's answers for addresses that ascend, from one walk of it.
struct Planned<I> {
    pieces: I,
    current: Option<Piece>,
}

impl<I: Iterator<Item = Result<Piece, TableError>>> Planned<I> {
    fn new(pieces: I) -> Self {
        Self {
            pieces,
            current: None,
        }
    }

    /// Whether the table has any of `range`, which begins at no lower address than was asked for.
    fn has_any(&mut self, range: Range<Gpa>) -> Result<bool, TableError> {
        self.at(range.start)?;
        let is_in = |piece: &Piece| piece.gpa < range.end && range.start < piece.gpa + piece.len;
        Ok(self.current.as_ref().is_some_and(is_in))
    }

    /// Where the table has `gpa`.
    fn at(&mut self, gpa: Gpa) -> Result<Option<Hpa>, TableError> {
        while self
            .current
            .is_none_or(|piece| piece.gpa + piece.len <= gpa)
        {
            match self.pieces.next().transpose()? {
                Some(piece) => self.current = Some(piece),
                None => return Ok(None),
            }
        }
        let reached = self.current.filter(|piece| piece.gpa <= gpa);
        Ok(reached.map(|piece| piece.hpa + (gpa - piece.gpa)))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    InPlace,
    Hidden,
}

fn judge(gpa: Gpa, planned: Hpa, state: PageState) -> Result<Verdict, LayoutError> {
    let found = match state {
        PageState::At(hpa) if hpa == planned => return Ok(Verdict::InPlace),
        PageState::Hidden => return Ok(Verdict::Hidden),
        PageState::At(hpa) => Some(hpa),
        PageState::Absent => None,
    };
    Err(LayoutError::Moved {
        gpa,
        planned,
        found,
    })
}

/// Logs, once in a run, that nothing was compared.
fn missing(why: &str) {
    static TOLD: AtomicBool = AtomicBool::new(false);
    if !TOLD.swap(true, Ordering::Relaxed) {
        log::warn!(
            "Cannot verify that guest memory stays at the addresses that devices use: the kernel \
             hides this process's physical addresses ({why})"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::explain::{ExitCode, Explain};

    fn planned() -> Planned<impl Iterator<Item = Result<Piece, TableError>>> {
        let piece = |gpa, hpa, len| Piece {
            gpa: Gpa(gpa),
            hpa: Hpa(hpa),
            len,
        };
        let pieces = [
            piece(0x10_0000, 0x9000, 0x2000),
            piece(0x10_2000, 0x4000, 0x1000),
            piece(0x20_0000, 0x7000, 0x1000),
        ];
        Planned::new(pieces.into_iter().map(Ok))
    }

    #[test]
    fn a_range_has_a_part_of_the_table_or_none() {
        let mut planned = planned();
        for (start, end, expected) in [
            (0, 0x10_0000, false),
            (0xf_f000, 0x10_1000, true),
            (0x10_1000, 0x10_2000, true),
            (0x10_3000, 0x20_0000, false),
            (0x10_4000, 0x30_0000, true),
            (0x20_1000, 0x30_0000, false),
            (0x30_0000, 0x40_0000, false),
        ] {
            let found = planned.has_any(Gpa(start)..Gpa(end)).unwrap();
            assert_eq!(found, expected, "{start:#x}");
        }
    }

    #[test]
    fn one_walk_answers_for_ascending_addresses() {
        let mut planned = planned();
        for (gpa, hpa) in [
            (0, None),
            (0xf_f000, None),
            (0x10_0000, Some(0x9000)),
            (0x10_1000, Some(0xa000)),
            (0x10_2000, Some(0x4000)),
            (0x10_3000, None),
            (0x20_0000, Some(0x7000)),
            (0x20_1000, None),
            (0x30_0000, None),
        ] {
            assert_eq!(planned.at(Gpa(gpa)).unwrap(), hpa.map(Hpa), "{gpa:#x}");
        }
    }

    #[test]
    fn a_page_elsewhere_or_gone_is_an_error_and_a_hidden_one_is_none() {
        let (gpa, planned) = (Gpa(0x20_0000), Hpa(0x1_4000_0000));
        let judge = |state| judge(gpa, planned, state);
        let in_place = judge(PageState::At(planned));
        assert!(matches!(in_place, Ok(Verdict::InPlace)));
        let hidden = judge(PageState::Hidden);
        assert!(matches!(hidden, Ok(Verdict::Hidden)));
        for (state, elsewhere, text) in [
            (
                PageState::At(Hpa(0x1_4000_1000)),
                Some(Hpa(0x1_4000_1000)),
                "The page of guest memory at GPA 0x200000 was at HPA 0x140000000 and is now at HPA 0x140001000",
            ),
            (
                PageState::Absent,
                None,
                "The page of guest memory at GPA 0x200000 was at HPA 0x140000000 and is no longer present",
            ),
        ] {
            let error = judge(state).unwrap_err();
            assert!(matches!(error, LayoutError::Moved { found, .. } if found == elsewhere));
            assert_eq!(
                (error.to_string().as_str(), error.exit_code()),
                (text, ExitCode::Device)
            );
        }
    }
}
