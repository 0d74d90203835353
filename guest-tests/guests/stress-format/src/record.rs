// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The records.

use core::fmt;
use core::str::FromStr;

use crate::parse::{Fields, name_of, value_of};

/// How the guest finds the addresses that it gives to devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Guest-physical = host-physical.
    Identity,
    /// Something between guest and device translates.
    Iommu,
    /// The guest looks them up in a table that it is shown.
    Translate,
    /// The monitor rewrites what the guest writes to registers.
    Mediate,
}

/// How an engine signals completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Interrupt {
    /// It is asked.
    Polling,
    /// Interrupt line.
    Intx,
    /// Message-signalled.
    Msi,
    /// Message-signalled, with a table.
    Msix,
}

/// What was found to be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FindingKind {
    /// Single bits differ.
    BitFlip,
    /// The data lies a little before or behind where it should be.
    Shifted,
    /// The data lies in another piece of RAM.
    WrongExtent,
    /// Other data than expected, for an unknown reason.
    Mismatch,
    /// Memory around a buffer changed.
    GuardHit,
    /// A transfer ended without its interrupt.
    LostInterrupt,
    /// The device reported an error.
    DeviceError,
    /// A transfer did not end.
    Timeout,
}

/// A word that names no mode, interrupt or kind of finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownName;

impl fmt::Display for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unknown name")
    }
}

impl core::error::Error for UnknownName {}

const MODES: &[(&str, Mode)] = &[
    ("identity", Mode::Identity),
    ("iommu", Mode::Iommu),
    ("translate", Mode::Translate),
    ("mediate", Mode::Mediate),
];
const INTERRUPTS: &[(&str, Interrupt)] = &[
    ("polling", Interrupt::Polling),
    ("intx", Interrupt::Intx),
    ("msi", Interrupt::Msi),
    ("msix", Interrupt::Msix),
];
const KINDS: &[(&str, FindingKind)] = &[
    ("bit-flip", FindingKind::BitFlip),
    ("shifted", FindingKind::Shifted),
    ("wrong-extent", FindingKind::WrongExtent),
    ("mismatch", FindingKind::Mismatch),
    ("guard-hit", FindingKind::GuardHit),
    ("lost-interrupt", FindingKind::LostInterrupt),
    ("device-error", FindingKind::DeviceError),
    ("timeout", FindingKind::Timeout),
];

macro_rules! names {
    ($($type:ty => $names:ident),*) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(name_of($names, self))
            }
        }

        /// By the name that it is written as.
        impl FromStr for $type {
            type Err = UnknownName;
            fn from_str(name: &str) -> Result<Self, UnknownName> {
                value_of($names, name).ok_or(UnknownName)
            }
        }
    )*};
}
names!(Mode => MODES, Interrupt => INTERRUPTS, FindingKind => KINDS);

/// The first record: what runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start<'a> {
    /// Seed of the random generators.
    pub seed: u64,
    /// Processors in use.
    pub cpus: u64,
    /// TSC ticks per millisecond; 0 if not known. On aarch64 the TSC is the timer's virtual counter.
    pub tsc_khz: u64,
    /// How DMA addresses are found.
    pub mode: Mode,
    /// Name of the program.
    pub program: &'a str,
}

/// A piece of RAM that DMA may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ram {
    /// First guest-physical address.
    pub gpa: u64,
    /// Bytes.
    pub len: u64,
}

/// Something that does DMA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Engine<'a> {
    /// Number by which other records name it.
    pub id: u64,
    /// How it signals completion.
    pub interrupt: Interrupt,
    /// Its PCI address in the guest.
    pub bdf: &'a str,
    /// What it is.
    pub name: &'a str,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Milliseconds since the start.
    pub ms: u64,
    /// Transfers ended so far.
    pub transfers: u64,
    /// Bytes moved so far.
    pub bytes: u64,
}

/// Something wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding<'a> {
    /// What.
    pub kind: FindingKind,
    /// Whose transfer.
    pub engine: u64,
    /// First guest-physical address concerned.
    pub gpa: u64,
    /// Bytes of the transfer.
    pub len: u64,
    /// In words.
    pub text: &'a str,
}

/// One bar of the latency histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latency {
    /// Lowest latency that counts here, in TSC ticks; the next record's is the end.
    pub from: u64,
    /// Transfers.
    pub count: u64,
}

/// How much DMA went to a piece of RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Landed {
    /// First guest-physical address.
    pub gpa: u64,
    /// Bytes of the piece.
    pub len: u64,
    /// Bytes moved, either way.
    pub bytes: u64,
}

/// How many transfers the guest has started on purpose that the monitor must refuse. Without this
/// record there are none; of several the sums count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Provoked {
    /// Refusals that the monitor must count, at least.
    pub least: u64,
    /// And at most: what is refused in a race is not known.
    pub most: u64,
}

