// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Errors of the program, with their exit codes.

use std::io;
use std::path::PathBuf;

use address::Bdf;
use host::Id;
use strum::{EnumDiscriminants, EnumIter, IntoEnumIterator, IntoStaticStr};
use vmm::ExitCode;

/// Why the program did not do what it was asked for.
#[derive(Debug, thiserror::Error, EnumDiscriminants)]
#[strum_discriminants(
    name(ErrorKind),
    derive(EnumIter, IntoStaticStr),
    strum(serialize_all = "kebab-case"),
    doc = "The kinds of [`Error`]; their names stay."
)]
pub enum Error {
    /// A microVM, or the host that it was to run on.
    #[error(transparent)]
    Vmm(vmm::Error),
    /// An option is needed that was not given.
    #[error(transparent)]
    OptionMissing(#[from] crate::config::Missing),
    /// A file with options.
    #[error(transparent)]
    ConfigFile(#[from] crate::config::FileError),
    /// Where events go.
    #[error(transparent)]
    Events(#[from] crate::events::EventsError),
    /// The file with the process ID.
    #[error(transparent)]
    Pidfile(#[from] crate::pidfile::PidfileError),
    /// A guest is not launched.
    #[error(transparent)]
    Launch(#[from] crate::launcher::LaunchError),
    /// No such process for a device.
    #[error("No process keeps guest memory pinned for PCI device {bdf}")]
    NoKeeper {
        /// The device.
        bdf: Bdf,
    },
    /// The program for stress runs does not start.
    #[error("Cannot start {}", program.display())]
    NoStress {
        /// The program.
        program: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// What the library has an error for.
macro_rules! from_library {
    ($($source:ty),+) => {
        $(impl From<$source> for Error {
            fn from(error: $source) -> Self {
                Self::Vmm(error.into())
            }
        })+
    };
}
from_library!(
    vmm::Error,
    vmm::config::ValidateError,
    vmm::confine::ConfineError,
    vmm::FileError,
    vmm::ProcessError,
    vmm::handover::HandoverError,
    host::BindError,
    iommufd_backend::Error,
    keeper::KeeperError,
    devices::guest_table::TableError
);

impl Error {
    /// Whether another process keeps guest memory pinned because of it.
    #[must_use]
    pub fn keeps_memory(&self) -> bool {
        matches!(self, Self::Vmm(error) if error.keeps_memory())
    }

    /// The name of what went wrong, which stays from version to version.
    #[must_use]
    pub fn id(&self) -> &'static str {
        match self {
            Self::Vmm(error) => error.id(),
            _ => ErrorKind::from(self).into(),
        }
    }

    /// All names that [`id`](Self::id) can give.
    pub fn ids() -> impl Iterator<Item = &'static str> {
        let own = ErrorKind::iter().filter(|kind| *kind != ErrorKind::Vmm);
        own.map(Into::into).chain(vmm::Error::ids())
    }

    /// The error and what is behind it, on one line.
    #[must_use]
    pub fn chain(&self) -> String {
        vmm::chain(self)
    }

    /// The exit code of a process that ends with this error.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Vmm(error) => error.exit_code(),
            Self::Launch(error) => error.exit_code(),
            Self::NoKeeper { .. } => ExitCode::Device,
            Self::OptionMissing(_)
            | Self::ConfigFile(_)
            | Self::Events(_)
            | Self::Pidfile(_)
            | Self::NoStress { .. } => ExitCode::Usage,
        }
    }

    /// The check that looks for what is behind it, if there is one.
    #[must_use]
    pub fn check(&self) -> Option<Id> {
        match self {
            Self::Vmm(error) => error.check(),
            _ => None,
        }
    }

    /// What the user can do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Vmm(error) => error.hint(),
            Self::Events(error) => error.hint(),
            Self::Launch(error) => Some(error.hint()),
            Self::NoStress { .. } => Some(
                "install pinvisor-stress beside pinvisor: cargo build --release builds both"
                    .to_owned(),
            ),
            Self::NoKeeper { .. } => Some(
                "pinvisor list, run as root, shows the processes that keep memory, and for which \
                 devices"
                    .to_owned(),
            ),
            Self::OptionMissing(error) => Some(error.hint()),
            Self::Pidfile(error) => error.hint(),
            Self::ConfigFile(crate::config::FileError::Wrong { .. }) => Some(
                "docs/reference/config.toml lists all keys, which are named like the options of \
                 pinvisor run"
                    .to_owned(),
            ),
            Self::ConfigFile(crate::config::FileError::Read { .. }) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique() {
        let names: BTreeSet<_> = Error::ids().collect();
        assert_eq!(names.len(), Error::ids().count());
        assert!(names.contains("no-keeper") && names.contains("device-twice"));
    }
}
