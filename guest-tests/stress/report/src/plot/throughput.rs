// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Throughput over time.

use plotters::prelude::{AreaSeries, ChartBuilder, LineSeries};
use plotters::style::Color;

use super::{Area, BLUE, FAINT, GRID, INK, font, svg};
use crate::report::{Report, Sample};
use crate::write::Error;

const UNITS: [(f64, &str); 4] = [(1e9, "GB/s"), (1e6, "MB/s"), (1e3, "kB/s"), (1.0, "B/s")];

/// The drawing; `None` without a sample.
pub fn throughput(report: &Report) -> Result<Option<String>, Error> {
    let rates = rates(&report.samples);
    let (Some(first), Some(last)) = (rates.first(), rates.last()) else {
        return Ok(None);
    };
    let seconds = first.from..last.to;
    let highest = rates.iter().map(|rate| rate.bytes_s).fold(0.0, f64::max);
    let (unit, name) = UNITS
        .into_iter()
        .find(|(unit, _)| highest >= *unit)
        .unwrap_or((1.0, "B/s"));
    let steps: Vec<_> = rates
        .iter()
        .flat_map(|rate| [rate.from, rate.to].map(|second| (second, rate.bytes_s / unit)))
        .collect();
    let top = f64::max(highest / unit * 1.1, 1.0);
    svg("the throughput", 260, |area| {
        draw(area, seconds, top, name, &steps)
    })
    .map(Some)
}

/// Between two moments, in seconds.
struct Rate {
    from: f64,
    to: f64,
    bytes_s: f64,
}

/// One for each sample that is later than those before it. Counting begins at 0.
#[expect(clippy::cast_precision_loss, reason = "pixels are coarser")]
fn rates(samples: &[Sample]) -> Vec<Rate> {
    let mut rates = Vec::new();
    let (mut ms, mut bytes) = (0, 0);
    for sample in samples {
        if sample.ms <= ms {
            continue;
        }
        rates.push(Rate {
            from: ms as f64 / 1e3,
            to: sample.ms as f64 / 1e3,
            bytes_s: sample.bytes.saturating_sub(bytes) as f64 / (sample.ms - ms) as f64 * 1e3,
        });
        (ms, bytes) = (sample.ms, sample.bytes);
    }
    rates
}

fn draw(
    area: &Area<'_>,
    seconds: std::ops::Range<f64>,
    top: f64,
    unit: &str,
    steps: &[(f64, f64)],
) -> Result<(), Box<dyn std::error::Error>> {
    let digits = if seconds.end - seconds.start < 5.0 {
        1
    } else {
        0
    };
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(70)
        .build_cartesian_2d(seconds, 0.0..top)?;
    chart
        .configure_mesh()
        .x_desc("seconds since the guest's start")
        .y_desc(unit)
        .x_label_formatter(&|second| format!("{second:.digits$}"))
        .y_label_formatter(&|rate| match top {
            ..5.0 => format!("{rate:.1}"),
            _ => format!("{rate:.0}"),
        })
        .y_labels(6)
        .axis_style(FAINT)
        .bold_line_style(GRID)
        .light_line_style(plotters::style::TRANSPARENT)
        .label_style(font("sans-serif", 12.0, INK))
        .draw()?;
    chart.draw_series(AreaSeries::new(steps.iter().copied(), 0.0, BLUE.mix(0.15)))?;
    chart.draw_series(LineSeries::new(steps.iter().copied(), BLUE.stroke_width(2)))?;
    Ok(())
}
