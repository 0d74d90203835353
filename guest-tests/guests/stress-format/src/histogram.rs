// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How long transfers took, in four buckets for each power of two.

use core::ops::RangeInclusive;

use crate::record::Latency;

/// Buckets of a power of two, as a power of two.
const FINE_BITS: u32 = 2;
const BUCKETS: usize = 64 << FINE_BITS;

/// Counts of latencies, in ticks of the TSC.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: [u64; BUCKETS],
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: [0; BUCKETS],
            max: 0,
        }
    }
}

impl Histogram {
    /// Counts a latency.
    pub fn add(&mut self, ticks: u64) {
        self.counts[bucket(ticks)] += 1;
        self.max = self.max.max(ticks);
    }

    /// Counts what another has counted, too.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.max = self.max.max(other.max);
    }

    /// The longest latency.
    #[must_use]
    pub fn max(&self) -> u64 {
        self.max
    }

    /// The bucket of the latency that `percent` of all are not longer than, cut at the longest;
    /// 0 if there are none.
    #[must_use]
    pub fn percentile(&self, percent: u64) -> RangeInclusive<u64> {
        let total: u64 = self.counts.iter().sum();
        let wanted = (u128::from(total) * u128::from(percent)).div_ceil(100);
        let mut seen = 0_u128;
        for (index, count) in self.filled() {
            seen += u128::from(count);
            if seen >= wanted {
                let end = lowest(index + 1).saturating_sub(1);
                return lowest(index)..=end.min(self.max);
            }
        }
        0..=0
    }

    /// The buckets that are not empty, in order.
    pub fn bars(&self) -> impl Iterator<Item = Latency> {
        self.filled().map(|(index, count)| Latency {
            from: lowest(index),
            count,
        })
    }

    fn filled(&self) -> impl Iterator<Item = (usize, u64)> {
        let counts = self.counts.iter().copied().enumerate();
        counts.filter(|(_, count)| *count > 0)
    }
}

fn bucket(ticks: u64) -> usize {
    let fine = 1 << FINE_BITS;
    if ticks < fine {
        return usize::try_from(ticks).unwrap_or(0);
    }
    let exponent = ticks.ilog2();
    let mantissa = (ticks >> (exponent - FINE_BITS)) - fine;
    let index = (u64::from(exponent - FINE_BITS) + 1) * fine + mantissa;
    usize::try_from(index).map_or(BUCKETS - 1, |index| index.min(BUCKETS - 1))
}

/// The lowest latency of a bucket.
fn lowest(index: usize) -> u64 {
    let fine = 1_usize << FINE_BITS;
    if index < fine {
        return index as u64;
    }
    let (power, mantissa) = (index / fine - 1, index % fine);
    u64::try_from(((fine + mantissa) as u128) << power).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_bucket_is_at_most_a_quarter_wide(ticks: u64) {
            let from = lowest(bucket(ticks));
            prop_assert!(from <= ticks);
            prop_assert!(ticks - from <= from / 4);
        }
    }

    #[test]
    fn every_latency_is_in_its_bucket() {
        let some = [1 << 40, (1 << 40) + 1, u64::MAX / 3, u64::MAX];
        for ticks in (1..5000).chain(some) {
            let bucket = bucket(ticks);
            assert!(lowest(bucket) <= ticks, "{ticks}");
            let next = lowest(bucket + 1);
            assert!(ticks < next || next == u64::MAX, "{ticks}");
        }
        assert_eq!(bucket(0), 0);
    }

    #[test]
    fn percentiles_are_buckets() {
        let mut histogram = Histogram::default();
        for ticks in [10, 10, 10, 4097] {
            histogram.add(ticks);
        }
        let mut sum = histogram.clone();
        sum.merge(&histogram);
        assert_eq!(
            (sum.percentile(50), sum.percentile(99), sum.max()),
            (10..=11, 4096..=4097, 4097)
        );
        extern crate alloc;
        let bars: alloc::vec::Vec<Latency> = sum.bars().collect();
        assert_eq!(
            bars,
            [
                Latency { from: 10, count: 6 },
                Latency {
                    from: 4096,
                    count: 2
                }
            ]
        );
    }

    #[test]
    fn percentiles_are_near() {
        let mut histogram = Histogram::default();
        for ticks in 1..=1000 {
            histogram.add(ticks);
        }
        assert!((500..=640).contains(histogram.percentile(50).end()));
        assert!((990..=1000).contains(histogram.percentile(99).end()));
        assert_eq!(histogram.max(), 1000);
        assert_eq!(histogram.bars().map(|bar| bar.count).sum::<u64>(), 1000);
    }

    #[test]
    fn nothing_measured_is_nothing() {
        let histogram = Histogram::default();
        assert_eq!((histogram.percentile(50), histogram.max()), (0..=0, 0));
        assert_eq!(histogram.bars().count(), 0);
    }

    #[test]
    fn two_make_one() {
        let (mut left, mut right) = (Histogram::default(), Histogram::default());
        left.add(10);
        right.add(1000);
        left.merge(&right);
        assert_eq!((left.max(), left.bars().count()), (1000, 2));
    }
}
