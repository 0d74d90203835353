// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Failures of basic resources: threads, descriptors, the event loop.

use std::error::Error as StdError;
use std::io;

use super::Explain;
use super::exit_code::ExitCode;
use super::limits::Limits;

/// What lets a process have more threads.
pub const MORE_TASKS: &str = "raise the limit: pids.max of the control group (TasksMax= of a systemd unit, \
                              --pids-limit of a container), ulimit -u, sysctl kernel.threads-max, \
                              or the limit on address space, ulimit -v";

/// This process cannot do something.
#[derive(Debug, thiserror::Error)]
#[error("Cannot {operation}")]
pub struct ProcessError {
    /// What was tried, as a verb phrase.
    pub operation: &'static str,
    /// Why not.
    pub source: Box<dyn StdError + Send + Sync>,
}

/// Makes a [`ProcessError`] of the error of `operation`, a verb phrase.
pub fn process(operation: &'static str) -> impl FnOnce(io::Error) -> ProcessError {
    move |source| ProcessError {
        operation,
        source: source.into(),
    }
}

impl Explain for ProcessError {
    fn ids() -> Vec<&'static str> {
        vec!["process"]
    }

    fn id(&self) -> &'static str {
        "process"
    }

    fn exit_code(&self) -> ExitCode {
        ExitCode::Host
    }

    fn hint(&self, _: Limits) -> Option<String> {
        // The kernel has no thread to give (clone(2)).
        let is_again = self
            .source
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.raw_os_error() == Some(libc::EAGAIN));
        is_again.then(|| MORE_TASKS.to_owned())
    }
}
