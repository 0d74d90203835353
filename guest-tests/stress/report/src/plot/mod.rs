// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Drawings for the page, as SVG elements for HTML, and what others draw with.

pub mod axis;
mod latency;
mod map;
pub mod rows;
mod throughput;

use std::fmt::Display;

use plotters::coord::Shift;
use plotters::prelude::{
    DrawingArea, IntoDrawingArea, IntoFont, RGBColor, SVGBackend, TextStyle, WHITE,
};
use plotters::style::Color;

pub(crate) use latency::latency;
pub(crate) use map::map;
pub(crate) use throughput::throughput;

use crate::write::Error;

/// Width of every drawing in pixels.
pub const WIDTH: u32 = 1100;

/// Colour of text.
pub const INK: RGBColor = RGBColor(0x33, 0x3d, 0x4b);
/// Colour of what is less important.
pub const FAINT: RGBColor = RGBColor(0x8a, 0x94, 0xa3);
const GRID: RGBColor = RGBColor(0xe6, 0xe9, 0xee);
const BLUE: RGBColor = RGBColor(0x2f, 0x6f, 0xd0);
const RED: RGBColor = RGBColor(0xc6, 0x28, 0x28);

/// What is drawn on.
pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws `what` on a white area of `height` pixels; `draw` may fail with anything.
///
/// # Errors
/// [`Error::Drawing`], with `what` and why.
pub fn svg<E: Display>(
    what: &'static str,
    height: u32,
    draw: impl FnOnce(&Area<'_>) -> Result<(), E>,
) -> Result<String, Error> {
    let failed = |why: &dyn Display| Error::Drawing {
        what,
        why: why.to_string(),
    };
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, (WIDTH, height)).into_drawing_area();
        area.fill(&WHITE).map_err(|error| failed(&error))?;
        draw(&area).map_err(|error| failed(&error))?;
        area.present().map_err(|error| failed(&error))?;
    }
    Ok(text)
}

/// Upright text of `pixels` height.
#[must_use]
pub fn font(family: &'static str, pixels: f64, colour: RGBColor) -> TextStyle<'static> {
    // The SVG backend divides sizes by 1.24.
    (family, pixels * 1.24).into_font().color(&colour.to_rgba())
}

/// The nearest whole pixel.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a cast from f64 saturates, and no drawing is that large"
)]
#[must_use]
pub fn pixels(pixels: f64) -> i32 {
    pixels.round() as i32
}
