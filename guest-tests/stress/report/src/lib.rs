// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What becomes of the lines that a DMA stress guest prints (`stress-format`): a verdict, and a
//! report for the terminal, for programs (JSON) and for browsers (HTML).
//!
//! ```
//! use stress_report::{Collector, Ending, Outcome, Setup, Terminal, Verdict};
//!
//! let mut collector = Collector::new();
//! collector.feed(b"TAP version 14\r\n1..1\r\nnot ok 1 - edu 0: ");
//! collector.feed(b"every length\r\n");
//! assert_eq!(collector.progress().failed, 1);
//!
//! let outcome = Outcome::new(Some(1), Ending::PoweredOff);
//! let report = collector.finish(Setup::default(), outcome);
//! assert!(matches!(report.verdict(), Verdict::Failed(_)));
//! print!("{}", stress_report::text(&report, Terminal::default()));
//! ```
//!
//! Everything that a guest prints is hostile: what is kept of it is bounded, has no control
//! characters ([`Text`]) and is escaped where it is written.

#![forbid(unsafe_code)]

mod collect;
mod explain;
mod html;
mod json;
mod lines;
mod mediated;
mod note;
pub mod plot;
mod report;
mod serialize;
mod setup;
mod terminal;
mod text;
mod thin;
pub mod units;
mod verdict;
mod write;

pub use collect::{Collector, Progress};
pub use explain::{Explanation, REFUSED_DMA, explain};
pub use html::html;
pub use json::{FORMAT, from_json, json};
pub use mediated::{Expected, Mediated, RefusedFor};
pub use note::Note;
pub use report::{
    Engine, Finding, KindCount, Landed, Latency, Left, Ram, Report, Sample, Start, Test, Totals,
};
pub use setup::{Bar, Ending, Extent, Landmark, Outcome, Refusal, Refusals, Setup};
pub use terminal::{Terminal, text};
pub use text::Text;
pub use verdict::{Reason, Verdict};
pub use write::{Error, write_html, write_json};
