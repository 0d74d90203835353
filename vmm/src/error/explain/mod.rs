// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The interface by which each error explains itself, beside the code that it belongs to.
//!
//! Nothing here depends on the rest of the library; [`Error`](crate::error::Error) is what brings all errors together.

mod backend;
mod exit_code;
mod file;
mod limits;
mod process;

use host::Id;

pub use exit_code::ExitCode;
pub use file::FileError;
pub use limits::{Limits, errno};
pub use process::{MORE_TASKS, ProcessError, process};

/// The hint of an error that only a bug causes, in Pinvisor or in the host's kernel.
pub const REPORT_BUG: &str = "this is a bug in Pinvisor or in the host's kernel: please report it, with the output of \
                              the same command with -vv, of uname -r, and of cat /proc/iomem as root";

/// An error that reaches the user.
pub trait Explain {
    /// All names that [`id`](Self::id) gives to errors of this type's own.
    fn ids() -> Vec<&'static str>
    where
        Self: Sized;

    /// The name of what went wrong, which stays from version to version.
    fn id(&self) -> &'static str;

    /// The exit code of a process that ends with it.
    fn exit_code(&self) -> ExitCode;

    /// What the user can do about it where these limits apply, as far as that is known. What
    /// follows from a limit alone, whatever the error is, is not included here.
    fn hint(&self, _limits: Limits) -> Option<String> {
        None
    }

    /// The check that looks for what is missing where these limits apply, if there is one.
    fn check(&self, _limits: Limits) -> Option<Id> {
        None
    }
}

/// An error and what is behind it, on one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
