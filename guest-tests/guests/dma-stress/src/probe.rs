// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which memory a device really reads and writes.
//!
//! Memory is stamped: each word encodes its address. A device that copies a word then reveals by
//! the word what it read from and by the place what it put it down at.

use alloc::vec::Vec;

use address::Gpa;

use crate::diagnose::{Diagnosis, SIZES, alike, moved, near};
use crate::engine::{Direction, Engine, Transfer};
use crate::memory::Memory;
use crate::place::{Buffer, Reservations};
use crate::ram::Ram;

/// Upper bits of a stamp; addresses have at most 52 bits.
const STAMP: u64 = 0xd3a << 52;
const STAMP_MASK: u64 = 0xfff << 52;
const WORD: u64 = 8;

/// Memory to stamp, and what of it is in use.
#[derive(Debug)]
pub struct Ground<'a, M> {
    /// Memory.
    pub memory: &'a M,
    /// RAM.
    pub ram: &'a Ram,
    /// What transfers use.
    pub reservations: &'a Reservations,
}

impl<M: Memory> Ground<'_, M> {
    /// Moves a word from `source` to the device and on to `target`, and reports what went wrong on
    /// the way; `None` if nothing did, or it is unknown. Contents of all memory that is not in
    /// use are lost.
    pub fn probe(
        &self,
        engine: &mut dyn Engine,
        source: &Buffer,
        target: &Buffer,
    ) -> Option<Diagnosis> {
        let len = engine.limits().granule.max(WORD);
        let (from, to) = (spot(source, len)?, spot(target, len)?);
        let (read, written) = SIZES
            .into_iter()
            .find_map(|size| self.probe_pieces(engine, source, target, size))?;
        Some(match read == from {
            true => moved("the device wrote", to, written),
            false => moved("the device read", from, read),
        })
    }

    /// The same with stamps in every piece of `size` bytes: where the device really read and wrote,
    /// if it is not the requested place.
    fn probe_pieces(
        &self,
        engine: &mut dyn Engine,
        source: &Buffer,
        target: &Buffer,
        size: u64,
    ) -> Option<(Gpa, Gpa)> {
        let len = engine.limits().granule.max(WORD);
        let (from, to) = (spot(source, len)?, spot(target, len)?);
        self.stamp(source, from, size);
        let bytes = usize::try_from(len).ok()?;
        self.memory.fill(to, bytes, || 0).ok()?;
        let transfer = |direction, gpa| Transfer {
            direction,
            gpa,
            device: 0,
            len,
        };
        let mut outcomes = Vec::new();
        engine.run(&[transfer(Direction::ToDevice, from)], &mut outcomes);
        engine.run(&[transfer(Direction::FromDevice, to)], &mut outcomes);

        let found = self.stray(from, to, size)?;
        (found != (from, to)).then_some(found)
    }

    /// Stamps what is near `from`, and every piece at its offset.
    fn stamp(&self, source: &Buffer, from: Gpa, size: u64) {
        let stamp = |place: Gpa| {
            // Places are in RAM.
            let _ = self.memory.fill(place, 8, || STAMP | place.0);
        };
        for place in near(self.ram, from).chain(alike(self.ram, from, size)) {
            let range = place..place + WORD;
            let apart = (place.0.wrapping_sub(from.0)).is_multiple_of(WORD);
            let free = self.ram.holds(&range).is_some() && !self.reservations.touches(&range);
            if apart && free {
                stamp(place);
            }
        }
        let mut place = from;
        while place + WORD <= source.whole.end {
            stamp(place);
            place = place + WORD;
        }
    }

    /// The stamp that is not where it was made: the address that it encodes, and its place.
    fn stray(&self, source: Gpa, target: Gpa, size: u64) -> Option<(Gpa, Gpa)> {
        let told = |place: Gpa, word: u64| {
            let gpa = Gpa(word & !STAMP_MASK);
            let known = gpa.0.wrapping_sub(source.0).is_multiple_of(WORD)
                && self
                    .ram
                    .extents()
                    .iter()
                    .any(|extent| extent.contains(&gpa));
            (word & STAMP_MASK == STAMP && gpa != place && known).then_some((gpa, place))
        };
        let at = |place: Gpa| {
            let word = self.memory.read_word(place).ok()?;
            told(place, word)
        };
        at(target)
            .or_else(|| near(self.ram, target).find_map(at))
            .or_else(|| alike(self.ram, target, size).find_map(at))
    }
}

/// Where in a buffer or what is around it `len` bytes have room, as near to its start as can be.
fn spot(buffer: &Buffer, len: u64) -> Option<Gpa> {
    let last = buffer.whole.end.0.checked_sub(len)?;
    let align = buffer.gpa.0 & buffer.gpa.0.wrapping_neg();
    let spot = Gpa(last.min(buffer.gpa.0)).align_down(align.clamp(1, WORD));
    (spot >= buffer.whole.start).then_some(spot)
}
