// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A payload's way to the device and back into another buffer.

use alloc::format;
use alloc::vec::Vec;
use core::fmt::Write;
use core::ops::Range;

use address::Gpa;

use crate::diagnose::{Diagnosis, Wrong};
use crate::memory::{Memory, OutsideRam};
use crate::pattern::{KINDS, Pattern, Sink};
use crate::place::{Buffer, Reservations};
use crate::ram::Ram;
use crate::shape::{Limits, Place, Shape};
use crate::stress::Shared;

/// Smallest and usual largest guard zone in bytes, and the one that some buffers have.
const GUARD: Range<u64> = 64..256;
const LARGE_GUARD: u64 = 4096;
/// One buffer of so many has a large one.
const LARGE_GUARD_EVERY: u64 = 16;

/// Two buffers and what should go from one to the other. An engine that may not write its device
/// fills both.
#[derive(Debug)]
pub struct Pair {
    source: Buffer,
    target: Buffer,
    device: u64,
    /// What the source has; `None` if the device filled it.
    pattern: Option<Pattern>,
    poison: u64,
}

/// A guard zone that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardHit {
    /// First byte that did.
    pub gpa: Gpa,
    /// In words.
    pub text: alloc::string::String,
}

struct Fill<'a, M>(&'a M, &'a Buffer);

impl<M: Memory> Sink<Result<(), OutsideRam>> for Fill<'_, M> {
    fn words(self, next: impl FnMut() -> u64) -> Result<(), OutsideRam> {
        self.0.fill(self.1.gpa, bytes(self.1.len), next)
    }
}

struct Verify<'a, M>(&'a M, &'a Buffer);

impl<M: Memory> Sink<Option<usize>> for Verify<'_, M> {
    fn words(self, next: impl FnMut() -> u64) -> Option<usize> {
        let len = bytes(self.1.len);
        self.0
            .first_difference(self.1.gpa, len, next)
            .unwrap_or(Some(0))
    }
}

struct Expect(usize);

impl Sink<Vec<u8>> for Expect {
    fn words(self, mut next: impl FnMut() -> u64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.0 + 8);
        while bytes.len() < self.0 {
            bytes.extend(next().to_le_bytes());
        }
        bytes.truncate(self.0);
        bytes
    }
}

