// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How far a stress run is, on a terminal, while it runs.

use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use stress_report::Progress;

use crate::screen;

/// Steps that take less are not worth a bar.
const MIN_DURATION: Duration = Duration::from_secs(1);

/// Shows `bar`, hidden so far, if what it is about `began` more than a second ago and standard
/// error is a terminal.
fn reveal(bar: &ProgressBar, began: Instant) {
    if bar.is_hidden() && began.elapsed() > MIN_DURATION {
        bar.set_draw_target(screen::line());
    }
}

/// A line on standard error that is drawn over again, once the guest has been heard of for a
/// second; nothing where there is no terminal.
#[derive(Debug)]
pub struct Display {
    bar: ProgressBar,
    /// When the guest was first heard of.
    began: Option<Instant>,
}

impl Display {
    /// A display of nothing yet.
    pub fn new() -> Self {
        let style = ProgressStyle::with_template("{spinner} {msg}");
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        Self {
            bar: bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())),
            began: None,
        }
    }

    /// Shows `progress`.
    pub fn show(&mut self, progress: &Progress<'_>) {
        reveal(&self.bar, *self.began.get_or_insert_with(Instant::now));
        let tests = match progress.planned {
            Some(planned) => {
                self.plan(planned);
                self.bar.set_position(progress.done);
                String::new()
            }
            None => format!("{} tests  ", progress.done),
        };
        let wrong = match progress.findings + progress.failed {
            0 => String::new(),
            _ => format!(
                ", {} failed, {} findings",
                progress.failed, progress.findings
            ),
        };
        let (transfers, bytes) = (progress.transfers, HumanBytes(progress.bytes));
        self.bar
            .set_message(format!("{tests}{transfers} transfers, {bytes}{wrong}"));
        self.bar.tick();
    }

    /// From here on there is a bar, since it is known how long it is.
    fn plan(&self, tests: u64) {
        if self.bar.length().is_none() {
            let template = "{spinner} {wide_bar} {pos}/{len} tests  {msg}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                self.bar.set_style(style);
            }
        }
        self.bar.set_length(tests);
    }

    /// Takes the line away.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