/// The last record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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

/// Contents of a comment line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is described by its type")]
pub enum Record<'a> {
    Start(Start<'a>),
    Ram(Ram),
    Engine(Engine<'a>),
    Sample(Sample),
    Finding(Finding<'a>),
    Latency(Latency),
    Landed(Landed),
    Provoked(Provoked),
    Totals(Totals),
}

/// Version of the records.
const VERSION: u64 = 1;

impl fmt::Display for Record<'_> {
    /// Without the `# ` of a comment.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(start) => write!(
                f,
                "stress version={VERSION} seed={} cpus={} tsc_khz={} mode={} program={}",
                start.seed, start.cpus, start.tsc_khz, start.mode, start.program
            ),
            Self::Ram(ram) => write!(f, "ram gpa={:#x} len={:#x}", ram.gpa, ram.len),
            Self::Engine(engine) => write!(
                f,
                "engine id={} interrupt={} bdf={} name={}",
                engine.id, engine.interrupt, engine.bdf, engine.name
            ),
            Self::Sample(sample) => write!(
                f,
                "sample ms={} transfers={} bytes={}",
                sample.ms, sample.transfers, sample.bytes
            ),
            Self::Finding(finding) => write!(
                f,
                "finding kind={} engine={} gpa={:#x} len={:#x} text={}",
                finding.kind, finding.engine, finding.gpa, finding.len, finding.text
            ),
            Self::Latency(latency) => {
                write!(f, "latency from={} count={}", latency.from, latency.count)
            }
            Self::Landed(landed) => write!(
                f,
                "landed gpa={:#x} len={:#x} bytes={}",
                landed.gpa, landed.len, landed.bytes
            ),
            Self::Provoked(provoked) => {
                write!(
                    f,
                    "provoked least={} most={}",
                    provoked.least, provoked.most
                )
            }
            Self::Totals(totals) => write!(
                f,
                "totals transfers={} bytes={} mismatches={} guard_hits={} lost_interrupts={} \
                 kb_s={} p50={} p99={} max={}",
                totals.transfers,
                totals.bytes,
                totals.mismatches,
                totals.guard_hits,
                totals.lost_interrupts,
                totals.kb_s,
                totals.p50,
                totals.p99,
                totals.max
            ),
        }
    }
}

impl<'a> Record<'a> {
    /// Parses the text behind a comment's `#`; `None` for any other comment. Fields may come in any
    /// order, but one whose value has spaces comes last.
    #[must_use]
    pub fn parse(comment: &'a str) -> Option<Self> {
        let (kind, fields) = comment.trim().split_once(' ')?;
        let fields = Fields(fields);
        let record = match kind {
            "stress" if fields.number("version")? == VERSION => Self::Start(Start {
                seed: fields.number("seed")?,
                cpus: fields.number("cpus")?,
                tsc_khz: fields.number("tsc_khz")?,
                mode: fields.one_of("mode", MODES)?,
                program: fields.rest("program")?,
            }),
            "ram" => Self::Ram(Ram {
                gpa: fields.number("gpa")?,
                len: fields.number("len")?,
            }),
            "engine" => Self::Engine(Engine {
                id: fields.number("id")?,
                interrupt: fields.one_of("interrupt", INTERRUPTS)?,
                bdf: fields.word("bdf")?,
                name: fields.rest("name")?,
            }),
            "sample" => Self::Sample(Sample {
                ms: fields.number("ms")?,
                transfers: fields.number("transfers")?,
                bytes: fields.number("bytes")?,
            }),
            "finding" => Self::Finding(Finding {
                kind: fields.one_of("kind", KINDS)?,
                engine: fields.number("engine")?,
                gpa: fields.number("gpa")?,
                len: fields.number("len")?,
                text: fields.rest("text")?,
            }),
            "latency" => Self::Latency(Latency {
                from: fields.number("from")?,
                count: fields.number("count")?,
            }),
            "landed" => Self::Landed(Landed {
                gpa: fields.number("gpa")?,
                len: fields.number("len")?,
                bytes: fields.number("bytes")?,
            }),
            "provoked" => Self::Provoked(Provoked {
                least: fields.number("least")?,
                most: fields.number("most")?,
            }),
            "totals" => Self::Totals(Totals::parse(&fields)?),
            _ => return None,
        };
        Some(record)
    }
}

impl Totals {
    fn parse(fields: &Fields<'_>) -> Option<Self> {
        Some(Self {
            transfers: fields.number("transfers")?,
            bytes: fields.number("bytes")?,
            mismatches: fields.number("mismatches")?,
            guard_hits: fields.number("guard_hits")?,
            lost_interrupts: fields.number("lost_interrupts")?,
            kb_s: fields.number("kb_s")?,
            p50: fields.number("p50")?,
            p99: fields.number("p99")?,
            max: fields.number("max")?,
        })
    }
}
