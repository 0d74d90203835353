// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! One thread's work on a disk.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;

use stress_format::{Finding, FindingKind};

use super::region::{Region, Span};
use super::{Disk, MAX_BYTES, Subject};
use crate::arena::Arena;
use crate::diagnose::{Diagnosis, Expected, diagnose};
use crate::meter::{Meter, Tally};
use crate::pagemap::Pagemap;
use crate::report::Report;
use crate::stamp::Stamp;
use crate::tsc;

/// Spans written last that a read prefers.
const RECENT: usize = 16;

/// After so many errors in a row a thread gives up.
const MAX_ERRORS: u32 = 8;

/// What all threads share.
#[derive(Clone, Copy, Debug)]
pub struct Shared<'a> {
    /// Counts.
    pub meter: &'a Meter,
    /// Where findings go.
    pub report: &'a Report,
    /// Where memory is, if that is known.
    pub pagemap: Option<&'a Pagemap>,
}

/// A thread.
#[derive(Debug)]
pub struct Worker<'a, D> {
    subject: &'a Subject<D>,
    shared: Shared<'a>,
    region: &'a Region,
    rng: fastrand::Rng,
    arena: Arena,
    tally: Tally,
    recent: VecDeque<Span>,
    /// Of every block of a read, the write that had ended before it.
    oldest: Vec<u32>,
    problems: u64,
    errors_in_a_row: u32,
}

impl<'a, D: Disk> Worker<'a, D> {
    /// The thread that writes in `region`, one of the subject's, from and to `arena`, which has room for
    /// [`MAX_BYTES`].
    #[must_use]
    pub fn new(
        subject: &'a Subject<D>,
        region: &'a Region,
        shared: Shared<'a>,
        arena: Arena,
        seed: u64,
    ) -> Self {
        Self {
            subject,
            shared,
            region,
            rng: fastrand::Rng::with_seed(seed),
            arena,
            tally: Tally::default(),
            recent: VecDeque::new(),
            oldest: Vec::new(),
            problems: 0,
            errors_in_a_row: 0,
        }
    }

    /// Random transfers for as long as `goes_on`, which is asked with the number of those that were done. Returns
    /// how many transfers had something wrong.
    pub fn mix(mut self, goes_on: &(dyn Fn(u64) -> bool + Sync)) -> u64 {
        let mut done = 0;
        while goes_on(done) && self.errors_in_a_row < MAX_ERRORS {
            if self.subject.writable {
                self.random_step();
            } else {
                self.read_twice();
            }
            done += 1;
        }
        self.finish()
    }

    /// Reads everything that was ever written in the region. Returns how many transfers had something wrong.
    pub fn verify(mut self) -> u64 {
        let region = self.region;
        for span in region.spans(self.most_blocks()) {
            if self.errors_in_a_row >= MAX_ERRORS {
                break;
            }
            let was_written = |slot| region.ended(slot) > 0;
            if (span.slot..span.slot + span.blocks).any(was_written) {
                self.read(region, span);
            }
        }
        self.finish()
    }

    fn finish(self) -> u64 {
        self.shared.meter.add(&self.tally);
        self.problems
    }

    fn most_blocks(&self) -> usize {
        (MAX_BYTES / self.subject.block).max(1)
    }

    fn random_step(&mut self) {
        let most = self.most_blocks();
        let dice = self.rng.u32(0..100);
        let region = if dice < 10 {
            let index = self.rng.usize(0..self.subject.regions.len());
            &self.subject.regions[index]
        } else {
            self.region
        };
        let Some(span) = region.choose(&mut self.rng, most) else {
            return;
        };
        match dice {
            0..10 => self.read(region, span),
            10..60 => self.write(span),
            _ => {
                let recent = self.rng.usize(0..RECENT * 2);
                let span = self.recent.get(recent).copied().unwrap_or(span);
                self.read(region, span);
            }
        }
    }

    fn write(&mut self, span: Span) {
        let (subject, region) = (self.subject, self.region);
        let place = self.place(span);
        let slots = span.slot..span.slot + span.blocks;
        let buffer = self.arena.buffer(&place);
        for (slot, block) in slots.clone().zip(buffer.chunks_mut(subject.block)) {
            let stamp = Stamp {
                medium: subject.engine,
                offset: subject.offset(region, slot),
                generation: region.begin(slot),
            };
            subject.stamper.fill(block, stamp);
        }
        let offset = subject.offset(region, span.slot);
        let began = tsc::now();
        let result = subject.disk.write(buffer, offset);
        self.count(began, &place, result.is_ok());
        match result {
            Ok(()) => {
                slots.for_each(|slot| region.end(slot));
                self.recent.truncate(RECENT - 1);
                self.recent.push_front(span);
            }
            Err(error) => self.failed("write", offset, &place, &error),
        }
    }

