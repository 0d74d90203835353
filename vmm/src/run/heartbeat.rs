// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! When the event loop is to report that it still turns, and how long it may wait until then.

use std::fmt;
use std::time::{Duration, Instant};

/// A report that the event loop turns, at regular times: by it, a service manager sees a monitor that hangs.
pub struct Heartbeat<'a> {
    interval: Duration,
    report: &'a dyn Fn(),
}

impl<'a> Heartbeat<'a> {
    /// A `report` each `interval`. It is called on the thread that waits for the guest's end, and must not block for long.
    #[must_use]
    pub fn new(interval: Duration, report: &'a dyn Fn()) -> Self {
        Self { interval, report }
    }
}

impl fmt::Debug for Heartbeat<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = formatter.debug_struct("Heartbeat");
        text.field("interval", &self.interval)
            .finish_non_exhaustive()
    }
}

/// The reports of one run of the event loop.
#[derive(Debug)]
pub(crate) struct Pulse<'a> {
    heartbeat: Option<Heartbeat<'a>>,
    /// When the next report is due.
    next: Instant,
}

impl<'a> Pulse<'a> {
    /// Reports of `heartbeat`, if there is one, the first of them at once.
    pub fn new(heartbeat: Option<Heartbeat<'a>>, now: Instant) -> Self {
        Self {
            heartbeat,
            next: now,
        }
    }

    /// Reports if that is due, and returns how long the event loop may wait until the next time: `None` for ever.
    pub fn beat(&mut self, now: Instant) -> Option<Duration> {
        let heartbeat = self.heartbeat.as_ref()?;
        if now >= self.next {
            (heartbeat.report)();
            // From now on, not from when it was due: a process that was stopped reports once, not for all it missed.
            self.next = now + heartbeat.interval;
        }
        Some(self.next.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn reports_come_at_once_and_then_when_they_are_due() {
        let count = Cell::new(0);
        let report = || count.set(count.get() + 1);
        let second = Duration::from_secs(1);
        let began = Instant::now();
        let mut pulse = Pulse::new(Some(Heartbeat::new(second, &report)), began);
        let mut after = |wait: Duration| (pulse.beat(began + wait), count.get());
        assert_eq!(after(Duration::ZERO), (Some(second), 1));
        // Other events wake the loop in between.
        assert_eq!(after(second / 4), (Some(second * 3 / 4), 1));
        assert_eq!(after(second), (Some(second), 2));
        // What was missed is not made up for.
        assert_eq!(after(second * 10), (Some(second), 3));
        assert_eq!(after(second * 10), (Some(second), 3));
    }

    #[test]
    fn without_reports_the_loop_waits_for_ever() {
        let now = Instant::now();
        assert_eq!(Pulse::new(None, now).beat(now), None);
    }
}
