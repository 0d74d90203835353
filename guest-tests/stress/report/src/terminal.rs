// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A report for the terminal.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};

use crate::explain::{Explanation, REFUSED_DMA, explain};
use crate::report::Report;
use crate::setup::Extent;
use crate::units::{counted, grouped, hex, latency, memory, moved, short};
use crate::verdict::Verdict;

/// What the terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terminal {
    /// Columns; fewer than 40 are taken for 40.
    pub width: usize,
    /// Whether it has colours.
    pub colour: bool,
}

impl Default for Terminal {
    /// 80 columns without colours.
    fn default() -> Self {
        Self {
            width: 80,
            colour: false,
        }
    }
}

/// Width of the column of headings.
const HEADING: usize = 12;
/// Most characters of the guest's own words in one place.
const WORDS: usize = 160;
/// Most entries of a list that is only an excerpt.
const EXCERPT: usize = 4;

/// `report` in about a screen: what ran, where memory lay, what was moved, what was wrong and
/// what that means, and the verdict.
#[must_use]
pub fn text(report: &Report, terminal: Terminal) -> String {
    let mut page = Page {
        text: String::new(),
        width: terminal.width.max(40),
        colour: terminal.colour,
    };
    page.what_ran(report);
    page.layout(report);
    page.transfers(report);
    page.mediated(report);
    page.tests(report);
    page.findings(report);
    for note in report.notes() {
        page.entry("Note", &note.to_string());
    }
    page.verdict(&report.verdict());
    page.text
}

struct Page {
    text: String,
    width: usize,
    colour: bool,
}

impl Page {
    fn line(&mut self, style: Style, line: &str) {
        // Writing to a string does not fail.
        let _ = match self.colour && style != Style::new() {
            true => writeln!(self.text, "{style}{line}{style:#}"),
            false => writeln!(self.text, "{line}"),
        };
    }

    /// A heading and its text, wrapped behind it. An empty heading continues the one above.
    fn entry(&mut self, heading: &str, text: &str) {
        self.styled(Style::new(), heading, text);
    }

    fn styled(&mut self, style: Style, heading: &str, text: &str) {
        let first = format!("{heading:<HEADING$}");
        let indent = " ".repeat(HEADING);
        let options = textwrap::Options::new(self.width)
            .initial_indent(&first)
            .subsequent_indent(&indent);
        for line in textwrap::wrap(text, options) {
            self.line(style, &line);
        }
    }

    fn what_ran(&mut self, report: &Report) {
        let setup = &report.setup;
        let mut parts = Vec::new();
        if let Some(start) = &report.start {
            parts.push(short(&start.program, WORDS));
            parts.push(format!("seed {}", start.seed));
            parts.push(counted(start.cpus, "vCPU", "vCPUs"));
            parts.push(format!("{} mode", start.mode));
        }
        if !setup.backend.is_empty() {
            parts.push(format!("{} backend", short(&setup.backend, WORDS)));
        }
        self.entry("Stress", &parts.join(", "));
        for (engine, heading) in report
            .engines
            .iter()
            .zip(headings("Engines"))
            .take(EXCERPT * 2)
        {
            let (name, bdf) = (short(&engine.name, WORDS), short(&engine.bdf, WORDS));
            let text = format!("{}: {name} at {bdf}, {}", engine.id, engine.interrupt);
            self.entry(heading, &text);
        }
        self.more(report.engines.len().saturating_sub(EXCERPT * 2));
    }

    fn more(&mut self, count: usize) {
        if count > 0 {
            self.entry("", &format!("and {count} more"));
        }
    }

    fn layout(&mut self, report: &Report) {
        let setup = &report.setup;
        let mut extents = setup.extents.clone();
        if !extents.is_empty() {
            let sum = extents
                .iter()
                .fold(0_u64, |sum, extent| sum.saturating_add(extent.len));
            let count = extents.len();
            self.entry(
                "RAM for DMA",
                &format!(
                    "{} in {}",
                    memory(sum),
                    counted(count as u64, "extent", "extents")
                ),
            );
            extents.sort_by_key(|extent| (extent.is_identity(), std::cmp::Reverse(extent.len)));
            for extent in extents.iter().take(EXCERPT) {
                self.entry("", &extent_in_words(extent));
            }
            self.more(count.saturating_sub(EXCERPT));
        }
        for (bar, heading) in setup.bars.iter().zip(headings("BARs")).take(EXCERPT) {
            let name = short(&bar.name, WORDS);
            let text = format!("{name}: {} at {}", memory(bar.len), hex(bar.gpa.0));
            self.entry(heading, &text);
        }
        self.more(setup.bars.len().saturating_sub(EXCERPT));
    }

