// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Logs the progress of long steps of the start.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// Lines come at most so often.
const INTERVAL: Duration = Duration::from_secs(2);

/// A step that logs its percentage if it takes long.
#[derive(Debug)]
pub(crate) struct Progress {
    what: &'static str,
    total: Cell<u64>,
    done: Cell<u64>,
    last: Cell<Instant>,
}

impl Progress {
    /// A step that goes through `total` bytes. `what` is done, as in "Pinning memory".
    pub fn new(what: &'static str, total: u64) -> Self {
        Self {
            what,
            total: Cell::new(total),
            done: Cell::new(0),
            last: Cell::new(Instant::now()),
        }
    }

    /// `bytes` more are done.
    pub fn advance(&self, bytes: u64) {
        self.done.set(self.done.get().saturating_add(bytes));
        if self.last.get().elapsed() >= INTERVAL {
            self.last.set(Instant::now());
            log::info!("{}: {} %", self.what, self.percent());
        }
    }

    /// There are `bytes` more to go through.
    pub fn expect(&self, bytes: u64) {
        self.total.set(self.total.get().saturating_add(bytes));
    }

    fn percent(&self) -> u64 {
        let share = u128::from(self.done.get()) * 100 / u128::from(self.total.get().max(1));
        u64::try_from(share).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_ends_at_its_total() {
        let progress = Progress::new("Testing", 10);
        progress.advance(4);
        assert_eq!(progress.percent(), 40);
        progress.expect(10);
        assert_eq!(progress.percent(), 20);
        assert_eq!(Progress::new("Testing", 0).percent(), 0);
    }
}
