// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The monitor is killed while a device works in guest memory that io_uring pins. No file of the kernel's holds both: the
//! memory must stay pinned until the device is closed, nothing else may be written to, and a next run must work.

use super::super::check::Findings;
use super::killing::{self, Kill, SIGKILL};
use crate::error::Result;
use crate::runner::CaseResult;

/// 30 kills.
pub fn short() -> Result<CaseResult> {
    run(30)
}

/// 300 kills.
pub fn long() -> Result<CaseResult> {
    run(300)
}

fn run(count: usize) -> Result<CaseResult> {
    let kill = |number| Kill {
        key: format!("kill{number}"),
        command: "kill -KILL $monitor",
    };
    let kills: Vec<_> = (1..=count).map(kill).collect();
    let outcome = killing::run(&kills)?;
    let mut findings = Findings::default();
    killing::left_usable(&mut findings, &outcome, &kills);
    killing::rest_untouched(&mut findings, &outcome);
    for (key, after) in killing::found(&outcome, &kills) {
        killing::ended_in_order(&mut findings, key, after, SIGKILL);
    }
    Ok(findings.into_result(&outcome))
}
