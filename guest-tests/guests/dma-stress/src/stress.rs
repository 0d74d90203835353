// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The run of one engine: every class of transfers in every interrupt mode.

use alloc::format;
use alloc::vec::Vec;
use core::fmt::Write;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use stress_format::{Finding, FindingKind, Histogram, Interrupt, Record, Sample};

use crate::engine::{Direction, Engine, Outcome, Transfer};
use crate::memory::Memory;
use crate::options::Options;
use crate::pair::Pair;
use crate::place::{Buffer, Reservations};
use crate::probe::Ground;
use crate::ram::Ram;
use crate::report::Report;
use crate::shape::{CLASSES, Class, Limits};
use crate::tally::Tally;

/// Milliseconds from one sample to the next.
const SAMPLE_MS: u64 = 200;

/// Shapes of a class without a place, after which it ends.
const MAX_MISSES: u64 = 32;

/// Usual lengths are not limited to less than this.
const MIN_USUAL: u64 = 1024;

/// Probes of an engine; each takes a while.
const MAX_PROBES: u64 = 6;

/// What all engines share.
#[derive(Debug)]
pub struct Shared<'a, M, W> {
    /// Memory.
    pub memory: &'a M,
    /// Where buffers may be.
    pub ram: &'a Ram,
    /// Where they are.
    pub reservations: &'a Reservations,
    /// What is printed.
    pub report: &'a Report<W>,
    /// What is counted.
    pub tally: &'a Tally,
    /// What is asked for.
    pub options: &'a Options,
    /// Time.
    pub clock: &'a Samples,
}

/// When samples are due.
#[derive(Debug)]
pub struct Samples {
    /// The clock.
    pub now: fn() -> u64,
    /// Its ticks in a millisecond.
    pub ticks_per_ms: u64,
    /// When everything began.
    pub start: u64,
    /// Milliseconds after that when the next sample is due.
    pub next_ms: AtomicU64,
}

impl Samples {
    /// Milliseconds since the start, if a sample is due; only this caller takes it then.
    fn due(&self) -> Option<u64> {
        let ms = (self.now)().wrapping_sub(self.start) / self.ticks_per_ms;
        let next = self.next_ms.load(Relaxed);
        let due = ms >= next
            && self
                .next_ms
                .compare_exchange(next, ms + SAMPLE_MS, Relaxed, Relaxed)
                .is_ok();
        due.then_some(ms)
    }
}

impl<M, W: Write> Shared<'_, M, W> {
    /// Prints a sample if one is due.
    pub(crate) fn sample(&self) {
        if let Some(ms) = self.clock.due() {
            self.report.record(Record::Sample(Sample {
                ms,
                transfers: self.tally.transfers.load(Relaxed),
                bytes: self.tally.bytes.load(Relaxed),
            }));
        }
    }
}

/// One engine's part.
#[derive(Debug)]
pub struct Job<'a, M, W> {
    /// What it shares with others.
    pub shared: &'a Shared<'a, M, W>,
    /// Number in records.
    pub id: u64,
    /// What it is called in tests' names.
    pub name: &'a str,
}

/// What a class of transfers came to.
enum Verdict {
    Done {
        wrong: u64,
    },
    /// No extent has a place for it.
    NoPlace,
    /// The engine no longer answers.
    Dead,
}

/// What one engine goes through.
struct Course<'a> {
    engine: &'a mut dyn Engine,
    limits: Limits,
    random: fastrand::Rng,
    latency: Histogram,
    busy: u64,
    pairs: u64,
    /// How many more times memory may be stamped to find out what is wrong.
    probes: u64,
}

/// The interrupt modes that are tried.
#[must_use]
pub fn kinds(engine: &dyn Engine, options: &Options) -> Vec<Interrupt> {
    let mut kinds = engine.kinds();
    kinds.retain(|kind| options.interrupt.is_none_or(|only| only == *kind));
    kinds
}

/// The classes that `ram` calls for.
fn classes(ram: &Ram) -> impl Iterator<Item = Class> {
    let in_pieces = ram.may_have_seams();
    CLASSES
        .into_iter()
        .filter(move |class| in_pieces || *class != Class::CrossSeam)
}

