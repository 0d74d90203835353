// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A bounded number of samples of an unbounded series.

use crate::report::Sample;

/// Keeps every sample, until there are too many; then every second, every fourth, and so on, and
/// always the last.
#[derive(Debug)]
pub struct Thinned {
    kept: Vec<Sample>,
    stride: u64,
    seen: u64,
    last: Option<Sample>,
}

impl Default for Thinned {
    fn default() -> Self {
        Self {
            kept: Vec::new(),
            stride: 1,
            seen: 0,
            last: None,
        }
    }
}

impl Thinned {
    /// Most samples that are kept.
    pub const MAX: usize = 1024;

    /// The next one.
    pub fn push(&mut self, sample: Sample) {
        self.last = Some(sample);
        if self.seen.is_multiple_of(self.stride) {
            if self.kept.len() + 1 == Self::MAX {
                let mut even = false;
                self.kept.retain(|_| {
                    even = !even;
                    even
                });
                self.stride = self.stride.saturating_mul(2);
            }
            // The halving drops this one at an odd place.
            if self.seen.is_multiple_of(self.stride) {
                self.kept.push(sample);
            }
        }
        self.seen = self.seen.saturating_add(1);
    }

    /// The newest one.
    pub fn last(&self) -> Option<Sample> {
        self.last
    }

    /// What is kept, and how many were left out.
    pub fn finish(mut self) -> (Vec<Sample>, u64) {
        if let Some(last) = self.last
            && self.kept.last() != Some(&last)
        {
            self.kept.push(last);
        }
        let left = self.seen.saturating_sub(self.kept.len() as u64);
        (self.kept, left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thinned(count: u64) -> (Vec<u64>, u64) {
        let mut thinned = Thinned::default();
        for ms in 0..count {
            thinned.push(Sample {
                ms,
                transfers: ms,
                bytes: ms,
            });
        }
        let (kept, left) = thinned.finish();
        (kept.iter().map(|sample| sample.ms).collect(), left)
    }

    #[test]
    fn few_are_all_kept() {
        assert_eq!(thinned(0), (vec![], 0));
        assert_eq!(thinned(1000), ((0..1000).collect(), 0));
    }

    #[test]
    fn of_many_evenly_spaced_ones_are_kept() {
        for count in [1023, 1024, 1025, 2050, 100_000] {
            let (kept, left) = thinned(count);
            assert!((Thinned::MAX / 2 - 1..=Thinned::MAX).contains(&kept.len()));
            assert_eq!(kept.len() as u64 + left, count);
            assert_eq!(kept.last(), Some(&(count - 1)));
            let step = kept[1] - kept[0];
            let but_the_last = &kept[..kept.len() - 1];
            assert!(
                but_the_last
                    .iter()
                    .enumerate()
                    .all(|(i, ms)| *ms == i as u64 * step)
            );
        }
    }
}
