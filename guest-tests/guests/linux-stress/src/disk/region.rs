// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The part of a disk in which one thread writes.

use std::sync::atomic::{AtomicU32, Ordering};

/// Some blocks of a disk in *chunks* of equal length and distance, and how often each was written.
///
/// ```text
/// region   |------------------------------------------|
/// chunks   |####......|####......|####......|####.....|
///          0 1 2 3    4 5 6 7                            slots
/// ```
#[derive(Debug)]
pub struct Region {
    first: u64,
    chunk: usize,
    stride: u64,
    /// Of every slot, the last write that began.
    begun: Vec<AtomicU32>,
    /// Of every slot, the last write that ended well.
    ended: Vec<AtomicU32>,
}

/// Neighbouring blocks of one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First slot.
    pub slot: usize,
    /// Blocks.
    pub blocks: usize,
}

impl Region {
    /// `blocks` blocks from `first` on, of which at most `most` are used, in chunks of `chunk`.
    #[must_use]
    pub fn new(first: u64, blocks: u64, most: u64, chunk: u64) -> Self {
        let used = blocks.min(most);
        let chunk = chunk.clamp(1, used.max(1));
        let chunks = used / chunk;
        let stride = blocks / chunks.max(1);
        let slots = usize::try_from(chunks * chunk).unwrap_or(0);
        let zeros = || (0..slots).map(|_| AtomicU32::new(0)).collect();
        Self {
            first,
            chunk: usize::try_from(chunk).unwrap_or(1),
            stride,
            begun: zeros(),
            ended: zeros(),
        }
    }

    /// How many blocks are used.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.begun.len()
    }

    /// The disk's block behind a slot.
    #[must_use]
    pub fn block(&self, slot: usize) -> u64 {
        let (chunk, inside) = (slot / self.chunk, slot % self.chunk);
        self.first + chunk as u64 * self.stride + inside as u64
    }

    /// A random span of at most `most` blocks: short and long ones alike, odd numbers more often than even ones.
    /// `None` if the region is empty.
    pub fn choose(&self, rng: &mut fastrand::Rng, most: usize) -> Option<Span> {
        if self.slots() == 0 {
            return None;
        }
        let most = most.clamp(1, self.chunk);
        let begin = 1_usize << rng.u32(0..=most.ilog2());
        let mut blocks = rng.usize(begin..=most.min(2 * begin - 1));
        if rng.bool() && blocks | 1 <= most {
            blocks |= 1;
        }
        let chunk = rng.usize(0..self.slots() / self.chunk);
        let slot = chunk * self.chunk + rng.usize(0..=self.chunk - blocks);
        Some(Span { slot, blocks })
    }

    /// All slots in order, in spans of at most `most` blocks.
    pub fn spans(&self, most: usize) -> impl Iterator<Item = Span> {
        let most = most.clamp(1, self.chunk);
        let chunks = (0..self.slots()).step_by(self.chunk);
        chunks.flat_map(move |chunk| {
            (0..self.chunk).step_by(most).map(move |inside| Span {
                slot: chunk + inside,
                blocks: most.min(self.chunk - inside),
            })
        })
    }

    /// A write of a slot begins; returns its number, from 1.
    pub fn begin(&self, slot: usize) -> u32 {
        self.begun[slot].fetch_add(1, Ordering::AcqRel) + 1
    }

    /// The last write of a slot that began has ended well.
    pub fn end(&self, slot: usize) {
        let begun = self.begun[slot].load(Ordering::Acquire);
        self.ended[slot].store(begun, Ordering::Release);
    }

    /// The last write of a slot that ended; 0 if none has.
    #[must_use]
    pub fn ended(&self, slot: usize) -> u32 {
        self.ended[slot].load(Ordering::Acquire)
    }

    /// The last write of a slot that began; 0 if none has.
    #[must_use]
    pub fn begun(&self, slot: usize) -> u32 {
        self.begun[slot].load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::regions;
    use super::*;

    proptest! {
        #[test]
        fn no_block_is_in_two_places(bytes in 0_u64..1 << 22, block in prop::sample::select(vec![512_usize, 4096]), threads in 1_usize..6) {
            let mut seen = BTreeSet::new();
            for region in regions(bytes, block, threads) {
                for slot in 0..region.slots() {
                    let number = region.block(slot);
                    prop_assert!(seen.insert(number));
                    prop_assert!((number + 1) * block as u64 <= bytes);
                }
            }
        }

        #[test]
        fn chunks_of_a_large_disk_are_spread_inside_it(blocks in 1_u64..1 << 50, most in 1_u64..5000, chunk in 1_u64..4096) {
            let region = Region::new(7, blocks, most, chunk);
            let slots = region.slots();
            prop_assert!(slots >= 1 && slots as u64 <= most);
            prop_assert!(region.block(slots - 1) < 7 + blocks);
            let numbers: Vec<u64> = (0..slots).map(|slot| region.block(slot)).collect();
            prop_assert!(numbers.is_sorted_by(|a, b| a < b));
        }

        #[test]
        fn spans_stay_in_their_chunk(seed: u64, most in 1_usize..3000, chunk in 1_u64..100) {
            let region = Region::new(0, 1000, 500, chunk);
            let mut rng = fastrand::Rng::with_seed(seed);
            let span = region.choose(&mut rng, most).unwrap();
            prop_assert!(span.blocks >= 1 && span.blocks <= most);
            let last = span.slot + span.blocks - 1;
            prop_assert_eq!(region.block(last) - region.block(span.slot), span.blocks as u64 - 1);
            let walked: usize = region.spans(most).map(|span| span.blocks).sum();
            prop_assert_eq!(walked, region.slots());
        }
    }

    #[test]
    fn chunks_lie_at_equal_distances() {
        let region = Region::new(100, 1000, 45, 10);
        assert_eq!(region.slots(), 40);
        let blocks = [0, 9, 10, 39].map(|slot| region.block(slot));
        assert_eq!(blocks, [100, 109, 350, 859]);
    }

    #[test]
    fn lengths_are_mixed() {
        let region = Region::new(0, 4096, 4096, 4096);
        let mut rng = fastrand::Rng::with_seed(1);
        let lengths: Vec<usize> = (0..1000)
            .filter_map(|_| region.choose(&mut rng, 2048))
            .map(|span| span.blocks)
            .collect();
        let odd = lengths.iter().filter(|blocks| *blocks % 2 == 1).count();
        assert!(odd > 600, "{odd}");
        assert!(lengths.contains(&1) && lengths.contains(&2048));
        assert!(
            lengths
                .iter()
                .any(|blocks| *blocks > 1024 && blocks % 2 == 1)
        );
    }

    #[test]
    fn writes_are_counted_when_they_begin_and_when_they_end() {
        let region = Region::new(0, 4, 4, 4);
        assert_eq!(region.begin(2), 1);
        assert_eq!((region.ended(2), region.begun(2)), (0, 1));
        assert_eq!(region.begin(2), 2);
        region.end(2);
        assert_eq!((region.ended(2), region.begun(2)), (2, 2));
    }
}
