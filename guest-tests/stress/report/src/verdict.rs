// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Whether a run passed.

use std::collections::BTreeSet;

use serde::Serialize;
use stress_format::FindingKind;

use crate::report::{Report, Totals};
use crate::setup::Ending;
use crate::text::Text;
use crate::units::{counted, grouped};

/// The judgement of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The plan is complete, every test passed, the totals are there and name nothing wrong, the
    /// status is 0, no DMA was refused but what the guest provoked, and nothing contradicts
    /// anything else.
    Passed,
    /// Something was wrong. Reasons for being incomplete are listed behind it.
    Failed(Vec<Reason>),
    /// Nothing was seen to be wrong, but not everything that should have been seen was.
    Incomplete(Vec<Reason>),
}

/// Why a run did not pass.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Reason {
    /// Tests that did not pass.
    #[error("{failed} of {} failed", counted(*done, "test", "tests"))]
    TestsFailed {
        /// How many.
        failed: u64,
        /// Of how many that ended.
        done: u64,
    },
    /// The totals name transfers with wrong data.
    #[error("{} had wrong data", transfers(*count))]
    Mismatches {
        /// How many.
        count: u64,
    },
    /// The totals name changes around buffers.
    #[error("{} changed memory around the buffer", transfers(*count))]
    GuardHits {
        /// How many.
        count: u64,
    },
    /// The totals name interrupts that did not come.
    #[error("{} lost", counted(*count, "interrupt was", "interrupts were"))]
    LostInterrupts {
        /// How many.
        count: u64,
    },
    /// DMA that the software engine refused.
    #[error("{} refused", counted(*count, "transfer was", "transfers were"))]
    RefusedDma {
        /// How many.
        count: u64,
    },
    /// More was refused by the monitor than the guest reports that it provoked.
    #[error(
        "The monitor refused {}, of which the guest provoked {}",
        transfers(*refused),
        match most { 0 => "none".to_owned(), most => format!("at most {}", grouped(*most)) }
    )]
    UnprovokedRefusals {
        /// How many.
        refused: u64,
        /// Most that the guest provoked.
        most: u64,
    },
    /// Less was refused by the monitor than the guest provoked.
    #[error(
        "The monitor refused {}, but the guest provoked {}",
        transfers(*refused),
        grouped(*least)
    )]
    MissingRefusals {
        /// How many.
        refused: u64,
        /// Fewest that the guest provoked.
        least: u64,
    },
    /// Transfers that the monitor let through and the device did not take.
    #[error("{} not accepted by the device", counted(*count, "mediated transfer was", "mediated transfers were"))]
    FailedStarts {
        /// How many.
        count: u64,
    },
    /// Errors and timeouts of devices, which no total counts.
    #[error("{} ended with an error of the device, or did not end", transfers(*count))]
    DeviceErrors {
        /// How many.
        count: u64,
    },
    /// A status that is neither 0 nor 2.
    #[error("The guest's status is {status}")]
    Status {
        /// Which.
        status: u8,
    },
    /// The guest's output is contradictory.
    #[error("The guest contradicts itself: {what}")]
    Inconsistent {
        /// Why.
        what: Text,
    },
    /// The guest never identified itself.
    #[error("The guest did not report its start")]
    NoStart,
    /// The guest never reported the number of tests.
    #[error("The guest did not report the number of tests")]
    NoPlan,
    /// Nothing was tested.
    #[error("The guest had nothing to test")]
    NothingTested,
    /// Tests that did not end.
    #[error("{done} of {} ended", counted(*planned, "test", "tests"))]
    PlanNotMet {
        /// Tests that ended.
        done: u64,
        /// Tests that should have.
        planned: u64,
    },
    /// More tests than are kept, so that their numbers cannot be checked.
    #[error("{count} tests are too many to check")]
    TooManyTests {
        /// How many ended.
        count: u64,
    },
    /// No totals.
    #[error("The guest did not report its totals")]
    NoTotals,
    /// `Bail out!`
    #[error("The guest gave up: {why}")]
    BailedOut {
        /// Why.
        why: Text,
    },
    /// No status.
    #[error("The guest ended without a status")]
    NoStatus,
    /// The guest requested a restart.
    #[error("The guest started again")]
    Reset,
    /// The guest crashed.
    #[error("The guest crashed: {how}")]
    Crashed {
        /// How.
        how: Text,
    },
    /// The monitor ended it.
    #[error("The guest was stopped: {why}")]
    Stopped {
        /// Why.
        why: Text,
    },
}

