//! How long transfers took, in four buckets for each power of two.

use stress_format::Latency;

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

    /// The begin of the bucket of the latency that `percent` of all are not longer than; 0 if there are none.
    #[must_use]
    pub fn percentile(&self, percent: u64) -> u64 {
        let total: u64 = self.counts.iter().sum();
        let wanted = (u128::from(total) * u128::from(percent)).div_ceil(100);
        let mut seen = 0_u128;
        for latency in self.bars() {
            seen += u128::from(latency.count);
            if seen >= wanted {
                return latency.from;
            }
        }
        0
    }

    /// The buckets that are not empty, in order.
    pub fn bars(&self) -> impl Iterator<Item = Latency> {
        let bars = self.counts.iter().enumerate();
        bars.filter(|(_, count)| **count > 0)
            .map(|(index, count)| Latency {
                from: start(index),
                count: *count,
            })
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
fn start(index: usize) -> u64 {
    let fine = 1_usize << FINE_BITS;
    if index < fine {
        return index as u64;
    }
    let (power, mantissa) = (index / fine - 1, index % fine);
    ((fine + mantissa) as u64) << power
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_bucket_is_at_most_a_quarter_wide(ticks: u64) {
            let from = start(bucket(ticks));
            prop_assert!(from <= ticks);
            prop_assert!(ticks - from <= from / 4);
        }
    }

    #[test]
    fn percentiles_are_begins_of_buckets() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile(50), 0);
        for ticks in [10, 10, 10, 4097] {
            histogram.add(ticks);
        }
        let mut sum = histogram.clone();
        sum.merge(&histogram);
        assert_eq!(
            (sum.percentile(50), sum.percentile(99), sum.max()),
            (10, 4096, 4097)
        );
        let bars: Vec<Latency> = sum.bars().collect();
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
}
