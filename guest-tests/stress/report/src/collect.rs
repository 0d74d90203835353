// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Collects a guest's output while it runs.

use std::collections::BTreeMap;

use address::Gpa;
use stress_format::{FindingKind, Line, Record};

use crate::lines::Lines;
use crate::mediated::Expected;
use crate::report::{
    Engine, Finding, KindCount, Landed, Latency, Left, Ram, Report, Sample, Start, Test, Totals,
};
use crate::setup::{Outcome, Setup};
use crate::text::Text;
use crate::thin::Thinned;

/// Most entries of a list of [`Report`].
const MAX_TESTS: usize = 4096;
const MAX_RAM: usize = 4096;
const MAX_ENGINES: usize = 64;
const MAX_FINDINGS: usize = 256;
const MAX_LATENCY: usize = 1024;
const MAX_LANDED: usize = 1024;
const MAX_REFUSALS: usize = 64;
const MAX_REPEATED: usize = 16;

/// Reads a stress guest's serial port. Its memory is bounded, whatever it is fed.
#[derive(Debug, Default)]
pub struct Collector {
    lines: Lines,
    heard: Heard,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress<'a> {
    /// Tests that ended.
    pub done: u64,
    /// Planned tests, once the guest has reported them.
    pub planned: Option<u64>,
    /// Tests that failed.
    pub failed: u64,
    /// Findings so far.
    pub findings: u64,
    /// Milliseconds since the guest's start at the last sample.
    pub ms: u64,
    /// Transfers so far.
    pub transfers: u64,
    /// Bytes so far.
    pub bytes: u64,
    /// The test that ended last: guests name a test when it ends.
    pub last_test: Option<&'a str>,
    /// Whether the guest has reported its totals, which are its last output.
    pub complete: bool,
}

#[derive(Debug, Default)]
struct Heard {
    start: Option<Start>,
    planned: Option<u64>,
    tests: Vec<Test>,
    last_test: Text,
    failed_tests: u64,
    ram: Vec<Ram>,
    engines: Vec<Engine>,
    samples: Thinned,
    findings: Vec<Finding>,
    finding_counts: BTreeMap<FindingKind, u64>,
    latency: Vec<Latency>,
    landed: Vec<Landed>,
    provoked: Expected,
    totals: Option<Totals>,
    bail_out: Option<Text>,
    repeated: Vec<Text>,
    left: Left,
}

impl Collector {
    /// One that has heard nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The next bytes from the serial port, cut anywhere.
    pub fn feed(&mut self, bytes: &[u8]) {
        let heard = &mut self.heard;
        self.lines.feed(bytes, |line| heard.line(line));
    }

    /// How far it is.
    #[must_use]
    pub fn progress(&self) -> Progress<'_> {
        let heard = &self.heard;
        let sample = heard.samples.last();
        let totals = heard.totals.map(|totals| (totals.transfers, totals.bytes));
        let (transfers, bytes) = totals
            .or(sample.map(|sample| (sample.transfers, sample.bytes)))
            .unwrap_or_default();
        let done = heard.done();
        Progress {
            done,
            planned: heard.planned,
            failed: heard.failed_tests,
            findings: heard.finding_counts.values().sum(),
            ms: sample.map_or(0, |sample| sample.ms),
            transfers,
            bytes,
            last_test: (done > 0).then_some(&*heard.last_test),
            complete: heard.totals.is_some(),
        }
    }

    /// Everything that was received, with the monitor's data.
    #[must_use]
    pub fn finish(self, setup: Setup, mut outcome: Outcome) -> Report {
        let mut heard = self.heard;
        let cut_lines = self.lines.finish(|line| heard.line(line));
        heard.merge_latency();
        let (samples, left_samples) = heard.samples.finish();
        let refusals = &mut outcome.refusals.last;
        refusals.drain(..refusals.len().saturating_sub(MAX_REFUSALS));
        heard.landed.sort_by_key(|landed| landed.gpa);
        let counts = heard.finding_counts.into_iter();
        Report {
            setup,
            outcome,
            start: heard.start,
            planned: heard.planned,
            tests: heard.tests,
            failed_tests: heard.failed_tests,
            ram: heard.ram,
            engines: heard.engines,
            samples,
            findings: heard.findings,
            finding_counts: counts
                .map(|(kind, count)| KindCount { kind, count })
                .collect(),
            latency: heard.latency,
            landed: heard.landed,
            provoked: heard.provoked,
            totals: heard.totals,
            bail_out: heard.bail_out,
            repeated: heard.repeated,
            left: Left {
                samples: left_samples,
                cut_lines,
                ..heard.left
            },
        }
    }
}

/// Adds to a list, or counts what it has no room for.
fn keep<T>(list: &mut Vec<T>, max: usize, left: &mut u64, entry: T) {
    if list.len() < max {
        list.push(entry);
    } else {
        *left = left.saturating_add(1);
    }
}