/// What makes a transfer one with wrong data.
const WRONG_DATA: [FindingKind; 4] = [
    FindingKind::BitFlip,
    FindingKind::Shifted,
    FindingKind::WrongExtent,
    FindingKind::Mismatch,
];

fn transfers(count: u64) -> String {
    counted(count, "transfer", "transfers")
}

impl Report {
    /// Whether the run passed, strictly.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let mut failures = self.failures();
        let mut gaps = self.gaps();
        if !failures.is_empty() {
            failures.append(&mut gaps);
            Verdict::Failed(failures)
        } else if gaps.is_empty() {
            Verdict::Passed
        } else {
            Verdict::Incomplete(gaps)
        }
    }

    /// Tests that ended, with those that there was no room for.
    #[must_use]
    pub fn done(&self) -> u64 {
        (self.tests.len() as u64).saturating_add(self.left.tests)
    }

    /// Findings of any of `kinds`.
    pub(crate) fn count(&self, kinds: &[FindingKind]) -> u64 {
        self.finding_counts
            .iter()
            .filter(|entry| kinds.contains(&entry.kind))
            .fold(0, |sum, entry| sum.saturating_add(entry.count))
    }

    fn device_errors(&self) -> u64 {
        self.count(&[FindingKind::DeviceError, FindingKind::Timeout])
    }

    fn failures(&self) -> Vec<Reason> {
        // A guest that did not get to its totals has reported its findings nevertheless.
        let totals = self.totals.unwrap_or_else(|| Totals {
            mismatches: self.count(&WRONG_DATA),
            guard_hits: self.count(&[FindingKind::GuardHit]),
            lost_interrupts: self.count(&[FindingKind::LostInterrupt]),
            ..Totals::default()
        });
        let counts = [
            (
                self.failed_tests,
                Reason::TestsFailed {
                    failed: self.failed_tests,
                    done: self.done(),
                },
            ),
            (
                totals.mismatches,
                Reason::Mismatches {
                    count: totals.mismatches,
                },
            ),
            (
                totals.guard_hits,
                Reason::GuardHits {
                    count: totals.guard_hits,
                },
            ),
            (
                totals.lost_interrupts,
                Reason::LostInterrupts {
                    count: totals.lost_interrupts,
                },
            ),
            (
                self.outcome.refusals.count,
                Reason::RefusedDma {
                    count: self.outcome.refusals.count,
                },
            ),
        ];
        let mut reasons: Vec<_> = counts
            .into_iter()
            .filter_map(|(count, reason)| (count > 0).then_some(reason))
            .collect();
        reasons.extend(self.wrong_mediation());
        let errors = self.device_errors();
        if errors > 0 {
            reasons.push(Reason::DeviceErrors { count: errors });
        }
        if let Some(status @ (1 | 3..)) = self.outcome.status {
            reasons.push(Reason::Status { status });
        }
        let contradictions = self.contradictions().into_iter();
        reasons.extend(contradictions.map(|what| Reason::Inconsistent { what: what.into() }));
        reasons
    }

    fn gaps(&self) -> Vec<Reason> {
        let mut reasons = Vec::new();
        if let Some(why) = &self.bail_out {
            reasons.push(Reason::BailedOut { why: why.clone() });
        }
        match &self.outcome.ending {
            Ending::PoweredOff => (),
            Ending::Reset => reasons.push(Reason::Reset),
            Ending::Crashed(how) => reasons.push(Reason::Crashed { how: how.clone() }),
            Ending::Stopped(why) => reasons.push(Reason::Stopped { why: why.clone() }),
        }
        let done = self.done();
        if self.start.is_none() {
            reasons.push(Reason::NoStart);
        }
        match self.planned {
            None => reasons.push(Reason::NoPlan),
            Some(planned) if done < planned => reasons.push(Reason::PlanNotMet { done, planned }),
            Some(_) => (),
        }
        let moved = self.totals.map(|totals| totals.transfers);
        let skipped = self.tests.iter().all(|test| test.skipped.is_some());
        if self.planned == Some(0)
            || self.outcome.status == Some(2)
            || skipped && !self.tests.is_empty()
            || moved == Some(0) && !self.engines.is_empty()
        {
            reasons.push(Reason::NothingTested);
        }
        if self.left.tests > 0 {
            reasons.push(Reason::TooManyTests { count: done });
        }
        if self.totals.is_none() {
            reasons.push(Reason::NoTotals);
        }
        if self.outcome.status.is_none() {
            reasons.push(Reason::NoStatus);
        }
        reasons
    }

    fn contradictions(&self) -> Vec<String> {
        let mut all: Vec<_> = self
            .repeated
            .iter()
            .map(|what| format!("it reported its {what} twice"))
            .collect();
        all.dedup();
        all.extend(self.wrong_numbers());
        if let Some(totals) = &self.totals {
            all.extend(self.wrong_totals(totals));
        }
        match self.outcome.status {
            Some(0) if self.failed_tests > 0 => {
                all.push("its status is 0, but tests failed".into());
            }
            Some(1) if self.failed_tests == 0 && self.totals.is_some() => {
                all.push("its status is 1, but no test failed".into());
            }
            _ => (),
        }
        all
    }

    /// Numbers of tests that occur twice, that are left out, or that lie beyond the plan.
    fn wrong_numbers(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut seen = BTreeSet::new();
        let repeated = self.tests.iter().find(|test| !seen.insert(test.number));
        if let Some(test) = repeated {
            wrong.push(format!("test {} ended more than once", test.number));
        }
        let numbers = seen.iter().copied();
        // With tests dropped for lack of room, a gap means nothing.
        if let Some((missing, _)) = (1..).zip(numbers).find(|(want, have)| want != have)
            && self.left.tests == 0
        {
            wrong.push(match seen.contains(&0) {
                true => "a test has the number 0".into(),
                false => format!("test {missing} is missing, but later ones ended"),
            });
        }
        if let (Some(planned), Some(last)) = (self.planned, seen.last())
            && *last > planned
        {
            wrong.push(format!("test {last} ended, but {planned} were planned"));
        }
        wrong
    }

    /// Totals that disagree with tests, findings, samples or the histogram.
    fn wrong_totals(&self, totals: &Totals) -> Vec<String> {
        let mut wrong = Vec::new();
        for (what, total, kinds) in [
            ("wrong data", totals.mismatches, &WRONG_DATA[..]),
            (
                "changes around buffers",
                totals.guard_hits,
                &[FindingKind::GuardHit],
            ),
            (
                "lost interrupts",
                totals.lost_interrupts,
                &[FindingKind::LostInterrupt],
            ),
        ] {
            let found = self.count(kinds);
            if total == 0 && found > 0 {
                wrong.push(format!(
                    "its totals have no {what}, but it reported {found}"
                ));
            }
        }
        let bad = totals.mismatches | totals.guard_hits | totals.lost_interrupts;
        if bad > 0 && self.failed_tests == 0 {
            wrong.push("its totals name errors, but no test failed".into());
        }
        let reached = self
            .samples
            .iter()
            .fold((0, 0), |(transfers, bytes), sample| {
                (sample.transfers.max(transfers), sample.bytes.max(bytes))
            });
        if totals.transfers < reached.0 || totals.bytes < reached.1 {
            wrong.push("its totals are less than it had reached before".into());
        }
        let counted = self
            .latency
            .iter()
            .fold(0_u64, |sum, bar| sum.saturating_add(bar.count));
        // Transfers that did not end well may be in the one and not in the other.
        if counted > totals.transfers && self.device_errors() == 0 {
            wrong.push(format!(
                "its histogram has {counted} transfers, its totals have {}",
                totals.transfers
            ));
        }
        if totals.p50 > totals.p99 || totals.p99 > totals.max {
            wrong.push("its latencies do not ascend from the median to the longest".into());
        }
        wrong
    }
}

impl Verdict {
    /// `passed`, `failed` or `incomplete`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed(_) => "failed",
            Self::Incomplete(_) => "incomplete",
        }
    }

    /// Why it is not passed; empty if it is.
    #[must_use]
    pub fn reasons(&self) -> &[Reason] {
        match self {
            Self::Passed => &[],
            Self::Failed(reasons) | Self::Incomplete(reasons) => reasons,
        }
    }
}