    /// Reads and looks at what is known of it.
    fn read(&mut self, region: &Region, span: Span) {
        let subject = self.subject;
        let slots = span.slot..span.slot + span.blocks;
        self.oldest.clear();
        self.oldest
            .extend(slots.clone().map(|slot| region.ended(slot)));
        let place = self.place(span);
        if !self.read_into(&place, subject.offset(region, span.slot)) {
            return;
        }
        let buffer = self.arena.buffer(&place);
        let mut bad: Option<(usize, Diagnosis)> = None;
        let mut bad_blocks = 0;
        for (index, block) in buffer.chunks(subject.block).enumerate() {
            let slot = span.slot + index;
            let expected = Expected {
                medium: subject.engine,
                offset: subject.offset(region, slot),
                oldest: self.oldest[index],
                newest: region.begun(slot),
            };
            // What was on the disk before is not known.
            if expected.oldest == 0 || expected.is_met(subject.stamper, block) {
                continue;
            }
            bad_blocks += 1;
            bad.get_or_insert_with(|| (index, diagnose(subject.stamper, block, &expected)));
        }
        if let Some((index, diagnosis)) = bad {
            let text = format!(
                "{}: offset {:#x}: {} ({bad_blocks} bad of {} blocks read)",
                subject.name,
                subject.offset(region, span.slot + index),
                diagnosis.text,
                span.blocks
            );
            let at = place.start + index * subject.block..place.end;
            self.mismatch(diagnosis.kind, &at, &place, &text);
        }
    }

    /// Reads the same blocks into two buffers and compares them.
    fn read_twice(&mut self) {
        let most = self.most_blocks();
        let Some(span) = self.region.choose(&mut self.rng, most) else {
            return;
        };
        let subject = self.subject;
        let offset = subject.offset(self.region, span.slot);
        let place = self.place(span);
        if !self.read_into(&place, offset) {
            return;
        }
        let first = self.arena.buffer(&place).to_vec();
        let place = self.place(span);
        if !self.read_into(&place, offset) {
            return;
        }
        let mut pairs = self.arena.buffer(&place).iter().zip(&first);
        let Some(at) = pairs.position(|(second, first)| second != first) else {
            return;
        };
        let text = format!(
            "{}: two reads of offset {offset:#x} differ from byte {at} on",
            subject.name
        );
        let wrong = place.start + at..place.end;
        self.mismatch(FindingKind::Mismatch, &wrong, &place, &text);
    }

    /// Fills the buffer at `place`; returns whether that went well.
    fn read_into(&mut self, place: &Range<usize>, offset: u64) -> bool {
        self.arena.poison(place);
        let buffer = self.arena.buffer(place);
        let began = tsc::now();
        let result = self.subject.disk.read(buffer, offset);
        self.count(began, place, result.is_ok());
        if let Some(distance) = self.arena.guard_hit(place) {
            self.shared.meter.guard_hit();
            let text = format!(
                "{}: reading offset {offset:#x} changed the byte {distance} bytes from its buffer's begin",
                self.subject.name
            );
            self.finding(FindingKind::GuardHit, place, place, &text);
        }
        if let Err(error) = &result {
            self.failed("read", offset, place, error);
        }
        result.is_ok()
    }

    /// A random buffer for a span.
    fn place(&mut self, span: Span) -> Range<usize> {
        let block = self.subject.block;
        self.arena.choose(&mut self.rng, span.blocks * block, block)
    }

    fn count(&mut self, began: u64, place: &Range<usize>, moved: bool) {
        let ticks = tsc::now().wrapping_sub(began);
        self.tally.histogram.add(ticks);
        self.shared.meter.transfer();
        if !moved {
            return;
        }
        self.errors_in_a_row = 0;
        self.shared.meter.moved(place.len());
        if let Some(pagemap) = self.shared.pagemap {
            for (gpa, len) in pagemap.pieces(self.arena.buffer(place)) {
                self.tally.land(gpa, len);
            }
        }
    }

    fn failed(&mut self, what: &str, offset: u64, place: &Range<usize>, error: &io::Error) {
        self.errors_in_a_row += 1;
        let kind = if error.kind() == io::ErrorKind::TimedOut {
            FindingKind::Timeout
        } else {
            FindingKind::DeviceError
        };
        let text = format!(
            "{}: {what} of offset {offset:#x}: {error}",
            self.subject.name
        );
        self.finding(kind, place, place, &text);
    }

    fn mismatch(
        &mut self,
        kind: FindingKind,
        wrong: &Range<usize>,
        place: &Range<usize>,
        text: &str,
    ) {
        self.shared.meter.mismatch();
        self.finding(kind, wrong, place, text);
    }

    /// Diagnoses the transfer at `place` from the beginning of `wrong` on.
    fn finding(
        &mut self,
        kind: FindingKind,
        wrong: &Range<usize>,
        place: &Range<usize>,
        text: &str,
    ) {
        self.problems += 1;
        let len = place.len() as u64;
        let buffer = self.arena.buffer(wrong);
        let gpa = self.shared.pagemap.map_or(0, |pagemap| pagemap.gpa(buffer));
        self.shared.report.finding(&Finding {
            kind,
            engine: self.subject.engine.into(),
            gpa,
            len,
            text,
        });
    }
}

impl<D> Subject<D> {
    /// The offset of a slot's block on the disk in bytes.
    fn offset(&self, region: &Region, slot: usize) -> u64 {
        region.block(slot) * self.block as u64
    }
}
