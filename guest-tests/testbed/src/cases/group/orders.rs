// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The keeper is killed, and both processes, in each order. What holds is required. What does not is measured: for how long
//! memory is the host's before its device is closed, and what is written to it then.

use std::time::Duration;

use super::super::check::Findings;
use super::killing::{self, After, Kill, SIGKILL};
use crate::error::Result;
use crate::order;
use crate::runner::CaseResult;

/// Guests of each order.
const ROUNDS: usize = 4;

/// Who is killed, and in which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Killed {
    /// The keeper. The monitor is asked to end after that.
    Keeper,
    /// The monitor, then the keeper, before it has done anything.
    MonitorFirst,
    /// The keeper, then the monitor.
    KeeperFirst,
    /// Both at once, as all processes of a control group are.
    Both,
}

impl Killed {
    /// All, those first after which something is promised: what the others do must not disturb them.
    const ALL: [Self; 4] = [
        Self::Keeper,
        Self::MonitorFirst,
        Self::KeeperFirst,
        Self::Both,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Keeper => "keeper",
            Self::MonitorFirst => "monitor_first",
            Self::KeeperFirst => "keeper_first",
            Self::Both => "both",
        }
    }

    fn command(self) -> &'static str {
        match self {
            Self::Keeper => "kill -KILL $keeper; await_end $keeper; kill -INT $monitor",
            Self::MonitorFirst => {
                "kill -STOP $keeper; kill -KILL $monitor; await_end $monitor; kill -KILL $keeper"
            }
            Self::KeeperFirst => "kill -KILL $keeper; await_end $keeper; kill -KILL $monitor",
            Self::Both => "kill -KILL $monitor $keeper",
        }
    }

    /// Requires what is promised after it.
    fn judge(self, findings: &mut Findings, key: &str, after: After<'_>) {
        match self {
            // The keeper's own pins end early, the monitor's do not.
            Self::Keeper => killing::ended_in_order(findings, key, after, "0"),
            Self::MonitorFirst => killing::ended_in_order(findings, key, after, SIGKILL),
            Self::KeeperFirst | Self::Both => {
                findings.expect_eq(&format!("{key}: status"), after.status, SIGKILL);
            }
        }
    }
}

/// Every order.
pub fn orders() -> Result<CaseResult> {
    let kills = Killed::ALL.map(|killed| {
        let kill = |number| Kill {
            key: format!("{}{number}", killed.name()),
            command: killed.command(),
        };
        Vec::from_iter((1..=ROUNDS).map(kill))
    });
    let kills = Vec::from_iter(kills.into_iter().flatten());
    let outcome = killing::run(&kills)?;
    let mut findings = Findings::default();
    killing::left_usable(&mut findings, &outcome, &kills);
    killing::rest_untouched(&mut findings, &outcome);
    let found: Vec<_> = killing::found(&outcome, &kills).collect();
    for (killed, found) in Killed::ALL.into_iter().zip(found.chunks(ROUNDS)) {
        for (key, after) in found {
            killed.judge(&mut findings, key, *after);
        }
        println!("group-kill-orders: {}: {}", killed.name(), measured(found));
    }
    Ok(findings.into_result(&outcome))
}

/// For the reader of the case's output.
fn measured(found: &[(&str, After<'_>)]) -> String {
    let early = found.iter();
    let early = early.filter_map(|(_, after)| order::unpinned_before_close(after.notes));
    let early: Vec<Duration> = early.collect();
    let changed: Vec<_> = found.iter().map(|(_, after)| after.changed).collect();
    format!(
        "{} of {} times memory was unpinned before the device was closed, at most {:?} before; words changed: {changed:?}",
        early.len(),
        found.len(),
        early.iter().max().unwrap_or(&Duration::ZERO)
    )
}
