//! Does the stress notice, and name, what can go wrong?

use super::super::check::Findings;
use super::super::script::PRELUDE;
use super::{found, machine, passed, run};
use crate::error::Result;
use crate::runner::CaseResult;

/// Each way to break the machine in software, and what the report is to call it.
const FAULTS: [(&str, &str); 4] = [
    ("identity", "wrong-extent"),
    ("offset", "shifted"),
    ("interrupt", "lost-interrupt"),
    ("bit", "bit-flip"),
];

/// What `cargo demo` shows, unbroken and broken in every way. No device, no hugepage.
pub fn software() -> Result<CaseResult> {
    let arguments = "--software --memory 64M --timeout 200";
    let mut script = [PRELUDE, &run("good", "", arguments)].concat();
    for (what, _) in FAULTS {
        script += &run(what, "", &format!("{arguments} --break {what}"));
    }
    let outcome = machine()?.run(&script)?;
    let mut findings = Findings::default();
    passed(&mut findings, &outcome, "good", (2000, 4 << 20));
    for (what, kind) in FAULTS {
        found(&mut findings, &outcome, what, kind);
    }
    Ok(findings.into_result(&outcome))
}
