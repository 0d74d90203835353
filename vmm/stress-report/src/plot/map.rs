//! The map of physical memory: RAM, device memory, and where DMA landed.

use plotters::prelude::{PathElement, Rectangle, Text as Words};
use plotters::style::{Color, RGBColor, ShapeStyle};

use super::axis::{Axis, CUT, Cell, Piece, Span};
use super::{Area, FAINT, INK, RED, WIDTH, font, svg};
use crate::report::Report;
use crate::setup::Extent;
use crate::units::{hex, memory, short};
use crate::write::Error;

const RAM: RGBColor = RGBColor(0xbf, 0xd7, 0xf5);
const RAM_EDGE: RGBColor = RGBColor(0x5b, 0x8d, 0xd0);
const BAR: RGBColor = RGBColor(0xfb, 0xc9, 0x8a);
const BAR_EDGE: RGBColor = RGBColor(0xc9, 0x7a, 0x1a);
const MARK: RGBColor = RGBColor(0xd9, 0xc6, 0xec);
const MARK_EDGE: RGBColor = RGBColor(0x86, 0x5f, 0xb0);
const WRONG: RGBColor = RGBColor(0xf7, 0xc4, 0xc4);
const HEAT: RGBColor = RGBColor(0x0b, 0x7a, 0x4b);

/// Pixels left and right of the axis.
const MARGIN: f64 = 14.0;
/// Heights within a row: names, pieces, DMA, addresses.
const ROW: i32 = 84;
const PIECES: (i32, i32) = (18, 38);
const DMA: (i32, i32) = (40, 50);
const ADDRESS: i32 = 55;
const LENGTH: i32 = 68;
/// Pixels of a character of a name, at most on average: ASCII, and others.
const NAME_PITCH: (f64, f64) = (6.2, 12.0);
/// Most places outside of memory that get onto the map.
const MAX_STRAY: usize = 16;

/// The drawing; `None` where nothing is known of memory.
pub fn map(report: &Report) -> Result<Option<String>, Error> {
    let things = things(report);
    if things.is_empty() {
        return Ok(None);
    }
    let stray = report
        .landed
        .iter()
        .filter(|landed| report.is_stray(landed))
        .take(MAX_STRAY);
    let mut pieces: Vec<_> = stray
        .map(|landed| Piece::new(landed.gpa.0, landed.len, false))
        .collect();
    pieces.extend(things.iter().map(Thing::piece));
    let axis = Axis::new(&pieces, f64::from(WIDTH) - 2.0 * MARGIN);
    let height = u32::try_from(axis.rows()).unwrap_or(1) * ROW.unsigned_abs();
    svg("the map", height.max(1), |area| {
        let drawing = Drawing { area, axis: &axis };
        drawing.things(&things)?;
        drawing.landed(report)?;
        drawing.scale()
    })
    .map(Some)
}

/// Something that lies in memory.
struct Thing {
    start: u64,
    end: u64,
    name: String,
    fill: RGBColor,
    edge: RGBColor,
}

impl Thing {
    fn new(start: u64, len: u64, name: String, (fill, edge): (RGBColor, RGBColor)) -> Self {
        let end = start.saturating_add(len);
        Self {
            start,
            end,
            name,
            fill,
            edge,
        }
    }

    fn piece(&self) -> Piece {
        Piece::new(self.start, self.end - self.start, !self.name.is_empty())
    }
}

/// In the order in which they cover each other.
fn things(report: &Report) -> Vec<Thing> {
    let setup = &report.setup;
    let identity = report.wants_identity();
    let mut things = Vec::new();
    things.extend(setup.extents.iter().map(|extent| ram(extent, identity)));
    if setup.extents.is_empty() {
        let told = report.ram.iter();
        things
            .extend(told.map(|ram| Thing::new(ram.gpa.0, ram.len, String::new(), (RAM, RAM_EDGE))));
    }
    things.extend(
        setup
            .bars
            .iter()
            .map(|bar| Thing::new(bar.gpa.0, bar.len, bar.name.to_string(), (BAR, BAR_EDGE))),
    );
    things.extend(setup.landmarks.iter().map(|mark| {
        Thing::new(
            mark.gpa.0,
            mark.len,
            mark.name.to_string(),
            (MARK, MARK_EDGE),
        )
    }));
    things
}

fn ram(extent: &Extent, identity: bool) -> Thing {
    let wrong = identity && !extent.is_identity();
    let (name, colours) = match wrong {
        true => (format!("is {}", hex(extent.hpa.0)), (WRONG, RED)),
        false => (String::new(), (RAM, RAM_EDGE)),
    };
    Thing::new(extent.gpa.0, extent.len, name, colours)
}

struct Drawing<'a, 'b> {
    area: &'a Area<'b>,
    axis: &'a Axis,
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

impl Drawing<'_, '_> {
    fn things(&self, things: &[Thing]) -> Drawn {
        for thing in things {
            for span in self.axis.spans(thing.start, thing.end) {
                self.bar(span, PIECES, thing.fill.filled())?;
                self.bar(span, PIECES, thing.edge.stroke_width(1))?;
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
            let at = (x(place.left), y(place.row) + 4);
            let style = font("sans-serif", 11.0, thing.edge);
            self.area.draw(&Words::new(name, at, style))?;
        }
        Ok(())
    }

    fn landed(&self, report: &Report) -> Drawn {
        let most = report
            .landed
            .iter()
            .map(|landed| landed.bytes)
            .max()
            .unwrap_or(0);
        for landed in report.landed.iter().filter(|landed| landed.bytes > 0) {
            let colour = match report.is_stray(landed) {
                true => RED.mix(1.0),
                false => HEAT.mix(heat(landed.bytes, most)),
            };
            for span in self.axis.spans(landed.gpa.0, landed.end()) {
                self.bar(span, DMA, colour.filled())?;
            }
        }
        Ok(())
    }

    /// Addresses and lengths of islands, and marks where the axis is cut.
    fn scale(&self) -> Drawn {
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
        let (left, top) = (x(first.left), y(first.row));
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
                    (right + shift - 2, top + DMA.1),
                    (right + shift + 2, top + PIECES.0),
                ];
                self.area
                    .draw(&PathElement::new(line, FAINT.stroke_width(1)))?;
            }
        }
        Ok(())
    }

    fn bar(&self, span: Span, (top, bottom): (i32, i32), style: impl Into<ShapeStyle>) -> Drawn {
        let (left, right) = (x(span.left), x(span.right).max(x(span.left) + 1));
        let corners = [(left, y(span.row) + top), (right, y(span.row) + bottom)];
        self.area.draw(&Rectangle::new(corners, style))?;
        Ok(())
    }
}

/// As much of `name` as fits into `room` pixels; nothing where that says nothing.
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

/// How dark `bytes` are, where `most` is the darkest.
#[expect(clippy::cast_precision_loss, reason = "a colour is coarser")]
fn heat(bytes: u64, most: u64) -> f64 {
    0.25 + 0.75 * (bytes as f64 + 1.0).log2() / (most as f64 + 2.0).log2()
}

fn x(along: f64) -> i32 {
    pixels(MARGIN + along)
}

fn y(row: usize) -> i32 {
    i32::try_from(row).unwrap_or(0).saturating_mul(ROW)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a cast from f64 saturates, and no drawing is that large"
)]
fn pixels(pixels: f64) -> i32 {
    pixels.round() as i32
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
