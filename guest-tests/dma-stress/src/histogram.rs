//! Latencies, four buckets to a power of two.

use stress_format::Latency;

const PER_POWER: u32 = 4;
const BUCKETS: usize = 64 * PER_POWER as usize;

/// How many took how long.
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

/// The bucket of a latency: its power of two and the two bits below its highest.
fn bucket(ticks: u64) -> usize {
    let power = ticks.max(1).ilog2();
    let below = ticks.checked_shl(64 - power).unwrap_or(0) >> 62;
    let below = if power == 0 { 0 } else { below };
    (power * PER_POWER) as usize + usize::try_from(below).unwrap_or(0)
}

/// The lowest latency of a bucket.
fn lowest(bucket: usize) -> u64 {
    let power = bucket / PER_POWER as usize;
    let below = (bucket % PER_POWER as usize) as u128;
    u64::try_from((4 + below) << power >> 2).unwrap_or(u64::MAX)
}

impl Histogram {
    /// Counts one.
    pub fn add(&mut self, ticks: u64) {
        self.counts[bucket(ticks)] += 1;
        self.max = self.max.max(ticks);
    }

    /// Adds all of another.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.max = self.max.max(other.max);
    }

    /// The longest.
    #[must_use]
    pub fn max(&self) -> u64 {
        self.max
    }

    /// A latency that at least `percent` of all do not exceed, at most a quarter too high.
    #[must_use]
    pub fn percentile(&self, percent: u64) -> u64 {
        let total: u64 = self.counts.iter().sum();
        let mut missing = (total * percent).div_ceil(100).max(1);
        for (bucket, count) in self.counts.iter().enumerate() {
            if missing <= *count {
                return lowest(bucket + 1).saturating_sub(1).min(self.max);
            }
            missing -= count;
        }
        self.max
    }

    /// The buckets that are not empty.
    pub fn bars(&self) -> impl Iterator<Item = Latency> {
        self.counts
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0)
            .map(|(bucket, count)| Latency {
                from: lowest(bucket),
                count: *count,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_latency_is_in_its_bucket() {
        for ticks in (1..5000).chain([1 << 40, (1 << 40) + 1, u64::MAX / 3, u64::MAX]) {
            let bucket = bucket(ticks);
            assert!(lowest(bucket) <= ticks, "{ticks}");
            let next = lowest(bucket + 1);
            assert!(
                ticks < next || next <= lowest(bucket) || ticks > u64::MAX / 2,
                "{ticks}"
            );
        }
        assert_eq!(bucket(0), 0);
    }

    #[test]
    fn percentiles_are_near() {
        let mut histogram = Histogram::default();
        for ticks in 1..=1000 {
            histogram.add(ticks);
        }
        assert!((500..=640).contains(&histogram.percentile(50)));
        assert!((990..=1000).contains(&histogram.percentile(99)));
        assert_eq!(histogram.max(), 1000);
        assert_eq!(histogram.bars().map(|bar| bar.count).sum::<u64>(), 1000);
    }

    #[test]
    fn nothing_measured_is_nothing() {
        let histogram = Histogram::default();
        assert_eq!((histogram.percentile(50), histogram.max()), (0, 0));
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
