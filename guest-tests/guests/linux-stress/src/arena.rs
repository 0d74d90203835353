// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Memory for transfers, at any place in a page, with watched bytes around each.

use std::ops::Range;

/// What memory holds before a read: a byte that no stamped data is made of for long.
pub const POISON: u8 = 0xa5;

/// Watched bytes before and behind a buffer.
pub const GUARD: usize = 64;

const PAGE: usize = 4096;

/// Memory of one thread.
#[derive(Debug)]
pub struct Arena {
    memory: Vec<u8>,
    /// Index of the first byte of a page.
    base: usize,
    len: usize,
}

impl Arena {
    /// Bytes from one place to the next.
    pub const PLACE: usize = PAGE;

    /// An arena for buffers of up to `most` bytes at `places` different pages or more;
    /// only those in use take memory.
    #[must_use]
    pub fn new(most: usize, places: usize) -> Self {
        let len = most + (places + 2) * PAGE;
        let memory = vec![0; len + PAGE];
        let base = memory.as_ptr().align_offset(PAGE).min(PAGE);
        Self { memory, base, len }
    }

    /// A place for `len` bytes, a multiple of `align` (at least [`GUARD`]) behind the begin of a page; the
    /// largest `len` is that of [`new`](Self::new).
    pub fn choose(&self, rng: &mut fastrand::Rng, len: usize, align: usize) -> Range<usize> {
        let align = align.max(GUARD);
        let last = self.len.saturating_sub(len + GUARD) / align;
        let start = rng.usize(1..=last.max(1)) * align;
        start..start + len
    }

    /// The buffer at a place that [`choose`](Self::choose) returned.
    pub fn buffer(&mut self, place: &Range<usize>) -> &mut [u8] {
        &mut self.memory[self.base + place.start..self.base + place.end]
    }

    /// Fills a buffer and its guards with [`POISON`].
    pub fn poison(&mut self, place: &Range<usize>) {
        let guarded = self.base + place.start - GUARD..self.base + place.end + GUARD;
        self.memory[guarded].fill(POISON);
    }

    /// The distance from the buffer's begin to the first changed byte around it.
    #[must_use]
    pub fn guard_hit(&self, place: &Range<usize>) -> Option<isize> {
        let (start, end) = (self.base + place.start, self.base + place.end);
        let mut guards = (start - GUARD..start).chain(end..end + GUARD);
        let hit = guards.find(|at| self.memory[*at] != POISON)?;
        Some(hit.wrapping_sub(start).cast_signed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_lie_inside_and_at_many_offsets() {
        let mut arena = Arena::new(8192, 4);
        let mut rng = fastrand::Rng::with_seed(1);
        let mut offsets = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let len = 512 * rng.usize(1..=16);
            let place = arena.choose(&mut rng, len, 512);
            arena.poison(&place);
            assert_eq!(arena.buffer(&place).len(), len);
            assert_eq!(arena.guard_hit(&place), None);
            offsets.insert(arena.buffer(&place).as_ptr().addr() % PAGE);
        }
        assert_eq!(offsets.len(), 8);
        assert!(offsets.iter().all(|offset| offset % 512 == 0));
    }

    #[test]
    fn a_byte_too_early_or_too_late_is_seen() {
        let mut arena = Arena::new(4096, 1);
        for at in [-1_isize, -64, 512, 575] {
            let place = 1024..1536;
            arena.poison(&place);
            let index = (arena.base + place.start).wrapping_add_signed(at);
            arena.memory[index] = 0;
            assert_eq!(arena.guard_hit(&place), Some(at));
        }
    }
}
