// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A report for programs.
//!
//! One object: `format` ([`FORMAT`]), `verdict` (`passed`, `failed` or `incomplete`), `reasons` (a
//! list of objects with `kind`, `text` and the numbers of the [`Reason`]), and the fields of
//! [`Report`] under their own names. Addresses are strings in hexadecimal behind `0x`; lengths
//! and counts are numbers, up to 64 bits; kinds, modes and interrupts have the names of
//! `stress-format`; what is not known is `null`.

use serde::Serialize;

use crate::report::Report;
use crate::verdict::Reason;

/// Version of the format. A field that is added does not change it.
pub const FORMAT: u32 = 1;

#[derive(Serialize)]
struct Document<'a> {
    format: u32,
    verdict: &'static str,
    reasons: Vec<ReasonInWords<'a>>,
    #[serde(flatten)]
    report: &'a Report,
}

#[derive(Serialize)]
struct ReasonInWords<'a> {
    text: String,
    #[serde(flatten)]
    reason: &'a Reason,
}

/// `report` as JSON, indented, with a newline at its end.
///
/// # Errors
/// None that a report is known to cause; the writer's own.
pub fn json(report: &Report) -> Result<String, serde_json::Error> {
    let verdict = report.verdict();
    let document = Document {
        format: FORMAT,
        verdict: verdict.name(),
        reasons: verdict
            .reasons()
            .iter()
            .map(|reason| ReasonInWords {
                text: reason.to_string(),
                reason,
            })
            .collect(),
        report,
    };
    serde_json::to_string_pretty(&document).map(|json| json + "\n")
}

/// A report that [`json`] wrote. The verdict is not read but judged again.
///
/// # Errors
/// Text that is no such report.
pub fn from_json(json: &str) -> Result<Report, serde_json::Error> {
    serde_json::from_str(json)
}
