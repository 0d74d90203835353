//! Which memory a device really reads and writes.
//!
//! Memory is stamped: words say at which address they stand. A device that is told to fetch a
//! word, and to put it down somewhere, then tells by the word what it fetched from and by the
//! place what it put it down at.

use alloc::vec::Vec;

use address::Gpa;

use crate::diagnose::{Diagnosis, NEAR, moved, near, pages_like};
use crate::engine::{Direction, Engine, Transfer};
use crate::memory::Memory;
use crate::place::{Buffer, Reservations};
use crate::ram::Ram;

/// Upper bits of a stamp; addresses have at most 52 bits.
const STAMP: u64 = 0xd3a << 52;
const STAMP_MASK: u64 = 0xfff << 52;
const WORD: u64 = 8;

/// Memory to stamp, and what in it is somebody's.
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
    /// Moves a word from `source` to the device and on to `target`, both large enough for the
    /// engine's shortest transfer, and tells what went wrong on the way; `None` if nothing did,
    /// or it cannot be told. Contents of all memory that nobody uses are lost.
    pub fn probe(
        &self,
        engine: &mut dyn Engine,
        source: &Buffer,
        target: &Buffer,
    ) -> Option<Diagnosis> {
        let len = engine.limits().granule.max(WORD);
        if source.len < len || target.len < len {
            return None;
        }
        self.stamp(source);
        self.memory
            .fill(target.gpa, usize::try_from(target.len).ok()?, || 0)
            .ok()?;
        let transfer = |direction, gpa| Transfer {
            direction,
            gpa,
            device: 0,
            len,
        };
        let mut outcomes = Vec::new();
        engine.run(&[transfer(Direction::ToDevice, source.gpa)], &mut outcomes);
        engine.run(
            &[transfer(Direction::FromDevice, target.gpa)],
            &mut outcomes,
        );

        let (read, written) = self.stray(source.gpa, target.gpa)?;
        if read != source.gpa {
            Some(moved("the device read", source.gpa, read))
        } else if written != target.gpa {
            Some(moved("the device wrote", target.gpa, written))
        } else {
            None
        }
    }

    /// Stamps what is near the source, and every page at its offset.
    fn stamp(&self, source: &Buffer) {
        let start = source.gpa.0.saturating_sub(NEAR);
        let neighbours = (0..2 * NEAR / WORD).map(|word| Gpa(start + word * WORD));
        for place in neighbours.chain(pages_like(self.ram, source.gpa)) {
            let range = place..place + WORD;
            let own = source.whole.start <= range.start && range.end <= source.whole.end;
            let free = self.ram.holds(&range).is_some() && !self.reservations.touches(&range);
            if own || free {
                let _ = self.memory.fill(place, 8, || STAMP | place.0);
            }
        }
    }

    /// The stamp that is not where it was made: the address that it tells, and its place.
    fn stray(&self, source: Gpa, target: Gpa) -> Option<(Gpa, Gpa)> {
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
            let mut word = [0; 8];
            self.memory.read(place, &mut word).ok()?;
            told(place, u64::from_le_bytes(word))
        };
        at(target)
            .or_else(|| {
                let (start, bytes) = near(self.memory, self.ram, target)?;
                bytes.windows(8).enumerate().find_map(|(offset, word)| {
                    told(
                        start + offset as u64,
                        u64::from_le_bytes(*word.first_chunk()?),
                    )
                })
            })
            .or_else(|| pages_like(self.ram, target).find_map(at))
    }
}
