//! `pinvisor plan`: what a guest would look like. Everything is done as for a run, up to where
//! its layout is decided; then that is told, and everything given back.

mod gather;
mod modes;
mod report;
mod svg;
mod text;

use std::io::{self, Write};
use std::path::PathBuf;

use crate::cli::written;
use crate::config::Config;
use crate::error::Error;
use crate::memory::layout::Identity;
use crate::stages::Inspected;

pub use report::{
    AddressMapEntry, Choice, Cost, Device, Extent, FORMAT, Memory, Memslots, Mode, Place, Plan,
};
pub use svg::DrawError;

/// Where a plan goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// As JSON instead of text.
    pub json: bool,
    /// A drawing into this file, besides.
    pub svg: Option<PathBuf>,
}

/// Plans the microVM of `config` and tells about it.
///
/// # Errors
/// [`Error`], in particular for what would keep it from running; where that is a kernel without a
/// place, or memory in too many pieces, the plan is printed before.
pub fn run(config: &Config, output: &Output) -> Result<(), Error> {
    let planned = Inspected::new(config, &Identity)?
        .open_kvm()?
        .bind()?
        .pin()?
        .plan()?;
    let plan = gather::plan(&planned);
    let apart = planned.take_apart();
    let plan = plan?;
    let obstacle = apart?;
    let text = match output.json {
        true => report::json(&plan)?,
        false => text::text(&plan),
    };
    written(io::stdout().write_all(text.as_bytes()))?;
    if let Some(path) = &output.svg {
        let drawing = svg::draw(&plan)?;
        std::fs::write(path, drawing).map_err(|source| Error::File {
            what: "drawing",
            path: path.clone(),
            source,
        })?;
    }
    obstacle.map_or(Ok(()), Err)
}
