//! How far a stress run is, on a terminal, while it runs.

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use stress_report::Progress;

/// A line that is drawn over again; nothing where nobody looks.
#[derive(Debug)]
pub struct Display(ProgressBar);

impl Display {
    /// A display on standard error if `terminal`, else none.
    pub fn new(terminal: bool) -> Self {
        let target = if terminal {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let style = ProgressStyle::with_template("{spinner} {wide_bar} {pos}/{len} tests  {msg}");
        let bar = ProgressBar::with_draw_target(None, target);
        Self(bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())))
    }

    /// Shows `progress`.
    pub fn show(&self, progress: &Progress<'_>) {
        if let Some(planned) = progress.planned {
            self.0.set_length(planned);
        }
        self.0.set_position(progress.done);
        let wrong = match progress.findings + progress.failed {
            0 => String::new(),
            _ => format!(
                ", {} failed, {} findings",
                progress.failed, progress.findings
            ),
        };
        let bytes = HumanBytes(progress.bytes);
        self.0
            .set_message(format!("{} transfers, {bytes}{wrong}", progress.transfers));
    }

    /// Takes the line away.
    pub fn clear(&self) {
        self.0.finish_and_clear();
    }
}
