// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Files named by the user.

use std::io;
use std::path::PathBuf;

use super::Explain;
use super::exit_code::ExitCode;

/// A file that the user named does not open.
#[derive(Debug, thiserror::Error)]
#[error("Cannot open {what} {}", path.display())]
pub struct FileError {
    /// What it is for.
    pub what: &'static str,
    /// The file.
    pub path: PathBuf,
    /// Why not.
    pub source: io::Error,
}

impl Explain for FileError {
    fn ids() -> Vec<&'static str> {
        vec!["file"]
    }

    fn id(&self) -> &'static str {
        "file"
    }

    fn exit_code(&self) -> ExitCode {
        ExitCode::Usage
    }
}
