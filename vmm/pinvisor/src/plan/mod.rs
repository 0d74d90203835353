//! `pinvisor plan`: what a guest would look like. Everything is done as for a run, up to where
//! its layout is decided; then that is told, and everything given back.

mod svg;
mod text;

use std::io::{self, Write};
use std::path::PathBuf;

use vmm::config::ValidConfig;
use vmm::report::Plan;

use crate::cli::written;
use crate::error::Error;

/// Where a plan goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// As JSON instead of text.
    pub json: bool,
    /// A drawing into this file, besides.
    pub svg: Option<PathBuf>,
}

/// Plans the microVM of `config` and prints the plan.
///
/// # Errors
/// [`Error`], in particular for what would keep it from running; where that is a kernel without a
/// place, or memory in too many pieces, the plan is printed before.
pub fn run(config: &ValidConfig, output: &Output) -> Result<(), Error> {
    let (plan, obstacle) = vmm::plan(config)?;
    let text = match output.json {
        true => json(&plan)?,
        false => text::text(&plan),
    };
    written(io::stdout().write_all(text.as_bytes()))?;
    if let Some(path) = &output.svg {
        let drawing = svg::draw(&plan)?;
        std::fs::write(path, drawing).map_err(|source| vmm::Error::File {
            what: "drawing",
            path: path.clone(),
            source,
        })?;
    }
    Ok(obstacle.map_or(Ok(()), Err)?)
}

/// The plan as JSON, with a line end.
fn json(plan: &Plan) -> Result<String, Error> {
    let text = serde_json::to_string_pretty(plan);
    let failed = |error: serde_json::Error| vmm::process("write the plan as JSON")(error.into());
    Ok(text.map_err(failed)? + "\n")
}