fn bytes(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

impl Pair {
    /// Places two buffers of `shape`; if there is but one such place, the other is anywhere.
    pub fn place<M, W: Write>(
        shared: &Shared<'_, M, W>,
        shape: Shape,
        random: &mut fastrand::Rng,
    ) -> Option<Self> {
        let place = |shape: Shape, random: &mut fastrand::Rng| {
            let guard = match random.u64(..LARGE_GUARD_EVERY) {
                0 => LARGE_GUARD,
                _ => random.u64(GUARD),
            };
            let all = shared.reservations;
            all.place(shared.ram, shape, guard, random)
        };
        let first = place(shape, random)?;
        // There may be only one such place.
        let anywhere = Shape {
            place: Place::At(0),
            ..shape
        };
        let second = place(shape, random).or_else(|| place(anywhere, random));
        let Some(second) = second else {
            shared.reservations.release(&first);
            return None;
        };
        let (source, target) = match random.bool() {
            true => (first, second),
            false => (second, first),
        };
        Some(Self {
            source,
            target,
            device: 0,
            pattern: None,
            poison: 0,
        })
    }

    /// Selects a place on the device's side, in the part that is `slot`'s.
    pub fn choose_device_side(&mut self, slot: usize, limits: &Limits, random: &mut fastrand::Rng) {
        let share = limits.room / limits.depth as u64 / limits.granule * limits.granule;
        let free = share.saturating_sub(self.size()) / limits.granule;
        self.device = slot as u64 * share + random.u64(..=free) * limits.granule;
    }

    /// Fills both buffers and what is around them. `number` selects the pattern.
    pub fn fill(
        &mut self,
        memory: &impl Memory,
        number: u64,
        limits: &Limits,
        random: &mut fastrand::Rng,
    ) {
        self.poison = random.u64(..);
        let poison = self.poison;
        let poisoned =
            |zone: &Range<Gpa>| memory.fill(zone.start, bytes(zone.end - zone.start), || poison);
        let [before, after] = zones(&self.source);
        let mut filled = poisoned(&self.target.whole);
        if limits.writable {
            let kind = KINDS[bytes(number % KINDS.len() as u64)];
            let pattern = Pattern {
                kind,
                tag: random.u64(..),
            };
            self.pattern = Some(pattern);
            let shifted = self.poison_at(&self.source, after.start);
            filled = filled
                .and(poisoned(&before))
                .and(pattern.with(Fill(memory, &self.source)))
                .and(memory.fill(after.start, bytes(after.end - after.start), || shifted));
        } else {
            filled = filled.and(poisoned(&self.source.whole));
        }
        debug_assert!(filled.is_ok(), "buffers are in RAM");
    }

    /// The poison as words that begin at `gpa` have it.
    fn poison_at(&self, buffer: &Buffer, gpa: Gpa) -> u64 {
        let phase = (gpa - buffer.whole.start) % 8;
        self.poison
            .rotate_right(u32::try_from(phase * 8).unwrap_or(0))
    }

    /// Where the payload comes from.
    #[must_use]
    pub fn source(&self) -> &Buffer {
        &self.source
    }

    /// Where it ends up.
    #[must_use]
    pub fn target(&self) -> &Buffer {
        &self.target
    }

    /// Where it is on the device's side.
    #[must_use]
    pub fn device(&self) -> u64 {
        self.device
    }

    /// Its bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.source.len
    }

    /// Gives the buffers back.
    pub fn release(&self, reservations: &Reservations) {
        reservations.release(&self.source);
        reservations.release(&self.target);
    }

    /// The guard zones that changed.
    pub fn guard_hits(&self, memory: &impl Memory) -> impl Iterator<Item = GuardHit> {
        [&self.source, &self.target]
            .into_iter()
            .flat_map(move |buffer| {
                zones(buffer).into_iter().filter_map(move |zone| {
                    let poison = self.poison_at(buffer, zone.start);
                    let len = bytes(zone.end - zone.start);
                    let first = memory.first_difference(zone.start, len, || poison);
                    let gpa = zone.start + first.unwrap_or(Some(0))? as u64;
                    let (far, side) = match gpa < buffer.gpa {
                        true => (buffer.gpa - gpa, "before"),
                        false => (gpa - (buffer.gpa + buffer.len) + 1, "behind"),
                    };
                    Some(GuardHit {
                        gpa,
                        text: format!(
                            "a byte {far} {side} the buffer {:#x?} changed",
                            buffer.body()
                        ),
                    })
                })
            })
    }

    /// Offset of the first byte in the target that is not what it should be.
    #[must_use]
    pub fn first_wrong(&self, memory: &impl Memory) -> Option<usize> {
        match self.pattern {
            Some(pattern) => pattern.with(Verify(memory, &self.target)),
            None => {
                let expected = self.expected(memory);
                let mut words = expected.chunks(8).map(|chunk| {
                    let mut word = [0; 8];
                    word[..chunk.len()].copy_from_slice(chunk);
                    u64::from_le_bytes(word)
                });
                Verify(memory, &self.target).words(|| words.next().unwrap_or(0))
            }
        }
    }

    fn expected(&self, memory: &impl Memory) -> Vec<u8> {
        match self.pattern {
            Some(pattern) => pattern.with(Expect(bytes(self.size()))),
            None => content(memory, &self.source),
        }
    }

    /// Diagnoses the target from byte `first` on. `probe` may try the engine out, and spoils
    /// memory.
    pub fn diagnose(
        &self,
        memory: &impl Memory,
        ram: &Ram,
        first: usize,
        probe: impl FnOnce() -> Option<Diagnosis>,
    ) -> Diagnosis {
        let (expected, actual) = (self.expected(memory), content(memory, &self.target));
        let wrong = Wrong {
            gpa: self.target.gpa,
            first,
            expected: &expected,
            actual: &actual,
            source: self.source.body(),
        };
        wrong
            .flipped()
            .or_else(|| wrong.strayed(memory, ram))
            .or_else(probe)
            .unwrap_or_else(|| wrong.differs())
    }
}

/// The guard zones before and behind a buffer; one may be empty.
fn zones(buffer: &Buffer) -> [Range<Gpa>; 2] {
    let body = buffer.body();
    [buffer.whole.start..body.start, body.end..buffer.whole.end]
}

fn content(memory: &impl Memory, buffer: &Buffer) -> Vec<u8> {
    let mut content = alloc::vec![0; bytes(buffer.len)];
    // Outside of RAM it stays zero, and is as wrong as anything.
    let _ = memory.read(buffer.gpa, &mut content);
    content
}
