// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! An address axis with the gaps cut out.
//!
//! Memory of a guest without an IOMMU is scattered: a few MiB here, GiB of nothing, a BAR of 4 KiB.
//! So pieces that touch form an *island*, nothing is drawn between islands, and the width of a
//! piece grows with the logarithm of its length. Islands are laid out in rows, like words.

use std::collections::BTreeSet;

/// Most islands; with more, the smallest gaps are drawn instead of cut.
const MAX_ISLANDS: usize = 160;
/// Most cells of an island; with more, it is one cell.
const MAX_CELLS: usize = 24;
/// Pixels between islands.
pub const CUT: f64 = 18.0;
/// Least pixels of an island: an address fits below it.
const MIN_ISLAND: f64 = 98.0;

/// A range of addresses that is to be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Piece {
    /// First address.
    pub start: u64,
    /// Behind the last address.
    pub end: u64,
    /// Whether room for a name is needed.
    pub named: bool,
}

impl Piece {
    /// `len` bytes from `start`, to the end of the address space at most.
    pub fn new(start: u64, len: u64, named: bool) -> Self {
        Self {
            start,
            end: start.saturating_add(len),
            named,
        }
    }
}

/// A part of an island, in which pixels are proportional to addresses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cell {
    /// First address.
    pub start: u64,
    /// Behind the last address.
    pub end: u64,
    /// Row, from 0.
    pub row: usize,
    /// First pixel.
    pub left: f64,
    /// Behind the last pixel.
    pub right: f64,
    /// Whether an island begins here.
    pub first: bool,
    /// Whether an island ends here.
    pub last: bool,
}

/// A range of addresses on paper.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// Row, from 0.
    pub row: usize,
    /// First pixel.
    pub left: f64,
    /// Behind the last pixel.
    pub right: f64,
}

/// Positions of addresses.
#[derive(Debug)]
pub struct Axis {
    cells: Vec<Cell>,
    rows: usize,
}

impl Axis {
    /// An axis of `width` pixels that shows all of `pieces`.
    pub fn new(pieces: &[Piece], width: f64) -> Self {
        let mut pieces: Vec<_> = pieces
            .iter()
            .copied()
            .filter(|piece| piece.start < piece.end)
            .collect();
        pieces.sort_unstable();
        let islands: Vec<_> = islands(&pieces)
            .iter()
            .map(|island| parts(island))
            .collect();
        flow(&islands, width)
    }

