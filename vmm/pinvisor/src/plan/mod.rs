// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `pinvisor plan`: the layout of a guest. Everything is done as for a run, until its layout is
//! decided; then that is reported, and everything released.

mod text;

use std::io::{self, Write};

use vmm::config::ValidConfig;
use vmm::report::Plan;

use crate::cli::written;
use crate::error::Error;

/// Plans the microVM of `config` and prints the plan, as text or as JSON.
///
/// # Errors
/// [`Error`], in particular for what would keep it from running; where that is a kernel without a
/// place, or memory in too many pieces, the plan is printed before.
pub fn run(config: &ValidConfig, as_json: bool) -> Result<(), Error> {
    let (plan, obstacle) = vmm::plan(config)?;
    let text = match as_json {
        true => json(&plan)?,
        false => text::text(&plan),
    };
    written(io::stdout().write_all(text.as_bytes()))?;
    Ok(obstacle.map_or(Ok(()), Err)?)
}

/// The plan as JSON, with a line end.
fn json(plan: &Plan) -> Result<String, Error> {
    let text = serde_json::to_string_pretty(plan);
    let failed = |error: serde_json::Error| vmm::process("write the plan as JSON")(error.into());
    Ok(text.map_err(failed)? + "\n")
}