    fn transfers(&mut self, report: &Report) {
        let Some(totals) = &report.totals else {
            return;
        };
        let (transfers, bytes) = (grouped(totals.transfers), moved(totals.bytes));
        let rate = moved(totals.kb_s.saturating_mul(1000));
        self.entry("Transfers", &format!("{transfers}, {bytes}, {rate}/s"));
        let [p50, p99, max] = [totals.p50, totals.p99, totals.max].map(|t| latency(report, t));
        let text = format!("median {p50}, 99 % within {p99}, longest {max}");
        self.entry("Latency", &text);
    }

    fn mediated(&mut self, report: &Report) {
        let devices = &report.outcome.mediated;
        for (device, heading) in devices.iter().zip(headings("Mediated")).take(EXCERPT) {
            let name = short(&device.device, WORDS);
            self.entry(heading, &format!("{name}: {}", device.counts()));
            if !device.reasons.is_empty() {
                self.entry("", &format!("refused for: {}", device.reasons()));
            }
        }
        self.more(devices.len().saturating_sub(EXCERPT));
        if let Some(provoked) = report.provoked.in_words() {
            self.entry("", &provoked);
        }
    }

    fn tests(&mut self, report: &Report) {
        let passed = report.done().saturating_sub(report.failed_tests);
        let planned = report
            .planned
            .map_or("an unknown number".into(), |count| count.to_string());
        self.entry("Tests", &format!("{passed} of {planned} passed"));
        let mut failed = report.tests.iter().filter(|test| !test.ok);
        for test in failed.by_ref().take(EXCERPT) {
            let text = format!("not ok {} - {}", test.number, short(&test.name, WORDS));
            self.styled(AnsiColor::Red.on_default(), "", &text);
        }
        self.more(failed.count());
    }

    fn findings(&mut self, report: &Report) {
        for entry in &report.finding_counts {
            let findings = counted(entry.count, "finding", "findings");
            self.explanation(&findings, explain(entry.kind));
            let first = report
                .findings
                .iter()
                .find(|finding| finding.kind == entry.kind);
            if let Some(finding) = first {
                let (engine, len) = (report.engine_name(finding.engine), memory(finding.len));
                let (at, words) = (hex(finding.gpa.0), short(&finding.text, WORDS));
                let engine = short(&engine, WORDS);
                self.entry("  first", &format!("{engine}, {len} at {at}: {words}"));
            }
        }
        let refusals = &report.outcome.refusals;
        if refusals.count > 0 {
            let transfers = counted(refusals.count, "transfer", "transfers");
            self.explanation(&transfers, REFUSED_DMA);
            if let Some(last) = refusals.last.last() {
                let text = format!("{} at {}", memory(last.len), hex(last.address.0));
                self.entry("  last", &text);
            }
        }
    }

    fn explanation(&mut self, count: &str, explanation: Explanation) {
        self.line(Style::new(), "");
        let title = format!("{}: {count}", explanation.title);
        for line in textwrap::wrap(&title, self.width) {
            self.line(AnsiColor::Red.on_default().bold(), &line);
        }
        self.entry("  meaning", explanation.meaning);
        self.entry("  look at", explanation.look_at);
    }

    fn verdict(&mut self, verdict: &Verdict) {
        let colour = match verdict {
            Verdict::Passed => AnsiColor::Green,
            Verdict::Failed(_) => AnsiColor::Red,
            Verdict::Incomplete(_) => AnsiColor::Yellow,
        };
        let style = colour.on_default().bold();
        self.line(Style::new(), "");
        self.styled(style, "Verdict", &verdict.name().to_uppercase());
        for reason in verdict.reasons() {
            self.entry("", &short(&reason.to_string(), 2 * WORDS));
        }
    }
}

/// `heading` for the first of a list, nothing for the others.
fn headings(heading: &str) -> impl Iterator<Item = &str> {
    std::iter::once(heading).chain(std::iter::repeat(""))
}

fn extent_in_words(extent: &Extent) -> String {
    let (len, gpa, hpa) = (memory(extent.len), hex(extent.gpa.0), hex(extent.hpa.0));
    match extent.is_identity() {
        true => format!("{len} at {gpa}"),
        false => format!("{len} at {gpa}, on the host at {hpa}"),
    }
}
