// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Transfers that the monitor checked and translated, and what the guest expects.

use serde::{Deserialize, Serialize};
use stress_format::Provoked;

use crate::report::Report;
use crate::text::Text;
use crate::units::{counted, grouped};
use crate::verdict::Reason;

/// The counts of one device whose DMA the monitor mediates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mediated {
    /// The device on the host.
    pub device: Text,
    /// Transfers that were started.
    pub started: u64,
    /// Transfers that were refused.
    pub refused: u64,
    /// What was wrong with those.
    pub reasons: Vec<RefusedFor>,
    /// Transfers that were dropped, as the device was busy.
    pub busy: u64,
    /// Transfers that the device did not take.
    pub failed: u64,
    /// Accesses that the device does not have, which had no effect.
    pub ignored: u64,
}

/// How many transfers were refused for a reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedFor {
    /// The reason.
    pub reason: Text,
    /// How many.
    pub count: u64,
}

/// How many refusals the guest provoked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// At least.
    pub least: u64,
    /// At most.
    pub most: u64,
}

impl Expected {
    /// `the guest provoked 3 refusals`, if it provoked any.
    pub(crate) fn in_words(self) -> Option<String> {
        let Self { least, most } = self;
        let range = match least == most {
            true => grouped(most),
            false => format!("{} to {}", grouped(least), grouped(most)),
        };
        (most > 0).then(|| format!("the guest provoked {range} refusals"))
    }

    pub(crate) fn add(&mut self, provoked: Provoked) {
        self.least = self.least.saturating_add(provoked.least);
        self.most = self.most.saturating_add(provoked.most);
    }
}

impl Mediated {
    /// In words, all but the reasons.
    pub(crate) fn counts(&self) -> String {
        let mut parts = vec![
            format!("{} started", grouped(self.started)),
            format!("{} refused", grouped(self.refused)),
        ];
        if self.busy > 0 {
            parts.push(format!("{} while busy", grouped(self.busy)));
        }
        if self.failed > 0 {
            parts.push(format!("{} failed", grouped(self.failed)));
        }
        if self.ignored > 0 {
            parts.push(counted(self.ignored, "access ignored", "accesses ignored"));
        }
        parts.join(", ")
    }

    /// The reasons in words.
    pub(crate) fn reasons(&self) -> String {
        let reasons = self.reasons.iter();
        let parts = reasons.map(|entry| format!("{} {}", entry.reason, grouped(entry.count)));
        parts.collect::<Vec<_>>().join(", ")
    }
}

impl Report {
    /// Refusals of all mediated devices.
    pub(crate) fn refused_by_monitor(&self) -> u64 {
        self.sum(|device| device.refused)
    }

    fn sum(&self, of: fn(&Mediated) -> u64) -> u64 {
        let devices = self.outcome.mediated.iter();
        devices.fold(0, |sum, device| sum.saturating_add(of(device)))
    }

    /// What is wrong with the counts of the monitor, given those of the guest.
    pub(crate) fn wrong_mediation(&self) -> Vec<Reason> {
        let refused = self.refused_by_monitor();
        let Expected { least, most } = self.provoked;
        let mut reasons = Vec::new();
        if refused > most {
            reasons.push(Reason::UnprovokedRefusals { refused, most });
        }
        if refused < least {
            reasons.push(Reason::MissingRefusals { refused, least });
        }
        let failed = self.sum(|device| device.failed);
        if failed > 0 {
            reasons.push(Reason::FailedStarts { count: failed });
        }
        reasons
    }
}
