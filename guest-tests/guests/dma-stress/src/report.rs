// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What is printed.

use core::fmt::{self, Write};

use spin::Mutex;
use stress_format::{Finding, Record, VERSION_LINE};

/// Findings that are printed; more of them add nothing.
const MAX_FINDINGS: u64 = 16;

/// The report, a line at a time from any processor.
#[derive(Debug)]
pub struct Report<W>(Mutex<State<W>>);

#[derive(Debug)]
struct State<W> {
    out: W,
    tests: u64,
    failed: u64,
    findings: u64,
}

impl<W: Write> Report<W> {
    /// Begins a report on `out`, whose errors are ignored: there is nowhere to report them.
    pub fn new(mut out: W) -> Self {
        let _ = writeln!(out, "{VERSION_LINE}");
        Self(Mutex::new(State {
            out,
            tests: 0,
            failed: 0,
            findings: 0,
        }))
    }

    /// Prints the number of tests.
    pub fn plan(&self, tests: u64) {
        let _ = writeln!(self.0.lock().out, "1..{tests}");
    }

    /// A record.
    pub fn record(&self, record: Record<'_>) {
        let _ = writeln!(self.0.lock().out, "# {record}");
    }

    /// A comment that is no record.
    pub fn comment(&self, text: fmt::Arguments<'_>) {
        let _ = writeln!(self.0.lock().out, "# {text}");
    }

    /// Something wrong; the first ones are printed.
    pub fn finding(&self, finding: Finding<'_>) {
        let mut state = self.0.lock();
        state.findings += 1;
        if state.findings <= MAX_FINDINGS {
            let _ = writeln!(state.out, "# {}", Record::Finding(finding));
        }
    }

    /// Whether another finding would be printed.
    pub fn wants_findings(&self) -> bool {
        self.0.lock().findings < MAX_FINDINGS
    }

    /// A test has ended.
    pub fn test(&self, ok: bool, name: fmt::Arguments<'_>) {
        let mut state = self.0.lock();
        state.tests += 1;
        state.failed += u64::from(!ok);
        let (not, number) = (if ok { "" } else { "not " }, state.tests);
        let _ = writeln!(state.out, "{not}ok {number} - {name}");
    }

    /// Tests that failed, and findings, printed or not.
    pub fn wrong(&self) -> u64 {
        let state = self.0.lock();
        state.failed + state.findings
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::String;

    use super::*;
    use stress_format::FindingKind;

    #[test]
    fn tests_are_numbered_and_counted() {
        let report = Report::new(String::new());
        report.plan(2);
        report.test(true, format_args!("one {}", 1));
        report.test(false, format_args!("two"));
        report.comment(format_args!("that is all"));
        assert_eq!(report.wrong(), 1);
        assert_eq!(
            report.0.into_inner().out,
            "TAP version 14\n1..2\nok 1 - one 1\nnot ok 2 - two\n# that is all\n"
        );
    }

    #[test]
    fn only_the_first_findings_are_printed() {
        let report = Report::new(String::new());
        for len in 0..30 {
            assert_eq!(report.wants_findings(), len < MAX_FINDINGS);
            report.finding(Finding {
                kind: FindingKind::Mismatch,
                engine: 0,
                gpa: 0x1000,
                len,
                text: "differs",
            });
        }
        assert_eq!(report.wrong(), 30);
        assert_eq!(report.0.into_inner().out.lines().count(), 17);
    }
}
