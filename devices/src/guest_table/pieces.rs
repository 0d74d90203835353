// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The pieces of a guest's memory, before the table is built.

use address::{Gpa, Hpa};
use amdv1::level::OUTPUT_BITS;
use amdv1::{Level, PageSize};

use super::TableError;

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

/// What a [`GuestTable`](super::GuestTable) is to be filled with: memory in the order of
/// guest-physical addresses, in the longest pieces there are. The table answers questions about it,
/// so it is dropped once that is filled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pieces(Vec<Piece>);

impl Pieces {
    /// These pieces, in any order.
    ///
    /// What is in here is what devices may be pointed at, and what a guest with a DMA window is
    /// shown: give it the RAM that is for DMA, and nothing else.
    ///
    /// # Errors
    ///
    /// [`TableError`] for the first piece that cannot be.
    pub fn new(pieces: impl IntoIterator<Item = Piece>) -> Result<Self, TableError> {
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
                return Err(TableError::Overlap { gpa: piece.gpa });
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
    pub fn as_slice(&self) -> &[Piece] {
        &self.0
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

fn check(piece: Piece) -> Result<(), TableError> {
    let Piece { gpa, hpa, len } = piece;
    if len == 0 || !(gpa.0 | hpa.0 | len).is_multiple_of(PAGE) {
        return Err(TableError::Pages { gpa, hpa, len });
    }
    let ends = |start: u64| start.checked_add(len).is_some_and(|end| end <= END);
    if !ends(gpa.0) || !ends(hpa.0) {
        return Err(TableError::Range { gpa, hpa, len });
    }
    Ok(())
}
