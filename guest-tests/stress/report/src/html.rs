// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A report as a page.

use askama::Template;

use crate::explain::{Explanation, REFUSED_DMA, explain};
use crate::plot;
use crate::report::{Finding, Report};
use crate::units::{counted, grouped, hex, latency, memory, moved, seconds};
use crate::verdict::Verdict;
use crate::write::Error;

/// `report` as one HTML page that needs nothing else.
///
/// # Errors
/// [`Error::Template`], [`Error::Drawing`].
pub fn html(report: &Report) -> Result<String, Error> {
    let page = Page {
        report,
        verdict: report.verdict(),
        figures: figures(report),
        problems: problems(report),
        pieces: pieces(report),
        map: plot::map(report)?,
        throughput: plot::throughput(report)?,
        latency: plot::latency(report)?,
    };
    page.render().map_err(Error::Template)
}

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    report: &'a Report,
    verdict: Verdict,
    figures: Vec<Figure>,
    problems: Vec<Problem<'a>>,
    pieces: String,
    map: Option<String>,
    throughput: Option<String>,
    latency: Option<String>,
}

/// A number with its name.
struct Figure {
    name: &'static str,
    value: String,
    /// Whether it should be 0 and is not.
    bad: bool,
}

/// A kind of error, and where it was seen.
struct Problem<'a> {
    explanation: Explanation,
    count: u64,
    findings: Vec<&'a Finding>,
    refused: bool,
}

fn figures(report: &Report) -> Vec<Figure> {
    let done = report.done().saturating_sub(report.failed_tests);
    let planned = report
        .planned
        .map_or("?".into(), |planned| planned.to_string());
    let mut figures = vec![Figure {
        name: "tests passed",
        value: format!("{done} of {planned}"),
        bad: report.planned != Some(done),
    }];
    let fine = |name, value| Figure {
        name,
        value,
        bad: false,
    };
    if let Some(totals) = &report.totals {
        figures.extend([
            fine("transfers", grouped(totals.transfers)),
            fine("moved", moved(totals.bytes)),
            fine(
                "while under way",
                format!("{}/s", moved(totals.kb_s.saturating_mul(1000))),
            ),
            fine("median latency", latency(report, totals.p50)),
            fine("99 % within", latency(report, totals.p99)),
            fine("longest", latency(report, totals.max)),
        ]);
        let counts = [
            ("wrong data", totals.mismatches),
            ("guard hits", totals.guard_hits),
            ("lost interrupts", totals.lost_interrupts),
        ];
        figures.extend(counts.map(|(name, count)| errors(name, count)));
    }
    figures.push(errors("refused DMA", report.outcome.refusals.count));
    if !report.outcome.mediated.is_empty() {
        figures.push(Figure {
            name: "refused by the monitor",
            value: grouped(report.refused_by_monitor()),
            bad: !report.wrong_mediation().is_empty(),
        });
    }
    figures
}

fn errors(name: &'static str, count: u64) -> Figure {
    Figure {
        name,
        value: grouped(count),
        bad: count > 0,
    }
}

fn problems(report: &Report) -> Vec<Problem<'_>> {
    let found = report.finding_counts.iter().map(|entry| Problem {
        explanation: explain(entry.kind),
        count: entry.count,
        findings: report
            .findings
            .iter()
            .filter(|finding| finding.kind == entry.kind)
            .collect(),
        refused: false,
    });
    let refused = report.outcome.refusals.count;
    let refusals = (refused > 0).then_some(Problem {
        explanation: REFUSED_DMA,
        count: refused,
        findings: Vec::new(),
        refused: true,
    });
    found.chain(refusals).collect()
}

/// How much the table of memory has.
fn pieces(report: &Report) -> String {
    let setup = &report.setup;
    let counts = [
        counted(setup.extents.len() as u64, "extent", "extents"),
        counted(setup.bars.len() as u64, "BAR", "BARs"),
        counted(setup.landmarks.len() as u64, "landmark", "landmarks"),
    ];
    counts.join(", ")
}
