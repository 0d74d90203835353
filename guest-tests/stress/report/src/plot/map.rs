// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The map of physical memory: RAM, device memory, and where DMA landed.

use plotters::style::{Color, RGBColor};

use super::axis::{Axis, Piece};
use super::rows::{Colours, Drawn, MARGIN, ROW, Rows, STRIP, Thing};
use super::{RED, WIDTH, svg};
use crate::report::Report;
use crate::setup::Extent;
use crate::units::hex;
use crate::write::Error;

const RAM: Colours = Colours {
    fill: RGBColor(0xbf, 0xd7, 0xf5),
    edge: RGBColor(0x5b, 0x8d, 0xd0),
};
const BAR: Colours = Colours {
    fill: RGBColor(0xfb, 0xc9, 0x8a),
    edge: RGBColor(0xc9, 0x7a, 0x1a),
};
const MARK: Colours = Colours {
    fill: RGBColor(0xd9, 0xc6, 0xec),
    edge: RGBColor(0x86, 0x5f, 0xb0),
};
const WRONG: Colours = Colours {
    fill: RGBColor(0xf7, 0xc4, 0xc4),
    edge: RED,
};
const HEAT: RGBColor = RGBColor(0x0b, 0x7a, 0x4b);

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
        let rows = Rows::new(area, &axis, 0);
        rows.things(&things)?;
        landed(&rows, &axis, report)?;
        rows.scale()
    })
    .map(Some)
}

/// In the order in which they cover each other.
fn things(report: &Report) -> Vec<Thing> {
    let setup = &report.setup;
    let identity = report.wants_identity();
    let mut things = Vec::new();
    things.extend(setup.extents.iter().map(|extent| ram(extent, identity)));
    if setup.extents.is_empty() {
        let told = report.ram.iter();
        things.extend(told.map(|ram| Thing::new(ram.gpa.0, ram.len, String::new(), RAM)));
    }
    things.extend(
        setup
            .bars
            .iter()
            .map(|bar| Thing::new(bar.gpa.0, bar.len, bar.name.to_string(), BAR)),
    );
    things.extend(
        setup
            .landmarks
            .iter()
            .map(|mark| Thing::new(mark.gpa.0, mark.len, mark.name.to_string(), MARK)),
    );
    things
}

fn ram(extent: &Extent, identity: bool) -> Thing {
    let wrong = identity && !extent.is_identity();
    let (name, colours) = match wrong {
        true => (format!("is {}", hex(extent.hpa.0)), WRONG),
        false => (String::new(), RAM),
    };
    Thing::new(extent.gpa.0, extent.len, name, colours)
}

fn landed(rows: &Rows<'_, '_>, axis: &Axis, report: &Report) -> Drawn {
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
        for span in axis.spans(landed.gpa.0, landed.end()) {
            rows.bar(span, STRIP, colour.filled())?;
        }
    }
    Ok(())
}

/// How dark `bytes` are, where `most` is the darkest.
#[expect(clippy::cast_precision_loss, reason = "a colour is coarser")]
fn heat(bytes: u64, most: u64) -> f64 {
    0.25 + 0.75 * (bytes as f64 + 1.0).log2() / (most as f64 + 2.0).log2()
}
