//! What a guest's memory is made of, and how large a table of it is.

use address::{Gpa, Hpa};
use amdv1::level::OUTPUT_BITS;
use amdv1::{Level, PageSize, Run};
use thiserror::Error;

const PAGE: u64 = PageSize::MIN.bytes();
/// Both kinds of address end here, as in the format's entries.
const END: u64 = 1 << OUTPUT_BITS;

/// `len` bytes of guest memory at `gpa` that lie in one piece at `hpa`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Piece {
    /// First guest-physical address.
    pub gpa: Gpa,
    /// Where that is in the host.
    pub hpa: Hpa,
    /// Bytes.
    pub len: u64,
}

impl Piece {
    /// Page sizes of the largest leaves that can map this, in order, each with its address.
    fn leaves(self) -> impl Iterator<Item = (Gpa, PageSize)> {
        let mut done = 0;
        std::iter::from_fn(move || {
            let gpa = self.gpa + done;
            let size = PageSize::best(gpa.0, self.hpa.0 + done, self.len - done)?;
            done += size.bytes();
            Some((gpa, size))
        })
    }
}

/// A piece that cannot be guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MemoryError {
    /// It is empty, or not made of pages.
    #[error("{len:#x} bytes of guest memory at {gpa}, HPA {hpa}, are not whole pages of 4 KiB")]
    Pages {
        /// First guest-physical address.
        gpa: Gpa,
        /// Where that is.
        hpa: Hpa,
        /// Bytes.
        len: u64,
    },
    /// An end is not an address that a table entry can hold.
    #[error("{len:#x} bytes of guest memory at {gpa}, HPA {hpa}, do not end by 2^52")]
    Range {
        /// First guest-physical address.
        gpa: Gpa,
        /// Where that is.
        hpa: Hpa,
        /// Bytes.
        len: u64,
    },
    /// Two pieces share guest-physical addresses.
    #[error("two pieces of guest memory share GPA {gpa}")]
    Overlap {
        /// First address shared.
        gpa: Gpa,
    },
}

/// A guest's memory, in the order of guest-physical addresses, in the longest pieces there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuestMemory(Vec<Piece>);

impl GuestMemory {
    /// Memory of these pieces, in any order.
    ///
    /// What is in here is what the guest is told: give it the RAM that devices may be pointed
    /// at, and nothing else.
    ///
    /// # Errors
    ///
    /// [`MemoryError`] for the first piece that cannot be.
    pub fn new(pieces: impl IntoIterator<Item = Piece>) -> Result<Self, MemoryError> {
        let mut all: Vec<_> = pieces.into_iter().collect();
        all.sort_unstable_by_key(|piece| piece.gpa);
        let mut merged: Vec<Piece> = Vec::new();
        for piece in all {
            check(piece)?;
            let Some(last) = merged.last_mut() else {
                merged.push(piece);
                continue;
            };
            let end = last.gpa + last.len;
            if piece.gpa < end {
                return Err(MemoryError::Overlap { gpa: piece.gpa });
            }
            if piece.gpa == end && piece.hpa == last.hpa + last.len {
                last.len += piece.len;
            } else {
                merged.push(piece);
            }
        }
        Ok(Self(merged))
    }

    /// The pieces, ascending; neighbours are not contiguous in both spaces.
    #[must_use]
    pub fn pieces(&self) -> &[Piece] {
        &self.0
    }

    /// Where `gpa` lies and how many of the `len` bytes from there on are contiguous in the host
    /// and the guest's; `None` if `gpa` is not the guest's memory or `len` is 0.
    #[must_use]
    pub fn translate(&self, gpa: Gpa, len: u64) -> Option<Run> {
        let next = self.0.partition_point(|piece| piece.gpa <= gpa);
        let piece = self.0.get(next.checked_sub(1)?)?;
        let offset = gpa - piece.gpa;
        let left = piece.len.checked_sub(offset).filter(|left| *left > 0)?;
        (len > 0).then(|| Run {
            hpa: piece.hpa + offset,
            len: len.min(left),
        })
    }

    /// Whether any of the `len` bytes at `gpa` are memory. A range past the end of 64 bits ends
    /// there.
    #[must_use]
    pub fn touches(&self, gpa: Gpa, len: u64) -> bool {
        let end = gpa.0.saturating_add(len);
        let next = self.0.partition_point(|piece| piece.gpa.0 < end);
        let last = next.checked_sub(1).and_then(|index| self.0.get(index));
        len > 0 && last.is_some_and(|piece| piece.gpa + piece.len > gpa)
    }

    /// Tables of 4 KiB that hold all of it with the largest entries that its alignment permits.
    #[must_use]
    pub fn table_pages(&self) -> usize {
        let top = self.top();
        // The first table on each level from the start level up is there whatever is mapped; a
        // tree begins as one such table, and grows by putting the next on top of the last.
        let start = usize::from(Level::START.number());
        let mut count = usize::from(top.number()) - start + 1;
        let mut seen = [None; LEVELS];
        seen[start..].fill(Some(0));
        for (gpa, size) in self.0.iter().flat_map(|piece| piece.leaves()) {
            let below = |level: &Level| *level >= size.level() && *level <= top;
            for level in (0..).map_while(Level::new).filter(below) {
                let table = gpa.0 >> level.item_lg2() >> 9;
                let last = seen[usize::from(level.number())].replace(table);
                count += usize::from(last != Some(table));
            }
        }
        count
    }

    /// Bytes of a BAR that has room for the table.
    #[must_use]
    pub fn bar_size(&self) -> u64 {
        bar_size(self.table_pages())
    }

    /// Level of the topmost table.
    fn top(&self) -> Level {
        let last = self
            .0
            .last()
            .map_or(0, |piece| (piece.gpa + piece.len).0 - 1);
        let reaches = |level: &Level| level.last_offset() >= last;
        let largest = self.0.iter().filter_map(|piece| piece.leaves().next());
        let lowest = largest.map(|(_, size)| size.level()).max();
        let lowest = lowest.unwrap_or(Level::START).max(Level::START);
        (lowest.number()..)
            .map_while(Level::new)
            .find(reaches)
            .unwrap_or(Level::TOP)
    }
}

/// Levels that there can be.
const LEVELS: usize = Level::TOP.number() as usize + 1;

/// Bytes of a BAR for so many tables.
pub(super) fn bar_size(pages: usize) -> u64 {
    (pages as u64).max(1).next_power_of_two() * PAGE
}

fn check(piece: Piece) -> Result<(), MemoryError> {
    let Piece { gpa, hpa, len } = piece;
    if len == 0 || !(gpa.0 | hpa.0 | len).is_multiple_of(PAGE) {
        return Err(MemoryError::Pages { gpa, hpa, len });
    }
    let ends = |start: u64| start.checked_add(len).is_some_and(|end| end <= END);
    if !ends(gpa.0) || !ends(hpa.0) {
        return Err(MemoryError::Range { gpa, hpa, len });
    }
    Ok(())
}
