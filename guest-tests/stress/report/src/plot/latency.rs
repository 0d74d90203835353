// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The histogram of latencies.

use std::ops::Range;

use plotters::chart::DualCoordChartContext;
use plotters::coord::combinators::{IntoLogRange, LogCoord};
use plotters::prelude::{Cartesian2d, ChartBuilder, PathElement, Rectangle, SVGBackend, Text};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, TRANSPARENT};

use super::{Area, BLUE, FAINT, GRID, INK, RED, font, svg};
use crate::report::{Latency, Report, Totals};
use crate::units::micros;
use crate::write::Error;

/// The drawing; `None` without bars.
pub fn latency(report: &Report) -> Result<Option<String>, Error> {
    let mut bars: Vec<_> = report.latency.iter().filter(|bar| bar.count > 0).collect();
    bars.sort_by_key(|bar| bar.from);
    let next = bars.iter().skip(1).map(|bar| Some(bar.from)).chain([None]);
    let bars: Vec<_> = bars
        .iter()
        .zip(next)
        .map(|(bar, next)| Bar::new(bar, next))
        .collect();
    let (Some(first), Some(last)) = (bars.first(), bars.last()) else {
        return Ok(None);
    };
    let scale = Scale {
        ticks: first.ticks.start / 1.5..last.ticks.end * 1.5,
        highest: bars.iter().map(|bar| bar.count).fold(1.0, f64::max),
        ticks_per_us: report.ticks_per_us(),
    };
    let draw = |area: &Area<'_>| scale.draw(area, &bars, report.totals.as_ref());
    svg("the latencies", 320, draw).map(Some)
}

struct Bar {
    ticks: Range<f64>,
    count: f64,
}

#[expect(clippy::cast_precision_loss, reason = "pixels are coarser")]
impl Bar {
    /// Guests leave empty bars out, so the next one's begin may be far off: a bar is at most a
    /// quarter of its power of two wide.
    fn new(bar: &Latency, next: Option<u64>) -> Self {
        let from = bar.from.max(1);
        let quarter = (1_u64 << from.ilog2() >> 2).max(1);
        let end = from.saturating_add(quarter).min(next.unwrap_or(u64::MAX));
        Self {
            ticks: from as f64..end.max(from.saturating_add(1)) as f64,
            count: bar.count as f64,
        }
    }
}

struct Scale {
    ticks: Range<f64>,
    highest: f64,
    ticks_per_us: Option<f64>,
}

/// Where bars of no count would end: below one transfer on a logarithmic axis.
const FLOOR: f64 = 0.7;

type Plane = Cartesian2d<LogCoord<f64>, LogCoord<f64>>;
type Chart<'a, 'b> = DualCoordChartContext<'a, SVGBackend<'b>, Plane, Plane>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

impl Scale {
    fn draw(&self, area: &Area<'_>, bars: &[Bar], totals: Option<&Totals>) -> Drawn {
        let top = self.top();
        let per_us = self.ticks_per_us.unwrap_or(1.0);
        let us = self.ticks.start / per_us..self.ticks.end / per_us;
        let mut chart = ChartBuilder::on(area)
            .margin(10)
            .x_label_area_size(40)
            .top_x_label_area_size(if self.ticks_per_us.is_some() { 34 } else { 0 })
            .y_label_area_size(70)
            .build_cartesian_2d(self.ticks.clone().log_scale(), (FLOOR..top).log_scale())?
            .set_secondary_coord(us.log_scale(), (FLOOR..top).log_scale());
        self.axes(&mut chart)?;
        chart.draw_series(bars.iter().map(|bar| {
            let corners = [(bar.ticks.start, FLOOR), (bar.ticks.end, bar.count)];
            Rectangle::new(corners, BLUE.mix(0.75).filled())
        }))?;
        for (place, (name, ticks)) in (0_u8..).zip(marks(totals)) {
            self.mark(&mut chart, place, name, ticks)?;
        }
        Ok(())
    }

    fn top(&self) -> f64 {
        self.highest * 4.0
    }

    fn axes(&self, chart: &mut Chart<'_, '_>) -> Drawn {
        chart
            .configure_mesh()
            .x_desc("latency in TSC ticks")
            .y_desc("transfers")
            .x_label_formatter(&|ticks| compact(*ticks))
            .y_label_formatter(&|count| compact(*count))
            .x_labels(12)
            .y_labels(5)
            .axis_style(FAINT)
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .label_style(font("sans-serif", 12.0, INK))
            .draw()?;
        if self.ticks_per_us.is_some() {
            chart
                .configure_secondary_axes()
                .x_label_formatter(&|us| micros(*us))
                .x_labels(12)
                .y_labels(0)
                .axis_style(FAINT)
                .label_style(font("sans-serif", 12.0, INK))
                .draw()?;
        }
        Ok(())
    }

    /// A line at `ticks` with its name, on a separate line so that close ones do not overlap.
    fn mark(&self, chart: &mut Chart<'_, '_>, place: u8, name: &str, ticks: f64) -> Drawn {
        if !self.ticks.contains(&ticks) {
            return Ok(());
        }
        // The longest latency is where the drawing ends: its name precedes it.
        let (side, words) = match name {
            "longest" => (HPos::Right, format!("{name}\u{a0}")),
            _ => (HPos::Left, format!("\u{a0}{name}")),
        };
        let share = 0.97 - 0.075 * f64::from(place);
        let height = FLOOR * (self.top() / FLOOR).powf(share);
        let line = vec![(ticks, FLOOR), (ticks, self.top())];
        chart.draw_series([PathElement::new(line, RED.mix(0.8).stroke_width(1))])?;
        let style = font("sans-serif", 12.0, RED).pos(Pos::new(side, VPos::Top));
        chart.draw_series([Text::new(words, (ticks, height), style)])?;
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "pixels are coarser")]
fn marks(totals: Option<&Totals>) -> Vec<(&'static str, f64)> {
    totals.map_or(Vec::new(), |totals| {
        vec![
            ("median", totals.p50 as f64),
            ("99 %", totals.p99 as f64),
            ("longest", totals.max as f64),
        ]
    })
}

/// `4k`, `1.5M`
fn compact(number: f64) -> String {
    let (scaled, unit) = match number {
        ..1e3 => (number, ""),
        ..1e6 => (number / 1e3, "k"),
        ..1e9 => (number / 1e6, "M"),
        _ => (number / 1e9, "G"),
    };
    let rounded = (scaled * 10.0).round() / 10.0;
    format!("{rounded}{unit}")
}
