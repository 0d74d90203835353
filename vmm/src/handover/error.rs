// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Why a handover is refused, or cannot be made.

use std::io;
use std::path::PathBuf;

use strum::{EnumDiscriminants, EnumIter, IntoEnumIterator, IntoStaticStr};

use super::state::VERSION;
use crate::error::explain::{ExitCode, Explain, Limits};

/// A handover that does not take place.
#[derive(Debug, thiserror::Error, EnumDiscriminants)]
#[strum_discriminants(
    name(HandoverErrorKind),
    derive(EnumIter, IntoStaticStr),
    strum(serialize_all = "kebab-case"),
    doc = "The kinds of [`HandoverError`]; their names stay."
)]
pub enum HandoverError {
    /// What was received is not what this run can start from.
    #[error("The handover is refused: {0}")]
    Handover(Refusal),
    /// The socket at which it is offered cannot be used.
    #[error("Cannot {operation} the socket {}", path.display())]
    HandoverSocket {
        /// What was tried.
        operation: &'static str,
        /// Its path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The devices are opened through groups, whose memory belongs to the process that pins it.
    #[error(
        "Devices that are opened through VFIO groups cannot be handed over: their memory is pinned by io_uring, and such \
         a pin belongs to the process that made it"
    )]
    HandoverOfGroups,
}

/// What is wrong with a handover.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The descriptor is none, or not a socket that keeps packets apart.
    #[error("descriptor {number} {reason}")]
    Descriptor {
        /// As given.
        number: u32,
        /// What it is instead.
        reason: &'static str,
    },
    /// Nothing can be received.
    #[error("cannot receive it: {0}")]
    Receive(io::Error),
    /// The sender is gone.
    #[error("the sender closed the socket without sending it")]
    Closed,
    /// Another format.
    #[error("it has the format {format:?}, version {version}, and this is version {VERSION}")]
    Version {
        /// The name of the format.
        format: String,
        /// Its version.
        version: u32,
    },
    /// A file cannot be examined.
    #[error("cannot examine {what}: {source}")]
    Examine {
        /// The file.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// The state is no state.
    #[error("its state cannot be read: {0}")]
    Parse(serde_json::Error),
    /// A value of it, or a file, is wrong.
    #[error("{0}")]
    Wrong(String),
}

impl HandoverError {
    /// Descriptor `number` cannot be used for the `reason`, as in "is not open".
    #[must_use]
    pub fn descriptor(number: u32, reason: &'static str) -> Self {
        Self::Handover(Refusal::Descriptor { number, reason })
    }

    /// A value is wrong, as `text` says.
    pub(crate) fn wrong(text: impl Into<String>) -> Self {
        Self::Handover(Refusal::Wrong(text.into()))
    }
}

impl From<Refusal> for HandoverError {
    fn from(refusal: Refusal) -> Self {
        Self::Handover(refusal)
    }
}

impl Explain for HandoverError {
    fn ids() -> Vec<&'static str> {
        HandoverErrorKind::iter().map(Into::into).collect()
    }

    fn id(&self) -> &'static str {
        HandoverErrorKind::from(self).into()
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Handover(_) | Self::HandoverSocket { .. } => ExitCode::Usage,
            Self::HandoverOfGroups => ExitCode::Host,
        }
    }

    fn hint(&self, _: Limits) -> Option<String> {
        let text = match self {
            Self::Handover(Refusal::Version { .. }) => {
                "use the same version of Pinvisor for both processes"
            }
            Self::Handover(_) => {
                "pinvisor launch starts pinvisor run with a handover that fits; \
                 docs/reference/handover.md describes what another launcher has to send"
            }
            Self::HandoverSocket { .. } => {
                "the file is there once pinvisor launch --serve PATH has everything ready: start pinvisor run after that, as \
                 the user of --user. Its directory must exist, and the launcher must be able to write to it"
            }
            Self::HandoverOfGroups => {
                "use a host kernel with the character devices (Linux 7.3), or run as root without \
                 a launcher: pinvisor run"
            }
        };
        Some(text.to_owned())
    }
}
