// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest that does not keep to the rules, against a monitor that finds the addresses when they
//! are written to an `edu`'s registers.
//!
//! It tries to make the device reach what is not its own: addresses outside of RAM and across its
//! ends, lengths of nothing and of everything, the device's side outside of the device, registers
//! written in parts, in any order and width, while a transfer is under way, and by several
//! processors at once. Nothing of that may start. In between it starts transfers that are right,
//! which must run. It checks every word of its memory, and in the end nothing else may have
//! changed.

mod attempt;
mod flight;
mod ground;
mod guess;
pub mod nvme;
mod race;
mod values;

use alloc::vec;
use alloc::vec::Vec;
use core::fmt::Write;
use core::sync::atomic::Ordering::Relaxed;

use address::Gpa;
use stress_format::{Finding, FindingKind, Histogram, Provoked, Record};

use crate::memory::Memory;
use crate::stress::Shared;
use flight::Flight;
use ground::Ground;
pub use race::Race;
use values::{BUFFER_BYTES, Values};

/// What it is called on the command line.
pub const NAME: &str = "hostile";
/// Tests that are reported.
pub const TESTS: u64 = 4;

const SOURCE: u64 = 0x80;
const DESTINATION: u64 = 0x88;
const COUNT: u64 = 0x90;
const COMMAND: u64 = 0x98;
const STARTED: u64 = 1;

/// After so many attempts the device is looked at.
const LOOK_EVERY: u64 = 8;
/// One attempt of so many is a raced one.
const RACED: u64 = 8;
/// Pages that a race may write to.
const SANDBOX: u64 = 4;

/// A device's registers for accesses of any shape.
pub trait Stores {
    /// One store of 1, 2, 4 or 8 bytes at any offset. On aarch64 one that is not aligned does not happen.
    fn store(&self, offset: u64, width: u8, value: u64);

    /// One load of 8 bytes at a multiple of 8.
    fn load(&self, offset: u64) -> u64;
}

/// An attack on one device.
#[derive(Debug)]
pub struct Attack<'a, M, W, R> {
    /// Memory, and where to report.
    pub shared: &'a Shared<'a, M, W>,
    /// Number in records.
    pub id: u64,
    /// The device's registers.
    pub registers: &'a R,
    /// Where they are.
    pub own: Gpa,
    /// The race, if another processor takes part in it.
    pub race: Option<&'a Race>,
}

/// How often what happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Starts that had to be refused, in one store of 4 or 8 bytes.
    pub refused: u64,
    /// Stores to the command register that no driver would do.
    pub malformed: u64,
    /// Transfers that were right and ran.
    pub accepted: u64,
    /// Stores of ours while others raced.
    pub raced: u64,
    /// Starts by all processors in the race: refused, busy or run, as it happens.
    pub raced_starts: u64,
    /// Pieces of stores that no register takes.
    pub dropped: u64,
}

/// The device has been busy for too long.
#[derive(Clone, Copy, Debug)]
struct Stuck;

/// Failures by test.
#[derive(Clone, Copy, Debug, Default)]
struct Failures {
    accepted: u64,
    refused: u64,
    raced: u64,
}

struct Course<'a, M, W, R> {
    attack: &'a Attack<'a, M, W, R>,
    ground: Ground<'a, M>,
    random: fastrand::Rng,
    /// What is spoiled to make attempts.
    right: Values,
    /// What the registers hold.
    held: Values,
    /// What the device's buffer holds.
    buffer: Vec<u8>,
    flight: Option<Flight>,
    begun: u64,
    latency: Histogram,
    busy: u64,
    counts: Counts,
    failures: Failures,
}

impl<M: Memory, W: Write, R: Stores> Attack<'_, M, W, R> {
    /// Does it, and reports [`TESTS`] tests.
    pub fn run(&self) -> Counts {
        let shared = self.shared;
        let seed = shared.options.seed;
        let mut course = Course {
            attack: self,
            ground: Ground::lay(shared.memory, shared.ram, seed),
            random: fastrand::Rng::with_seed(seed ^ (self.id + 1) << 40),
            right: Values::default(),
            held: Values::default(),
            buffer: vec![0; usize::try_from(BUFFER_BYTES).unwrap_or(0)],
            flight: None,
            begun: 0,
            latency: Histogram::default(),
            busy: 0,
            counts: Counts::default(),
            failures: Failures::default(),
        };
        let ended = course.attempts().and_then(|()| course.race());
        if let Some(race) = self.race {
            race.end();
        }
        if ended.is_err() {
            shared.tally.failures.fetch_add(1, Relaxed);
            self.finding(FindingKind::Timeout, 0, "the transfer does not end");
            course.failures.accepted += 1;
        }
        course.conclude();
        course.counts
    }

    fn finding(&self, kind: FindingKind, gpa: u64, text: &str) {
        self.shared.report.finding(Finding {
            kind,
            engine: self.id,
            gpa,
            len: 0,
            text,
        });
    }
}

