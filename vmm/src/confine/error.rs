// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Why the process cannot be confined as it should be.

use std::io;
use std::path::PathBuf;

use host::Id;
use strum::{EnumDiscriminants, EnumIter, IntoEnumIterator, IntoStaticStr};

use crate::error::explain::{ExitCode, Explain, Limits};

/// The process, or one of its threads, cannot be confined.
#[derive(Debug, thiserror::Error, EnumDiscriminants)]
#[strum_discriminants(
    name(ConfineErrorKind),
    derive(EnumIter, IntoStaticStr),
    strum(serialize_all = "kebab-case"),
    doc = "The kinds of [`ConfineError`]; their names stay."
)]
pub enum ConfineError {
    /// `--jail-user` names no user.
    #[error("--jail-user {user}: {reason}")]
    JailUser {
        /// As given.
        user: String,
        /// What is wrong with it.
        reason: String,
    },
    /// `--jail-root` cannot be the root directory.
    #[error("--jail-root: {} cannot be the root directory", path.display())]
    JailRoot {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A jail, and a guest that is to be restarted.
    #[error(
        "{option} and --on-reset restart exclude each other: for a restart the devices are opened again, with the \
         privileges that the run began with"
    )]
    JailRestart {
        /// The option.
        option: &'static str,
    },
    /// The kernel refuses a filter.
    #[error("The kernel does not accept the seccomp filter of the thread {thread}")]
    SeccompFilter {
        /// The kind of thread.
        thread: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The kernel refuses something else.
    #[error("Cannot {operation}")]
    Confine {
        /// What was tried, as a verb phrase.
        operation: &'static str,
        /// Why not.
        source: io::Error,
    },
}

impl Explain for ConfineError {
    fn ids() -> Vec<&'static str> {
        ConfineErrorKind::iter().map(Into::into).collect()
    }

    fn id(&self) -> &'static str {
        ConfineErrorKind::from(self).into()
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::JailUser { .. } | Self::JailRoot { .. } | Self::JailRestart { .. } => {
                ExitCode::Usage
            }
            Self::SeccompFilter { .. } | Self::Confine { .. } => ExitCode::Host,
        }
    }

    fn hint(&self, _: Limits) -> Option<String> {
        let text = match self {
            Self::JailUser { .. } => {
                "name a user that exists (getent passwd), or numbers: --jail-user UID:GID"
            }
            Self::JailRoot { .. } => {
                "name a directory that exists, which may be empty; changing the root directory requires CAP_SYS_CHROOT"
            }
            Self::JailRestart { .. } => {
                "leave --on-reset restart out, and have a supervisor start Pinvisor again after exit code 7"
            }
            Self::SeccompFilter { .. } => {
                "use a host kernel with CONFIG_SECCOMP_FILTER; if a container forbids seccomp(2) or prctl(2), allow \
                 them, or run without the filters: --seccomp off"
            }
            Self::Confine { .. } => return None,
        };
        Some(text.to_owned())
    }

    fn check(&self, _: Limits) -> Option<Id> {
        matches!(self, Self::SeccompFilter { .. }).then_some(Id::Seccomp)
    }
}

/// Makes a [`ConfineError::Confine`] of the error of `operation`, a verb phrase.
pub(super) fn cannot<E: Into<io::Error>>(
    operation: &'static str,
) -> impl FnOnce(E) -> ConfineError {
    move |source| ConfineError::Confine {
        operation,
        source: source.into(),
    }
}
