// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Memory of which every word is known.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use address::Gpa;

use crate::memory::Memory;
use crate::ram::Ram;

const PAGE: u64 = 4096;
/// How often a place is tried before there is none.
const TRIES: usize = 256;
/// Odd, so that no two words are the same.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// All RAM that nothing else is in, with words that encode their address.
#[derive(Debug)]
pub struct Ground<'a, M> {
    memory: &'a M,
    ram: &'a Ram,
    seed: u64,
}

fn bytes(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

impl<'a, M: Memory> Ground<'a, M> {
    /// Fills it.
    pub fn lay(memory: &'a M, ram: &'a Ram, seed: u64) -> Self {
        let ground = Self { memory, ram, seed };
        for range in ground.free() {
            ground.restore(&range);
        }
        ground
    }

    /// The ranges that it has, of whole words.
    fn free(&self) -> impl Iterator<Item = Range<Gpa>> {
        self.ram.free().filter_map(|range| {
            let start = range.start.align_up(8)?;
            let end = range.end.align_down(8);
            (start < end).then_some(start..end)
        })
    }

    fn words(&self, gpa: Gpa) -> impl FnMut() -> u64 {
        let mut word = (gpa.0 ^ self.seed << 52).wrapping_mul(FACTOR);
        move || {
            let now = word;
            word = word.wrapping_add(FACTOR.wrapping_mul(8));
            now
        }
    }

    /// Puts the words of `range` back, which begins at a multiple of 8.
    pub fn restore(&self, range: &Range<Gpa>) {
        let len = bytes(range.end - range.start);
        let filled = self.memory.fill(range.start, len, self.words(range.start));
        debug_assert!(filled.is_ok(), "the ground is in RAM");
    }

    /// What `range` has if nothing changed it.
    #[must_use]
    pub fn expected(&self, range: &Range<Gpa>) -> Vec<u8> {
        let start = range.start.align_down(8);
        let mut next = self.words(start);
        let words = (range.end - start).div_ceil(8);
        let all: Vec<_> = (0..words).flat_map(|_| next().to_le_bytes()).collect();
        let skip = bytes(range.start - start);
        all[skip..skip + bytes(range.end - range.start)].to_vec()
    }

    /// What `range` has.
    #[must_use]
    pub fn actual(&self, range: &Range<Gpa>) -> Vec<u8> {
        let mut actual = vec![0; bytes(range.end - range.start)];
        // Outside of RAM it stays zero, and is as wrong as anything.
        let _ = self.memory.read(range.start, &mut actual);
        actual
    }

    /// Calls `tell` with the first changed byte of each page that changed, and counts these.
    pub fn changed(&self, mut tell: impl FnMut(Gpa)) -> u64 {
        let mut pages = 0;
        for range in self.free() {
            let mut start = range.start;
            while start < range.end {
                let end = Gpa((start.0 / PAGE + 1) * PAGE).min(range.end);
                let len = bytes(end - start);
                let first = self.memory.first_difference(start, len, self.words(start));
                if let Some(offset) = first.unwrap_or(Some(0)) {
                    pages += 1;
                    tell(start + offset as u64);
                }
                start = end;
            }
        }
        pages
    }

    /// The pages that `range` has bytes in.
    #[must_use]
    pub fn pages(range: &Range<Gpa>) -> Range<Gpa> {
        let end = Gpa(range.end.0.div_ceil(PAGE) * PAGE);
        range.start.align_down(PAGE)..end
    }

    /// A place of `pages` whole pages by chance.
    pub fn place(&self, pages: u64, random: &mut fastrand::Rng) -> Option<Gpa> {
        let extents = self.ram.extents();
        (0..TRIES).find_map(|_| {
            let extent = extents.get(random.usize(..extents.len().max(1)))?;
            let gpa = Gpa(random.u64(extent.start.0..extent.end.0)).align_down(PAGE);
            let range = gpa..gpa + pages * PAGE;
            self.ram.holds(&range).is_some().then_some(gpa)
        })
    }
}
