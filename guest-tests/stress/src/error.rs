// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What can fail in a stress run, and with which exit code.

use strum::{EnumDiscriminants, EnumIter, IntoEnumIterator, IntoStaticStr};
use vmm::ExitCode;

/// Why there is no verdict.
#[derive(Debug, thiserror::Error, EnumDiscriminants)]
#[strum_discriminants(
    name(ErrorKind),
    derive(EnumIter, IntoStaticStr),
    strum(serialize_all = "kebab-case"),
    doc = "The kinds of [`Error`]; their names stay."
)]
pub enum Error {
    /// The microVM.
    #[error(transparent)]
    Pinvisor(#[from] pinvisor::Error),
    /// A fault that only the engine in software can have.
    #[error("Only the DMA engine in software supports this fault")]
    NoSoftwareEngine,
    /// The report.
    #[error(transparent)]
    Report(#[from] stress_report::Error),
}

/// What the library has an error for.
macro_rules! from_library {
    ($($source:ty),+) => {
        $(impl From<$source> for Error {
            fn from(error: $source) -> Self {
                Self::Pinvisor(error.into())
            }
        })+
    };
}
from_library!(
    vmm::Error,
    vmm::FileError,
    vmm::ProcessError,
    vmm::config::ValidateError
);

impl Error {
    /// The name of what went wrong, which stays from version to version.
    #[must_use]
    pub fn id(&self) -> &'static str {
        match self {
            Self::Pinvisor(error) => error.id(),
            _ => ErrorKind::from(self).into(),
        }
    }

    /// All names that [`id`](Self::id) can give.
    pub fn ids() -> impl Iterator<Item = &'static str> {
        let own = ErrorKind::iter().filter(|kind| *kind != ErrorKind::Pinvisor);
        own.map(Into::into).chain(pinvisor::Error::ids())
    }

    /// The exit code of a process that ends with this error.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Pinvisor(error) => error.exit_code(),
            Self::NoSoftwareEngine | Self::Report(_) => ExitCode::Usage,
        }
    }

    /// What the user can do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Pinvisor(error) => error.hint(),
            Self::NoSoftwareEngine => Some("add --software".to_owned()),
            Self::Report(_) => None,
        }
    }

    /// The check that looks for what is behind it, if there is one.
    #[must_use]
    pub fn check(&self) -> Option<&'static str> {
        match self {
            Self::Pinvisor(error) => error.check().map(host::Id::name),
            _ => None,
        }
    }
}
