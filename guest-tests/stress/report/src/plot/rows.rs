// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Things in an address space, drawn along an [`Axis`] in rows: pieces, their names, and the
//! addresses of islands.

use std::ops::Range;

use plotters::prelude::{PathElement, Rectangle, Text as Words};
use plotters::style::{Color, RGBColor, ShapeStyle};

use super::axis::{Axis, CUT, Cell, Piece, Span};
use super::{Area, FAINT, INK, font, pixels};
use crate::units::{hex, memory, short};

/// Pixels left and right of the axis.
pub const MARGIN: f64 = 14.0;
/// Height of a row in pixels.
pub const ROW: i32 = 84;
/// Where pieces are within a row.
const PIECES: Range<i32> = 18..38;
/// A narrow strip below them.
pub const STRIP: Range<i32> = 40..50;
const ADDRESS: i32 = 55;
const LENGTH: i32 = 68;
/// Pixels of a character of a name, at most on average: ASCII, and others.
const NAME_PITCH: (f64, f64) = (6.2, 12.0);

/// Something that lies in the address space.
#[derive(Clone, Debug)]
pub struct Thing {
    /// First address.
    pub start: u64,
    /// Behind the last one.
    pub end: u64,
    /// Its name, drawn above it; may be empty.
    pub name: String,
    /// Its colours.
    pub colours: Colours,
}

/// The colours of a thing.
#[derive(Clone, Copy, Debug)]
pub struct Colours {
    /// Of its area.
    pub fill: RGBColor,
    /// Of its edge and its name.
    pub edge: RGBColor,
}

impl Thing {
    /// `len` bytes from `start`, to the end of the address space at most.
    #[must_use]
    pub fn new(start: u64, len: u64, name: String, colours: Colours) -> Self {
        let end = start.saturating_add(len);
        Self {
            start,
            end,
            name,
            colours,
        }
    }

    /// What it needs of the axis.
    #[must_use]
    pub fn piece(&self) -> Piece {
        Piece::new(self.start, self.end - self.start, !self.name.is_empty())
    }
}

/// Rows of a drawing, from a height on.
pub struct Rows<'a, 'b> {
    area: &'a Area<'b>,
    axis: &'a Axis,
    top: i32,
}

impl std::fmt::Debug for Rows<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows")
            .field("top", &self.top)
            .finish_non_exhaustive()
    }
}

/// Whether drawing went well.
pub type Drawn = Result<(), Box<dyn std::error::Error>>;

impl<'a, 'b> Rows<'a, 'b> {
    /// Rows of `axis` on `area`, the first one `top` pixels down.
    #[must_use]
    pub fn new(area: &'a Area<'b>, axis: &'a Axis, top: i32) -> Self {
        Self { area, axis, top }
    }

    /// Draws `things`, each over the ones before it.
    ///
    /// # Errors
    /// What the area does not take.
    pub fn things(&self, things: &[Thing]) -> Drawn {
        for thing in things {
            for span in self.axis.spans(thing.start, thing.end) {
                self.bar(span, PIECES, thing.colours.fill.filled())?;
                self.bar(span, PIECES, thing.colours.edge.stroke_width(1))?;
            }
        }
        self.names(things)
    }

    /// Names above pieces, each cut before the next one and at the end of its island.
    fn names(&self, things: &[Thing]) -> Drawn {
        let mut named: Vec<_> = things
            .iter()
            .filter(|thing| !thing.name.is_empty())
            .filter_map(|thing| Some((thing, self.axis.spans(thing.start, thing.end).next()?)))
            .collect();
        named.sort_by_key(|(thing, _)| thing.start);
        let next = named.iter().skip(1).map(|(_, place)| Some(*place));
        for ((thing, place), next) in named.iter().zip(next.chain([None])) {
            let island = self.axis.island_end(*place) + CUT / 2.0;
            let end = match next {
                Some(next) if next.row == place.row => island.min(next.left),
                _ => island,
            };
            let name = fitting(&thing.name, end - place.left);
            let at = (x(place.left), self.y(place.row) + 4);
            let style = font("sans-serif", 11.0, thing.colours.edge);
            self.area.draw(&Words::new(name, at, style))?;
        }
        Ok(())
    }

    /// Addresses and lengths of islands, and marks where the axis is cut.
    ///
    /// # Errors
    /// What the area does not take.
    pub fn scale(&self) -> Drawn {
        let mut begin = None;
        for cell in self.axis.cells() {
            if cell.first {
                begin = Some(cell);
            }
            if let Some(first) = begin
                && cell.last
            {
                self.island(first, cell)?;
            }
        }
        Ok(())
    }

    fn island(&self, first: &Cell, last: &Cell) -> Drawn {
        let (left, top) = (x(first.left), self.y(first.row));
        let address = font("monospace", 11.0, INK);
        let length = font("sans-serif", 11.0, FAINT);
        self.area.draw(&Words::new(
            hex(first.start),
            (left, top + ADDRESS),
            address,
        ))?;
        let len = memory(last.end - first.start);
        self.area
            .draw(&Words::new(len, (left, top + LENGTH), length))?;
        let right = x(last.right + CUT / 2.0);
        if self.axis.cells().last() != Some(last) {
            for shift in [-2, 2] {
                let line = vec![
                    (right + shift - 2, top + STRIP.end),
                    (right + shift + 2, top + PIECES.start),
                ];
                self.area
                    .draw(&PathElement::new(line, FAINT.stroke_width(1)))?;
            }
        }
        Ok(())
    }

    /// Fills or frames `span`, between two heights in its row.
    ///
    /// # Errors
    /// What the area does not take.
    pub fn bar(&self, span: Span, heights: Range<i32>, style: impl Into<ShapeStyle>) -> Drawn {
        let (left, right) = (x(span.left), x(span.right).max(x(span.left) + 1));
        let corners = [
            (left, self.y(span.row) + heights.start),
            (right, self.y(span.row) + heights.end),
        ];
        self.area.draw(&Rectangle::new(corners, style))?;
        Ok(())
    }
}

impl Rows<'_, '_> {
    fn y(&self, row: usize) -> i32 {
        let row = i32::try_from(row).unwrap_or(0).saturating_mul(ROW);
        self.top.saturating_add(row)
    }
}

/// As much of `name` as fits into `room` pixels; nothing if that is meaningless.
fn fitting(name: &str, room: f64) -> String {
    let mut width = 0.0;
    let mut fits = |character: char| {
        width += match character.is_ascii() {
            true => NAME_PITCH.0,
            false => NAME_PITCH.1,
        };
        width <= room
    };
    let count = name
        .chars()
        .take_while(|character| fits(*character))
        .count();
    match name.chars().nth(count) {
        None => name.to_owned(),
        Some(_) if count < 4 => String::new(),
        Some(_) => short(name, count - 2),
    }
}

fn x(along: f64) -> i32 {
    pixels(MARGIN + along)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_to_their_room() {
        assert_eq!(fitting("kernel", 38.0), "kernel");
        assert_eq!(fitting("kernel image", 50.0), "kernel…");
        assert_eq!(fitting("äöüäöüäöü", 62.0), "äöü…");
        assert_eq!(fitting("kernel", 20.0), "");
    }
}
