// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest that does not keep to the rules, against a monitor that checks every command of an NVMe controller.
//!
//! It gives the controller commands of every opcode with addresses that are right and wrong, rewrites lists while
//! doorbells are stored, forges completions, stores to any register in any width, deletes queues with commands under
//! way, and resets the controller in every way in between. All that the controller may write to are a few pages. Of all
//! other memory every word is known, and in the end none may have changed. Now and then a driver that keeps to the
//! rules has to find a controller that works.

mod commands;
mod controller;
mod course;
mod meddler;
mod places;
mod proof;

use alloc::format;
use core::fmt::Write;
use core::sync::atomic::Ordering::Relaxed;

use address::Gpa;
use stress_format::{Finding, FindingKind};

use super::Stores;
use super::ground::Ground;
use crate::memory::Memory;
use crate::registers::Registers;
use crate::stress::Shared;
use course::Course;
pub use meddler::Meddler;
use places::Places;

/// What it is called on the command line.
pub const NAME: &str = "hostile-nvme";
/// Tests that are reported.
pub const TESTS: u64 = 2;

/// Queue pairs that the driver has, the admin queue among them.
const QUEUES: usize = 3;

/// The controller does not do in time what it has to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stuck;

/// What a guest can do to the function of a controller.
pub trait Slot {
    /// Turns bus mastering on or off.
    fn set_bus_master(&self, on: bool);

    /// Resets the function, and gives it back what it had in config space. `false` if it cannot be reset.
    fn reset(&self) -> bool;
}

/// An attack on one controller.
#[derive(Debug)]
pub struct Attack<'a, M, W, R, S> {
    /// Memory, and where to report.
    pub shared: &'a Shared<'a, M, W>,
    /// Number in records.
    pub id: u64,
    /// The controller's registers.
    pub registers: &'a R,
    /// Where they are.
    pub own: Gpa,
    /// Bytes of them.
    pub bytes: u64,
    /// Its function.
    pub slot: &'a S,
    /// Other processors, if any take part.
    pub meddler: Option<&'a Meddler>,
}

/// How often what happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sequences of operations.
    pub sequences: u64,
    /// I/O commands.
    pub io: u64,
    /// Admin commands.
    pub admin: u64,
    /// Completions that were read: of success, and of anything else.
    pub completed: [u64; 2],
    /// Doorbells with a value by chance.
    pub rings: u64,
    /// Stores to other registers.
    pub stores: u64,
    /// Completions that the guest wrote itself.
    pub forged: u64,
    /// Words of lists that it changed.
    pub scribbled: u64,
    /// Times that the controller was disabled with commands under way.
    pub disabled: u64,
    /// Function resets.
    pub resets: u64,
    /// Times that bus mastering went off and on.
    pub masters: u64,
    /// Times that the controller was found in need of being enabled.
    pub revived: u64,
    /// Times that it worked as it should.
    pub proofs: u64,
}

impl<M, W, R, S> Attack<'_, M, W, R, S>
where
    M: Memory,
    W: Write,
    R: Registers + Stores,
    S: Slot,
{
    /// Does it, and reports [`TESTS`] tests.
    pub fn run(&self) -> Counts {
        let shared = self.shared;
        let seed = shared.options.seed;
        let mut random = fastrand::Rng::with_seed(seed ^ (self.id + 1) << 40);
        let ground = Ground::lay(shared.memory, shared.ram, seed);
        let found = Places::find(&ground, shared.ram, self.own, &mut random);
        let mut counts = Counts::default();
        let ended = match &found {
            Some(places) => Course::new(self, places, random).run(&mut counts),
            None => Err(Stuck),
        };
        if let Some(meddler) = self.meddler {
            meddler.end();
        }
        if ended.is_err() {
            shared.tally.failures.fetch_add(1, Relaxed);
            self.finding(FindingKind::Timeout, 0, "the controller does not work");
        }
        self.conclude(&ground, found.as_ref(), &counts, ended);
        counts
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

    fn conclude(
        &self,
        ground: &Ground<'_, M>,
        places: Option<&Places>,
        counts: &Counts,
        ended: Result<(), Stuck>,
    ) {
        // What the controller may write to is not as it was.
        for page in places.into_iter().flat_map(Places::pages) {
            ground.restore(&(page..page + places::PAGE));
        }
        let changed = ground.changed(|gpa| {
            let text = "memory changed that no command named";
            self.finding(FindingKind::GuardHit, gpa.0, text);
        });
        let shared = self.shared;
        shared.tally.guard_hits.fetch_add(changed, Relaxed);
        let [good, refused] = counts.completed;
        let meddled = self.meddler.map_or(0, Meddler::stores);
        let lines = [
            format!(
                "sequences={} io={} admin={} succeeded={good} refused={refused} rings={} stores={}",
                counts.sequences, counts.io, counts.admin, counts.rings, counts.stores,
            ),
            format!(
                "forged={} scribbled={} meddled={meddled} disabled={} resets={} masters={} revived={} proofs={}",
                counts.forged,
                counts.scribbled,
                counts.disabled,
                counts.resets,
                counts.masters,
                counts.revived,
                counts.proofs,
            ),
        ];
        let [first, second] = &lines;
        shared
            .report
            .comment(format_args!("{NAME} {first} {second}"));
        let test = |is_good: bool, what| {
            let name = format_args!("{NAME} {}: {what}", self.id);
            shared.report.test(is_good, name);
        };
        test(ended.is_ok(), "what is right works in the end");
        test(changed == 0, "all other memory is as it was");
    }
}