    /// The cells, ascending.
    pub fn cells(&self) -> &[Cell] {
        &self.cells
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Behind the last pixel of the island that `span` is in.
    pub fn island_end(&self, span: Span) -> f64 {
        let here = |cell: &&Cell| (cell.row, cell.right) >= (span.row, span.right) && cell.last;
        self.cells
            .iter()
            .find(here)
            .map_or(span.right, |cell| cell.right)
    }

    /// Where the addresses from `start` to `end` are: one span for each cell that they touch.
    pub fn spans(&self, start: u64, end: u64) -> impl Iterator<Item = Span> {
        let from = self.cells.partition_point(|cell| cell.end <= start);
        let cells = self.cells.get(from..).unwrap_or_default();
        cells
            .iter()
            .take_while(move |cell| cell.start < end)
            .map(move |cell| Span {
                row: cell.row,
                left: cell.at(start.max(cell.start)),
                right: cell.at(end.min(cell.end)),
            })
    }
}

impl Cell {
    fn at(&self, address: u64) -> f64 {
        let share = as_f64(address - self.start) / as_f64(self.end - self.start);
        self.left + share * (self.right - self.left)
    }
}

#[expect(clippy::cast_precision_loss, reason = "pixels are coarser")]
fn as_f64(number: u64) -> f64 {
    number as f64
}

/// Groups sorted pieces that touch or nearly do.
fn islands(pieces: &[Piece]) -> Vec<Vec<Piece>> {
    let mut gap = 0;
    loop {
        let mut islands: Vec<Vec<Piece>> = Vec::new();
        let mut end = 0;
        for piece in pieces {
            match islands.last_mut() {
                Some(island) if piece.start.saturating_sub(end) <= gap => island.push(*piece),
                _ => islands.push(vec![*piece]),
            }
            end = end.max(piece.end);
        }
        // A gap of 2^63 joins any two halves of the space at the latest.
        if islands.len() <= MAX_ISLANDS {
            return islands;
        }
        gap = gap.saturating_mul(2).max(4096);
    }
}

/// Part of an island, and its desired width.
struct Part {
    start: u64,
    end: u64,
    width: f64,
}

/// Cuts an island at the borders of its pieces.
fn parts(island: &[Piece]) -> Vec<Part> {
    let mut borders: BTreeSet<u64> = island
        .iter()
        .flat_map(|piece| [piece.start, piece.end])
        .collect();
    if borders.len() > MAX_CELLS
        && let (Some(first), Some(last)) = (borders.pop_first(), borders.pop_last())
    {
        borders = BTreeSet::from([first, last]);
    }
    let starts = borders.iter().copied();
    let ends = borders.iter().copied().skip(1);
    let mut parts: Vec<_> = starts
        .zip(ends)
        .map(|(start, end)| {
            let named = island
                .iter()
                .any(|piece| piece.named && piece.start == start);
            let width = wanted_width(end - start, named);
            Part { start, end, width }
        })
        .collect();
    let sum: f64 = parts.iter().map(|part| part.width).sum();
    let stretch = f64::max(1.0, MIN_ISLAND / sum);
    for part in &mut parts {
        part.width *= stretch;
    }
    parts
}

/// A hugepage of 2 MiB is as wide as its address; more for each doubling.
fn wanted_width(len: u64, named: bool) -> f64 {
    let octaves = (as_f64(len) / 65536.0).log2().max(0.0);
    f64::max(16.0 + 16.5 * octaves, if named { 84.0 } else { 0.0 })
}

/// Puts islands into rows, as wide as the widest row allows.
fn flow(islands: &[Vec<Part>], width: f64) -> Axis {
    let mut axis = Axis {
        cells: Vec::new(),
        rows: 0,
    };
    let mut x = f64::INFINITY;
    for island in islands {
        let wanted: f64 = island.iter().map(|part| part.width).sum();
        let shrink = f64::min(1.0, width / wanted);
        if x + wanted * shrink > width {
            axis.rows += 1;
            x = 0.0;
        }
        let count = island.len();
        for (place, part) in island.iter().enumerate() {
            let right = x + part.width * shrink;
            let (first, last) = (place == 0, place + 1 == count);
            let row = axis.rows - 1;
            axis.cells.push(Cell {
                start: part.start,
                end: part.end,
                row,
                left: x,
                right,
                first,
                last,
            });
            x = right;
        }
        x += CUT;
    }
    let widest = axis.cells.iter().map(|cell| cell.right).fold(1.0, f64::max);
    for cell in &mut axis.cells {
        cell.left *= width / widest;
        cell.right *= width / widest;
    }
    axis
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn scattered(count: u64) -> Vec<Piece> {
        (0..count)
            .map(|i| Piece::new(i * 64 * MIB, 2 * MIB, false))
            .collect()
    }

    #[test]
    fn gaps_take_no_room_and_nothing_overlaps() {
        for count in [1, 2, 30, 150, 5000] {
            let axis = Axis::new(&scattered(count), 1000.0);
            let firsts = axis.cells().iter().filter(|cell| cell.first).count();
            assert!(firsts <= MAX_ISLANDS);
            assert_eq!(count <= 160, firsts as u64 == count);
            for cell in axis.cells() {
                assert!(cell.left >= 0.0 && cell.left < cell.right && cell.right < 1000.1);
            }
            for pair in axis.cells().windows(2) {
                assert!(pair[0].end <= pair[1].start);
                assert!(pair[0].row < pair[1].row || pair[0].right <= pair[1].left);
            }
            assert_eq!(axis.cells().last().unwrap().row + 1, axis.rows());
        }
    }

    #[test]
    fn one_piece_fills_the_row() {
        let axis = Axis::new(&[Piece::new(MIB, MIB, false)], 1000.0);
        let spans: Vec<_> = axis.spans(MIB + MIB / 2, u64::MAX).collect();
        assert_eq!(
            spans,
            [Span {
                row: 0,
                left: 500.0,
                right: 1000.0
            }]
        );
    }

    #[test]
    fn pieces_that_touch_are_cut_at_their_borders_only() {
        let pieces = [
            Piece::new(0, 4 * MIB, false),
            Piece::new(MIB, MIB, true),
            Piece::new(4 * MIB, 4096, false),
            Piece::new(64 * MIB, 0, true),
        ];
        let axis = Axis::new(&pieces, 1000.0);
        let starts: Vec<_> = axis.cells().iter().map(|cell| cell.start).collect();
        assert_eq!(starts, [0, MIB, 2 * MIB, 4 * MIB]);
        assert_eq!(axis.spans(0, 3 * MIB).count(), 3);
        assert_eq!(axis.spans(5 * MIB, 6 * MIB).count(), 0);
        let first = axis.spans(0, 1).next().unwrap();
        assert_eq!(axis.island_end(first), axis.cells()[3].right);
    }

    #[test]
    fn the_ends_of_the_address_space_are_no_harm() {
        let pieces = [
            Piece::new(0, u64::MAX, false),
            Piece::new(u64::MAX, 5, true),
        ];
        let axis = Axis::new(&pieces, 1000.0);
        assert_eq!((axis.rows(), axis.cells().len()), (1, 1));
        assert!(Axis::new(&[], 1000.0).cells().is_empty());
    }
}
