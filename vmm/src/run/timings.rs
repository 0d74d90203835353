// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The duration of each phase of a run.

use std::fmt;
use std::time::{Duration, Instant};

/// The timings so far. Each begins where the one before it ended.
#[derive(Debug)]
pub struct Timings {
    began: Instant,
    last: Instant,
    done: Vec<(&'static str, Duration)>,
}

impl Default for Timings {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            began: now,
            last: now,
            done: Vec::new(),
        }
    }
}

impl Timings {
    /// The phase `name` has ended.
    pub fn done(&mut self, name: &'static str) {
        let now = Instant::now();
        self.done.push((name, now - self.last));
        self.last = now;
    }

    /// Takes `name` to have lasted from the end of the last phase to `then`, without ending it.
    pub fn note(&mut self, name: &'static str, then: Instant) {
        self.done
            .push((name, then.saturating_duration_since(self.last)));
    }

    /// How long all of it took, up to the end of the last phase.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.last - self.began
    }
}

/// `bind 12 ms, pin 118 ms`
impl fmt::Display for Timings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, time)) in self.done.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{name} {} ms", time.as_millis())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_follow_one_another() {
        let mut timings = Timings::default();
        let later = timings.last + Duration::from_millis(12);
        timings.note("first", later);
        timings.note("second", timings.began);
        assert_eq!(timings.to_string(), "first 12 ms, second 0 ms");
        timings.done("third");
        assert_eq!(timings.done.len(), 3);
        assert_eq!(timings.total(), timings.last - timings.began);
    }
}
