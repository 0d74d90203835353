// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Choices that a seed decides.

/// A generator that repeats itself from the same seed.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Choices of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(2).wrapping_add(1))
    }

    /// The next number (xorshift64*).
    pub fn word(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.word() >> 33).unwrap_or(0) % end
    }

    /// `true` once in `times`.
    pub fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}