impl<M: Memory, W: Write, R: Stores> Course<'_, M, W, R> {
    /// Everything that one processor can do.
    fn attempts(&mut self) -> Result<(), Stuck> {
        let options = self.attack.shared.options;
        let every = (options.attempts / options.accepted.max(1)).max(1);
        // What an earlier guest has left in the device is not known.
        self.fill_all()?;
        for number in 0..options.attempts {
            let due = self.begun < options.accepted && number / every >= self.begun;
            if self.flight.is_none() && due {
                self.begin();
            }
            self.attempt();
            if number % LOOK_EVERY == 0 {
                self.look()?;
                self.attack.shared.sample();
            }
        }
        while self.flight.is_some() || self.counts.accepted < options.accepted {
            if self.flight.is_none() {
                self.begin();
            }
            if self.flight.is_none() {
                break;
            }
            self.attempt();
            self.look()?;
        }
        // What the device has in the end shows whether it read what it should not.
        self.fetch_all()
    }

    /// Stores by several processors. Whatever mixture of theirs is in the registers at a start:
    /// it may change nothing but the sandbox, and that to nothing but what the device has.
    fn race(&mut self) -> Result<(), Stuck> {
        let Some(race) = self.attack.race else {
            return Ok(());
        };
        self.fill_all()?;
        let sandbox: Vec<_> = (0..SANDBOX)
            .filter_map(|_| self.ground.place(1, &mut self.random))
            .collect();
        let right: Vec<_> = sandbox.iter().map(|gpa| gpa.0).collect();
        let first = self.attack.shared.ram.extents().first();
        let below = first.map_or(0, |extent| extent.start.0 - 1);
        let wrong = [below, self.attack.own.0, 0, 0xfee0_0000, 1 << 51, u64::MAX];
        race.begin(&right, &wrong);
        for number in 0..self.attack.shared.options.attempts / RACED {
            race.store(self.attack.registers, &mut self.random);
            self.counts.raced += 1;
            if number % LOOK_EVERY == 0 {
                self.attack.shared.sample();
            }
        }
        race.stop();
        self.counts.raced_starts = race.starts();
        self.wait()?;
        self.read_back(0);
        for gpa in sandbox {
            self.check_sandbox(gpa);
        }
        let before = self.failures.accepted;
        self.fetch_all()?;
        self.failures.raced += self.failures.accepted - before;
        Ok(())
    }

    /// Every byte is as it was, or as one of the device's.
    fn check_sandbox(&mut self, gpa: Gpa) {
        let range = gpa..gpa + BUFFER_BYTES;
        let (was, is) = (self.ground.expected(&range), self.ground.actual(&range));
        // Transfers begin at the first or the second byte of the device's buffer.
        let moved = |at: usize, byte| {
            self.buffer.get(at) == Some(byte) || self.buffer.get(at + 1) == Some(byte)
        };
        let mut bytes = was.iter().zip(&is).enumerate();
        let strange = bytes.find(|(at, (was, is))| was != is && !moved(*at, is));
        if let Some((at, _)) = strange {
            self.failures.raced += 1;
            self.wrong_data(gpa + at as u64, "a raced transfer moved other data");
        }
        self.ground.restore(&range);
    }

    fn wrong_data(&self, gpa: Gpa, text: &str) {
        let tally = self.attack.shared.tally;
        tally.mismatches.fetch_add(1, Relaxed);
        self.attack.finding(FindingKind::Mismatch, gpa.0, text);
    }

    fn conclude(&self) {
        let shared = self.attack.shared;
        let changed = self.ground.changed(|gpa| {
            let text = "memory changed that no transfer was started for";
            self.attack.finding(FindingKind::GuardHit, gpa.0, text);
        });
        shared.tally.measured(&self.latency, self.busy);
        shared.tally.guard_hits.fetch_add(changed, Relaxed);
        let (counts, failures) = (self.counts, self.failures);
        let attempts = counts.refused + counts.malformed + counts.accepted;
        shared.report.comment(format_args!(
            "hostile attempts={attempts} accepted={} refused={} malformed={} dropped={} raced={} raced_by_others={} raced_starts={}",
            counts.accepted,
            counts.refused,
            counts.malformed,
            counts.dropped,
            counts.raced,
            self.attack.race.map_or(0, Race::stores),
            counts.raced_starts,
        ));
        shared.report.record(Record::Provoked(Provoked {
            least: counts.refused,
            most: counts.refused + counts.raced_starts,
        }));
        let test = |wrong: u64, what| {
            let name = format_args!("{NAME} {}: {what}", self.attack.id);
            shared.report.test(wrong == 0, name);
        };
        test(failures.refused, "invalid transfers do not start");
        test(failures.accepted, "valid transfers run");
        match self.attack.race {
            Some(_) => test(failures.raced, "races start no other transfer"),
            None => test(0, "races start no other transfer # SKIP one processor"),
        }
        test(changed, "other memory is unchanged");
    }
}
