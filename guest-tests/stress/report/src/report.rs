// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Everything that is known of a run.

use address::Gpa;
use serde::{Deserialize, Serialize};
use stress_format::{FindingKind, Interrupt, Mode};

use crate::mediated::Expected;
use crate::serialize::{hex, name};
use crate::setup::{Outcome, Setup};
use crate::text::Text;

/// The data of the guest and of the monitor. The number of entries in each list is bounded;
/// [`Report::left`] counts what is not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// What ran where.
    pub setup: Setup,
    /// How it ended.
    pub outcome: Outcome,
    /// The guest's first record.
    pub start: Option<Start>,
    /// How many tests were to run.
    pub planned: Option<u64>,
    /// Tests that ended, in the order of their ends.
    pub tests: Vec<Test>,
    /// Tests that failed, with those that [`Report::tests`] has no room for.
    pub failed_tests: u64,
    /// RAM that the guest used for DMA.
    pub ram: Vec<Ram>,
    /// What did the DMA.
    pub engines: Vec<Engine>,
    /// How far it was at times; evenly thinned out where there are many.
    pub samples: Vec<Sample>,
    /// What was wrong: the first ones.
    pub findings: Vec<Finding>,
    /// How much of each kind was wrong, all counted.
    pub finding_counts: Vec<KindCount>,
    /// Histogram of latencies, ascending.
    pub latency: Vec<Latency>,
    /// Where DMA went, ascending.
    pub landed: Vec<Landed>,
    /// Refusals by the monitor that the guest provoked.
    #[serde(default)]
    pub provoked: Expected,
    /// The guest's last record.
    pub totals: Option<Totals>,
    /// Why the guest gave up.
    pub bail_out: Option<Text>,
    /// What the guest reported twice although it can be reported only once.
    pub repeated: Vec<Text>,
    /// What there was no room for.
    pub left: Left,
}

/// `stress`: what ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Name of the program.
    pub program: Text,
    /// Seed of the random generators.
    pub seed: u64,
    /// Processors in use.
    pub cpus: u64,
    /// TSC ticks per millisecond; 0 if not known.
    pub tsc_khz: u64,
    /// How DMA addresses were found.
    #[serde(with = "name")]
    pub mode: Mode,
}

/// A test that ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Test {
    /// Its number, from 1.
    pub number: u64,
    /// Whether it passed.
    pub ok: bool,
    /// What it tests.
    pub name: Text,
    /// Why it was left out, if it was (TAP's directive `# SKIP`). It counts as passed.
    pub skipped: Option<Text>,
}

/// A piece of RAM that DMA may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ram {
    /// First address.
    #[serde(with = "hex")]
    pub gpa: Gpa,
    /// Bytes.
    pub len: u64,
}

/// Something that does DMA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Engine {
    /// Number by which findings name it.
    pub id: u64,
    /// What it is.
    pub name: Text,
    /// Its PCI address in the guest.
    pub bdf: Text,
    /// How it signals completion.
    #[serde(with = "name")]
    pub interrupt: Interrupt,
}

/// How far it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Milliseconds since the start.
    pub ms: u64,
    /// Transfers so far.
    pub transfers: u64,
    /// Bytes so far.
    pub bytes: u64,
}

/// Something wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What.
    #[serde(with = "name")]
    pub kind: FindingKind,
    /// Whose transfer.
    pub engine: u64,
    /// First address concerned.
    #[serde(with = "hex")]
    pub gpa: Gpa,
    /// Bytes of the transfer.
    pub len: u64,
    /// As reported by the guest.
    pub text: Text,
}

/// How many findings of a kind there were.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KindCount {
    /// Which.
    #[serde(with = "name")]
    pub kind: FindingKind,
    /// How many.
    pub count: u64,
}

/// One bar of the latency histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// Lowest latency that counts here, in TSC ticks.
    pub from: u64,
    /// Transfers.
    pub count: u64,
}

/// How much DMA went to a piece of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Landed {
    /// First address.
    #[serde(with = "hex")]
    pub gpa: Gpa,
    /// Bytes of the piece.
    pub len: u64,
    /// Bytes moved, either way.
    pub bytes: u64,
}

impl Landed {
    /// Behind the last address.
    pub(crate) fn end(&self) -> u64 {
        self.gpa.0.saturating_add(self.len)
    }
}

/// The guest's own sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Transfers ended.
    pub transfers: u64,
    /// Bytes moved.
    pub bytes: u64,
    /// Transfers with wrong data.
    pub mismatches: u64,
    /// Transfers that changed memory around their buffer.
    pub guard_hits: u64,
    /// Transfers that ended without their interrupt.
    pub lost_interrupts: u64,
    /// Throughput while transfers were under way, in 1000 bytes per second.
    pub kb_s: u64,
    /// Median latency in TSC ticks.
    pub p50: u64,
    /// 99th percentile of the latency in TSC ticks.
    pub p99: u64,
    /// Longest latency in TSC ticks.
    pub max: u64,
}

/// How much of the guest's output is not in the lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// Tests.
    pub tests: u64,
    /// Pieces of RAM.
    pub ram: u64,
    /// Engines.
    pub engines: u64,
    /// Samples.
    pub samples: u64,
    /// Findings.
    pub findings: u64,
    /// Bars of the histogram.
    pub latency: u64,
    /// Pieces of memory where DMA went.
    pub landed: u64,
    /// Lines that were too long and were cut.
    pub cut_lines: u64,
}

impl Report {
    /// The name of the engine that findings call `id`, for people.
    #[must_use]
    pub fn engine_name(&self, id: u64) -> String {
        match self.engines.iter().find(|engine| engine.id == id) {
            Some(engine) => format!("{} {id}", engine.name),
            None => format!("engine {id}"),
        }
    }

    /// Whether extents are to be at their host-physical addresses, as far as is known.
    pub(crate) fn wants_identity(&self) -> bool {
        let start = self.start.as_ref();
        start.is_none_or(|start| start.mode == Mode::Identity)
    }

    /// TSC ticks per microsecond, if the guest reported them.
    #[must_use]
    pub fn ticks_per_us(&self) -> Option<f64> {
        let khz = self.start.as_ref()?.tsc_khz;
        #[expect(clippy::cast_precision_loss, reason = "53 bits are enough")]
        (khz > 0).then_some(khz as f64 / 1000.0)
    }
}
