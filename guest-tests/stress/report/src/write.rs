// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Reports into files.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::report::Report;

/// Why a report could not be written.
#[derive(Debug, Error)]
pub enum Error {
    /// No JSON.
    #[error("Cannot write a report as JSON")]
    Json(#[source] serde_json::Error),
    /// No page.
    #[error("Cannot write a report as HTML")]
    Template(#[source] askama::Error),
    /// No drawing.
    #[error("Cannot draw {what}: {why}")]
    Drawing {
        /// Which.
        what: &'static str,
        /// In the words of the library that draws.
        why: String,
    },
    /// No file.
    #[error("Cannot write {}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Writes [`json`](fn@crate::json) to `path`, over what is there.
///
/// # Errors
/// [`Error::Json`], [`Error::Write`].
pub fn write_json(report: &Report, path: &Path) -> Result<(), Error> {
    write(path, &crate::json(report).map_err(Error::Json)?)
}

/// Writes [`html`](crate::html()) to `path`, over what is there.
///
/// # Errors
/// [`Error::Template`], [`Error::Drawing`], [`Error::Write`].
pub fn write_html(report: &Report, path: &Path) -> Result<(), Error> {
    write(path, &crate::html(report)?)
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    std::fs::write(path, text).map_err(|source| Error::Write {
        path: path.to_owned(),
        source,
    })
}
