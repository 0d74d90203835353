// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Reporting: lines for the console.

use std::fmt::{self, Display};
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use stress_format::{Finding, FindingKind, Record, VERSION_LINE};

/// Most findings that are reported; all are counted.
const MAX_FINDINGS: u64 = 32;

/// How it ended, as reported to the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// All tests passed.
    Passed = 0,
    /// Something failed.
    Failed = 1,
    /// The guest had nothing to test, or it could not start.
    NotRun = 2,
}

/// Writes lines, each at once, so that the kernel's own come between them and not into them.
pub struct Report {
    output: Mutex<Box<dyn Write + Send>>,
    tests: AtomicU64,
    findings: AtomicU64,
    failed: AtomicBool,
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Report").finish_non_exhaustive()
    }
}

impl Report {
    /// A report on this output.
    #[must_use]
    pub fn new(output: Box<dyn Write + Send>) -> Self {
        Self {
            output: Mutex::new(output),
            tests: AtomicU64::new(0),
            findings: AtomicU64::new(0),
            failed: AtomicBool::new(false),
        }
    }

    fn line(&self, text: impl Display) {
        let line = format!("{text}\n");
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        // That the console is gone can be reported nowhere.
        let _ = output
            .write_all(line.as_bytes())
            .and_then(|()| output.flush());
    }

    /// The first line.
    pub fn version(&self) {
        self.line(VERSION_LINE);
    }

    /// How many tests there will be.
    pub fn plan(&self, tests: usize) {
        self.line(format_args!("1..{tests}"));
    }

    /// A record.
    pub fn record(&self, record: &Record<'_>) {
        self.line(format_args!("# {record}"));
    }

    /// A remark for people.
    pub fn comment(&self, text: impl Display) {
        self.line(format_args!("# {text}"));
    }

    /// A test has ended.
    pub fn test(&self, ok: bool, name: impl Display) {
        let number = self.tests.fetch_add(1, Ordering::Relaxed) + 1;
        if ok {
            self.line(format_args!("ok {number} - {name}"));
        } else {
            self.failed.store(true, Ordering::Relaxed);
            self.line(format_args!("not ok {number} - {name}"));
        }
    }

    /// Something wrong. After the first 32 of a run, they are not reported.
    pub fn finding(&self, finding: &Finding<'_>) {
        self.failed.store(true, Ordering::Relaxed);
        if self.findings.fetch_add(1, Ordering::Relaxed) < MAX_FINDINGS {
            self.record(&Record::Finding(*finding));
        }
    }

    /// Something wrong that has no address.
    pub fn failure(&self, kind: FindingKind, engine: u64, text: &str) {
        let (gpa, len) = (0, 0);
        self.finding(&Finding {
            kind,
            engine,
            gpa,
            len,
            text,
        });
    }

    /// It goes no further.
    pub fn bail_out(&self, reason: impl Display) {
        self.failed.store(true, Ordering::Relaxed);
        self.line(format_args!("Bail out! {reason}"));
    }

    /// Whether all went well so far.
    #[must_use]
    pub fn status(&self) -> Status {
        if self.failed.load(Ordering::Relaxed) {
            Status::Failed
        } else {
            Status::Passed
        }
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use std::sync::Arc;

    use super::*;

    /// Lines kept in memory.
    #[derive(Clone, Default)]
    pub struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Lines {
        pub fn report(&self) -> Report {
            Report::new(Box::new(self.clone()))
        }

        pub fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use stress_format::Line;

    use super::testing::Lines;
    use super::*;

    #[test]
    fn what_is_reported_can_be_read() {
        let lines = Lines::default();
        let report = lines.report();
        report.version();
        report.plan(2);
        report.test(true, "a");
        assert_eq!(report.status(), Status::Passed);
        report.test(false, "b");
        assert_eq!(report.status(), Status::Failed);
        let text = lines.text();
        let read: Vec<Line<'_>> = text.lines().filter_map(Line::parse).collect();
        let test = |ok, number, name| Line::Test { ok, number, name };
        let expected = [
            Line::Version,
            Line::Plan(2),
            test(true, 1, "a"),
            test(false, 2, "b"),
        ];
        assert_eq!(read, expected);
    }

    #[test]
    fn findings_are_not_reported_for_ever() {
        let lines = Lines::default();
        let report = lines.report();
        for _ in 0..100 {
            report.failure(FindingKind::Timeout, 0, "x");
        }
        assert_eq!(lines.text().lines().count(), 32);
        assert_eq!(report.status(), Status::Failed);
    }
}
