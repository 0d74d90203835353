//! How far a long step of the start is, on a terminal.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::screen;

/// Steps that take less are not worth a bar.
const PATIENCE: Duration = Duration::from_secs(1);

/// Shows `bar`, hidden so far, if what it is about `began` more than a second ago and standard
/// error is a terminal.
pub fn reveal(bar: &ProgressBar, began: Instant) {
    if bar.is_hidden() && began.elapsed() > PATIENCE {
        bar.set_draw_target(screen::line());
    }
}

/// A bar on standard error, shown once a step has taken a second, if that is a terminal; gone
/// when dropped.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    began: Instant,
}

impl Progress {
    /// A bar for a step that has `bytes` to go through. `what` is done, as in "Pinning memory".
    pub fn new(what: &'static str, bytes: u64) -> Self {
        let template = "{msg} {wide_bar} {binary_bytes} of {binary_total_bytes}";
        let style = ProgressStyle::with_template(template);
        let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::hidden())
            .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
            .with_message(what);
        Self {
            bar,
            began: Instant::now(),
        }
    }

    /// `bytes` more are done.
    pub fn advance(&self, bytes: u64) {
        reveal(&self.bar, self.began);
        self.bar.inc(bytes);
    }

    /// There are `bytes` more to go through.
    pub fn expect(&self, bytes: u64) {
        self.bar.inc_length(bytes);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_goes_as_far_as_was_said() {
        let progress = Progress::new("Testing", 10);
        progress.advance(4);
        progress.expect(5);
        assert_eq!(progress.bar.position(), 4);
        assert_eq!(progress.bar.length(), Some(15));
        assert!(progress.bar.is_hidden());
    }
}
