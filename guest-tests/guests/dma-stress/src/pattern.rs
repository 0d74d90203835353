// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What buffers are filled with.
//!
//! Every payload begins with 8 bytes that no other has, its tag: by them it is found when it went
//! to a wrong place.

/// How the words of a payload follow from one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Each one more than the one before.
    Counting,
    /// A linear-feedback shift register's states.
    Lfsr,
    /// One bit, moving on.
    WalkingOnes,
    /// A random generator's output.
    Random,
}

/// All of them, in the order in which they are used.
pub const KINDS: [Kind; 4] = [Kind::Counting, Kind::Lfsr, Kind::WalkingOnes, Kind::Random];

/// Taps of a maximal 64-bit Galois LFSR: x^64 + x^63 + x^61 + x^60 + 1.
const TAPS: u64 = 0xd800_0000_0000_0000;

/// A payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// How it continues.
    pub kind: Kind,
    /// Its first word, the tag.
    pub tag: u64,
}

impl Pattern {
    /// Hands the words, without end, to `sink`.
    ///
    /// The kinds do not share a generator, so that each loop over memory is as tight as its
    /// pattern lets it be.
    pub fn with<R>(self, sink: impl Sink<R>) -> R {
        let mut word = self.tag;
        let tag = word;
        match self.kind {
            Kind::Counting => sink.words(move || {
                let now = word;
                word = word.wrapping_add(1);
                now
            }),
            Kind::Lfsr => sink.words(move || {
                let now = word;
                word = word >> 1 ^ (word & 1).wrapping_neg() & TAPS;
                now
            }),
            Kind::WalkingOnes => {
                let mut bit = 1_u64.rotate_left(63);
                word = tag;
                sink.words(move || {
                    let now = word;
                    bit = bit.rotate_left(1);
                    word = bit;
                    now
                })
            }
            Kind::Random => {
                let mut random = fastrand::Rng::with_seed(tag);
                sink.words(move || core::mem::replace(&mut word, random.u64(..)))
            }
        }
    }
}

/// Something that takes words.
pub trait Sink<R> {
    /// Takes as many as it needs.
    fn words(self, next: impl FnMut() -> u64) -> R;
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    struct Take(usize);

    impl Sink<Vec<u64>> for Take {
        fn words(self, mut next: impl FnMut() -> u64) -> Vec<u64> {
            (0..self.0).map(|_| next()).collect()
        }
    }

    fn words(kind: Kind, tag: u64) -> Vec<u64> {
        Pattern { kind, tag }.with(Take(200))
    }

    #[test]
    fn every_kind_begins_with_the_tag_and_repeats_itself() {
        for kind in KINDS {
            assert_eq!(words(kind, 0x1234_5678_9abc)[0], 0x1234_5678_9abc);
            assert_eq!(words(kind, 99), words(kind, 99));
        }
    }

    #[test]
    fn each_kind_is_what_it_is_called() {
        assert_eq!(words(Kind::Counting, u64::MAX)[..3], [u64::MAX, 0, 1]);
        assert_eq!(words(Kind::WalkingOnes, 7)[..3], [7, 1, 2]);
        assert_eq!(words(Kind::WalkingOnes, 7)[64..67], [1 << 63, 1, 2]);
        assert_eq!(words(Kind::Lfsr, 3)[..3], [3, 1 ^ TAPS, TAPS ^ TAPS >> 1]);
        let mut random = words(Kind::Random, 5);
        random.sort_unstable();
        random.dedup();
        assert_eq!(random.len(), 200);
    }
}
