// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What can go wrong on the build machine.

use std::io;
use std::path::PathBuf;

/// Result of everything in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why the testbed could not do its work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An operation on a file failed.
    #[error("Cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried, an infinitive without "to".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A program could not be started.
    #[error("Cannot start {program}: {source}")]
    Start {
        /// Its name.
        program: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A program failed.
    #[error("`{command}` failed ({status}):\n{output}")]
    Command {
        /// The command line.
        command: String,
        /// Exit status or signal.
        status: String,
        /// The end of what it wrote.
        output: String,
    },
    /// Something is missing that only the user may install.
    #[error("Missing on this machine: {what}. To install it: {command}")]
    Missing {
        /// What is missing.
        what: String,
        /// The command that installs it.
        command: String,
    },
    /// Rust cannot build for a target.
    #[error(transparent)]
    RustTarget(#[from] rust_target::Error),
    /// An option of the test machine's kernel did not come true.
    #[error("Kernel {flavour}: the configuration does not accept `{line}`")]
    KernelOption {
        /// The kernel's flavour.
        flavour: &'static str,
        /// The line of the configuration that was asked for.
        line: String,
    },
    /// A file does not have the form it must have.
    #[error("{}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The test machine ended without a word from the script.
    #[error(
        "The test machine died ({status}). End of its console:\n{console}\nOutput of \
             QEMU:\n{qemu}\nEnd of QEMU's trace:\n{trace}"
    )]
    MachineDied {
        /// QEMU's exit status.
        status: String,
        /// The end of the console.
        console: String,
        /// What QEMU wrote.
        qemu: String,
        /// The end of its trace.
        trace: String,
    },
    /// The request contradicts itself or the machine.
    #[error("{0}")]
    Usage(String),
    /// Ctrl-C or SIGTERM.
    #[error("Interrupted")]
    Interrupted,
}

/// Adds file and action to an I/O error.
pub trait AtPath<T> {
    /// Names what was tried on which file.
    ///
    /// # Errors
    /// The given error, as [`Error::File`].
    fn at(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T>;
}

impl<T> AtPath<T> for io::Result<T> {
    fn at(self, action: &'static str, path: impl Into<PathBuf>) -> Result<T> {
        self.map_err(|source| Error::File {
            action,
            path: path.into(),
            source,
        })
    }
}