/// The name of a test and why it was left out, if it has TAP's directive `# SKIP`, in any case.
fn skipped(name: &str) -> Option<(&str, &str)> {
    const DIRECTIVE: &str = "# skip";
    let at = name.to_ascii_lowercase().find(DIRECTIVE)?;
    let (name, rest) = name.split_at_checked(at)?;
    Some((
        name.trim_end(),
        rest.get(DIRECTIVE.len()..)?.trim_start_matches([':', ' ']),
    ))
}

impl Heard {
    fn done(&self) -> u64 {
        (self.tests.len() as u64).saturating_add(self.left.tests)
    }

    /// Sorts the histogram and adds up bars that were reported more than once, one for each engine.
    fn merge_latency(&mut self) {
        self.latency.sort_by_key(|bar| bar.from);
        self.latency.dedup_by(|next, bar| {
            let same = next.from == bar.from;
            if same {
                bar.count = bar.count.saturating_add(next.count);
            }
            same
        });
    }

    fn line(&mut self, line: &str) {
        match Line::parse(line) {
            Some(Line::Plan(count)) => self.once("plan", |heard| &mut heard.planned, count),
            Some(Line::Test { ok, number, name }) => self.test(ok, number, name),
            Some(Line::BailOut(why)) => {
                self.once("bail-out", |heard| &mut heard.bail_out, why.into());
            }
            Some(Line::Record(record)) => self.record(record),
            Some(Line::Version) | None => (),
        }
    }

    /// Keeps the first of what can be reported only once.
    fn once<T: PartialEq>(&mut self, what: &str, slot: fn(&mut Self) -> &mut Option<T>, value: T) {
        let slot = slot(self);
        if slot.is_none() {
            *slot = Some(value);
        } else if self.repeated.len() < MAX_REPEATED {
            self.repeated.push(what.into());
        }
    }

    fn test(&mut self, ok: bool, number: u64, name: &str) {
        self.failed_tests += u64::from(!ok);
        let (name, skipped) = match skipped(name) {
            Some((name, why)) if ok => (name.into(), Some(why.into())),
            _ => (name.into(), None),
        };
        self.last_test.clone_from(&name);
        let test = Test {
            number,
            ok,
            name,
            skipped,
        };
        keep(&mut self.tests, MAX_TESTS, &mut self.left.tests, test);
    }

    fn record(&mut self, record: Record<'_>) {
        let left = &mut self.left;
        match record {
            Record::Start(start) => {
                let start = Start {
                    program: start.program.into(),
                    seed: start.seed,
                    cpus: start.cpus,
                    tsc_khz: start.tsc_khz,
                    mode: start.mode,
                };
                self.once("start", |heard| &mut heard.start, start);
            }
            Record::Ram(ram) => {
                let (gpa, len) = (Gpa(ram.gpa), ram.len);
                keep(&mut self.ram, MAX_RAM, &mut left.ram, Ram { gpa, len });
            }
            Record::Engine(engine) => {
                let engine = Engine {
                    id: engine.id,
                    name: engine.name.into(),
                    bdf: engine.bdf.into(),
                    interrupt: engine.interrupt,
                };
                keep(&mut self.engines, MAX_ENGINES, &mut left.engines, engine);
            }
            Record::Sample(sample) => self.samples.push(Sample {
                ms: sample.ms,
                transfers: sample.transfers,
                bytes: sample.bytes,
            }),
            Record::Finding(finding) => self.finding(&finding),
            Record::Latency(latency) => {
                let (from, count) = (latency.from, latency.count);
                let bar = Latency { from, count };
                keep(&mut self.latency, MAX_LATENCY, &mut left.latency, bar);
            }
            Record::Landed(landed) => {
                let landed = Landed {
                    gpa: Gpa(landed.gpa),
                    len: landed.len,
                    bytes: landed.bytes,
                };
                keep(&mut self.landed, MAX_LANDED, &mut left.landed, landed);
            }
            Record::Provoked(provoked) => self.provoked.add(provoked),
            Record::Totals(totals) => self.totals(&totals),
        }
    }

    fn finding(&mut self, finding: &stress_format::Finding<'_>) {
        *self.finding_counts.entry(finding.kind).or_default() += 1;
        let finding = Finding {
            kind: finding.kind,
            engine: finding.engine,
            gpa: Gpa(finding.gpa),
            len: finding.len,
            text: finding.text.into(),
        };
        keep(
            &mut self.findings,
            MAX_FINDINGS,
            &mut self.left.findings,
            finding,
        );
    }

    fn totals(&mut self, totals: &stress_format::Totals) {
        let totals = Totals {
            transfers: totals.transfers,
            bytes: totals.bytes,
            mismatches: totals.mismatches,
            guard_hits: totals.guard_hits,
            lost_interrupts: totals.lost_interrupts,
            kb_s: totals.kb_s,
            p50: totals.p50,
            p99: totals.p99,
            max: totals.max,
        };
        self.once("totals", |heard| &mut heard.totals, totals);
    }
}