/// How many tests a [`Job`] with buffers in `ram` is.
#[must_use]
pub fn tests(engine: &dyn Engine, options: &Options, ram: &Ram) -> u64 {
    (kinds(engine, options).len() * classes(ram).count()) as u64
}

impl<M: Memory, W: Write> Job<'_, M, W> {
    /// Runs all classes in all modes.
    pub fn run(&self, engine: &mut dyn Engine) {
        let kinds = kinds(engine, self.shared.options);
        let mut course = Course {
            limits: self.limits(engine),
            engine,
            random: fastrand::Rng::with_seed(self.shared.options.seed ^ (self.id + 1) << 40),
            latency: Histogram::default(),
            busy: 0,
            pairs: 0,
            probes: MAX_PROBES,
        };
        let mut dead = None;
        for kind in &kinds {
            if dead.is_none() {
                dead = course.engine.select(*kind).err();
            }
            let mut bytes = self.shared.options.bytes.div_ceil(kinds.len() as u64);
            let share = (kinds.len() * classes(self.shared.ram).count() * 2) as u64;
            let pairs = self.shared.options.transfers.div_ceil(share);
            // What classes without a place leave undone is for the last one, which has places.
            let mut owed = 0;
            for class in classes(self.shared.ram) {
                let name = format!("{} {}, {kind}: {}", self.name, self.id, class.name());
                if let Some(why) = dead {
                    self.shared
                        .report
                        .test(false, format_args!("{name} # {why}"));
                    continue;
                }
                let pairs = match class {
                    Class::Mixed => pairs + owed,
                    _ => pairs,
                };
                match self.class(&mut course, class, pairs, &mut bytes) {
                    Verdict::Done { wrong } => {
                        self.shared.report.test(wrong == 0, format_args!("{name}"));
                    }
                    Verdict::NoPlace => {
                        owed += pairs;
                        let name = format_args!("{name} # SKIP no extent has a place for it");
                        self.shared.report.test(true, name);
                    }
                    Verdict::Dead => {
                        dead = Some("the engine no longer responds");
                        self.shared.report.test(false, format_args!("{name}"));
                    }
                }
            }
        }
        self.shared.tally.measured(&course.latency, course.busy);
    }

    /// What the engine can do where RAM is in pieces.
    fn limits(&self, engine: &dyn Engine) -> Limits {
        let mut limits = engine.limits();
        let extents = self.shared.ram.extents().iter();
        let largest = extents.map(|extent| extent.end - extent.start).max();
        let most = limits.most.min(largest.unwrap_or(0) / 2);
        limits.most = (most / limits.granule).max(1) * limits.granule;
        let options = self.shared.options;
        let average = options.bytes / options.transfers.max(1);
        limits.usual = limits.usual.min(average.max(MIN_USUAL));
        limits
    }

    /// Runs `pairs` pairs of transfers of a class, and more of the last one while `bytes` are
    /// left to be moved.
    fn class(&self, course: &mut Course<'_>, class: Class, pairs: u64, bytes: &mut u64) -> Verdict {
        let (mut number, mut wrong, mut misses) = (0, 0, 0);
        while (number < pairs || class == Class::Mixed && *bytes > 0) && misses < MAX_MISSES {
            let mut batch = Vec::new();
            let most = match number < pairs {
                true => usize::try_from(pairs - number).unwrap_or(usize::MAX),
                false => usize::MAX,
            };
            for slot in 0..course.limits.depth.min(most) {
                let shape = class.shape(
                    number + misses + slot as u64,
                    &course.limits,
                    &mut course.random,
                );
                let pair = Pair::place(self.shared, shape, &mut course.random);
                let Some(mut pair) = pair else { break };
                course.pairs += 1;
                let (limits, random) = (&course.limits, &mut course.random);
                pair.choose_device_side(slot, limits, random);
                pair.fill(self.shared.memory, course.pairs, limits, random);
                batch.push(pair);
            }
            if batch.is_empty() {
                misses += 1;
                continue;
            }
            number += batch.len() as u64;
            match self.batch(course, &batch) {
                Some(more) => wrong += more,
                None => return Verdict::Dead,
            }
            for pair in &batch {
                *bytes = bytes.saturating_sub(2 * pair.size());
                pair.release(self.shared.reservations);
            }
            self.shared.sample();
        }
        match number {
            0 => Verdict::NoPlace,
            _ => Verdict::Done { wrong },
        }
    }

    /// Runs a batch, and returns how many of its pairs went wrong; `None` if a transfer is still
    /// under way.
    fn batch(&self, course: &mut Course<'_>, batch: &[Pair]) -> Option<u64> {
        let first = match course.limits.writable {
            true => Direction::ToDevice,
            false => Direction::FromDevice,
        };
        let mut failed = alloc::vec![false; batch.len()];
        let mut wrong = 0;
        for (direction, buffer) in [
            (first, Pair::source as fn(&Pair) -> &Buffer),
            (Direction::FromDevice, Pair::target),
        ] {
            let transfers: Vec<_> = batch
                .iter()
                .map(|pair| Transfer {
                    direction,
                    gpa: buffer(pair).gpa,
                    device: pair.device(),
                    len: pair.size(),
                })
                .collect();
            let mut outcomes = Vec::with_capacity(batch.len());
            let start = (self.shared.clock.now)();
            course.engine.run(&transfers, &mut outcomes);
            course.busy += (self.shared.clock.now)().wrapping_sub(start);
            for ((transfer, outcome), failed) in transfers.iter().zip(outcomes).zip(&mut failed) {
                course.latency.add(outcome.ticks);
                if let Some(problem) = self.account(course, transfer, outcome) {
                    wrong += 1;
                    match problem {
                        FindingKind::Timeout => return None,
                        FindingKind::LostInterrupt => (),
                        _ => *failed = true,
                    }
                }
            }
        }
        for (pair, failed) in batch.iter().zip(failed) {
            wrong += u64::from(!self.check(course, pair, failed));
        }
        Some(wrong)
    }

    /// Counts a transfer, and returns its problem if it has one.
    fn account(
        &self,
        course: &mut Course<'_>,
        transfer: &Transfer,
        outcome: Outcome,
    ) -> Option<FindingKind> {
        let tally = self.shared.tally;
        let (kind, text) = match outcome.problem {
            None => {
                tally.ended(&(transfer.gpa..transfer.gpa + transfer.len));
                return None;
            }
            Some(problem) => problem,
        };
        if kind == FindingKind::LostInterrupt {
            tally.ended(&(transfer.gpa..transfer.gpa + transfer.len));
            tally.lost_interrupts.fetch_add(1, Relaxed);
        } else {
            tally.failures.fetch_add(1, Relaxed);
        }
        let complaint = course.engine.complaint();
        let text = complaint.map_or_else(|| text.into(), |why| [text, &why].join(": "));
        self.finding(kind, transfer.gpa.0, transfer.len, &text);
        Some(kind)
    }

    fn finding(&self, kind: FindingKind, gpa: u64, len: u64, text: &str) {
        self.shared.report.finding(Finding {
            kind,
            engine: self.id,
            gpa,
            len,
            text,
        });
    }

    /// Verifies a pair and what is around its buffers.
    fn check(&self, course: &mut Course<'_>, pair: &Pair, failed: bool) -> bool {
        let memory = self.shared.memory;
        let mut ok = true;
        for hit in pair.guard_hits(memory) {
            ok = false;
            self.shared.tally.guard_hits.fetch_add(1, Relaxed);
            self.finding(FindingKind::GuardHit, hit.gpa.0, pair.size(), &hit.text);
        }
        if failed {
            return ok;
        }
        let Some(first) = pair.first_wrong(memory) else {
            return ok;
        };
        self.shared.tally.mismatches.fetch_add(1, Relaxed);
        if !self.shared.report.wants_findings() {
            self.finding(FindingKind::Mismatch, pair.target().gpa.0, pair.size(), "");
            return false;
        }
        let complaint = course.engine.complaint();
        let diagnosis = pair.diagnose(memory, self.shared.ram, first, || {
            let ground = Ground {
                memory,
                ram: self.shared.ram,
                reservations: self.shared.reservations,
            };
            if !course.limits.writable || course.probes == 0 {
                return None;
            }
            course.probes -= 1;
            ground.probe(&mut *course.engine, pair.source(), pair.target())
        });
        let text = match complaint {
            None => diagnosis.text,
            Some(complaint) => [complaint, diagnosis.text].join("; "),
        };
        self.finding(diagnosis.kind, diagnosis.gpa.0, pair.size(), &text);
        false
    }
}
