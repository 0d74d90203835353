// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Lines of TAP 14, as far as stress guests use it.

use crate::record::Record;

/// The first line.
pub const VERSION_LINE: &str = "TAP version 14";

/// A line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// [`VERSION_LINE`].
    Version,
    /// How many tests there are: `1..N`.
    Plan(u64),
    /// A test has ended.
    Test {
        /// Whether it passed.
        ok: bool,
        /// Its number, from 1.
        number: u64,
        /// What it tests.
        name: &'a str,
    },
    /// A comment with a record.
    Record(Record<'a>),
    /// The guest gives up: `Bail out!` and why.
    BailOut(&'a str),
}

impl<'a> Line<'a> {
    /// What `line` is; `None` for anything else, a kernel's message for instance.
    #[must_use]
    pub fn parse(line: &'a str) -> Option<Self> {
        let line = line.trim_end();
        if line == VERSION_LINE {
            return Some(Self::Version);
        }
        if let Some(comment) = line.strip_prefix('#') {
            return Record::parse(comment).map(Self::Record);
        }
        if let Some(count) = line.strip_prefix("1..") {
            return count.trim().parse().ok().map(Self::Plan);
        }
        if let Some(reason) = line.strip_prefix("Bail out!") {
            return Some(Self::BailOut(reason.trim()));
        }
        let (ok, rest) = match line.strip_prefix("not ok ") {
            Some(rest) => (false, rest),
            None => (true, line.strip_prefix("ok ")?),
        };
        let (number, name) = rest.split_once(" - ").unwrap_or((rest, ""));
        Some(Self::Test {
            ok,
            number: number.trim().parse().ok()?,
            name: name.trim(),
        })
    }
}
