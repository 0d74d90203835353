// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Why a run does not start, or fails.

use address::{Bdf, Gpa};
use host::Id;
use strum::{EnumDiscriminants, EnumIter, IntoEnumIterator, IntoStaticStr};

use crate::error::explain::{ExitCode, Explain, Limits, MORE_TASKS};

/// A guest did not end well, or would not.
#[derive(Debug, thiserror::Error, EnumDiscriminants)]
#[strum_discriminants(
    name(RunErrorKind),
    derive(EnumIter, IntoStaticStr),
    strum(serialize_all = "kebab-case"),
    doc = "The kinds of [`RunError`]; their names stay."
)]
pub enum RunError {
    /// A limit on open files that leaves too few for a run.
    #[error("A run needs up to {need} open files, and the limit is {limit}")]
    TooFewFiles {
        /// The limit.
        limit: u64,
        /// Files needed.
        need: u64,
    },
    /// The guest did something after which no CPU can continue.
    #[error("The guest crashed: {0}")]
    GuestCrash(String),
    /// The guest requested a restart, and is not restarted.
    #[error("The guest requested a restart")]
    GuestReset,
    /// The guest reported a failure.
    #[error("The guest powered itself off with status {0}")]
    GuestStatus(u8),
    /// A device failed while the guest ran.
    #[error("PCI device {bdf}: {reason}")]
    DeviceFailed {
        /// The device.
        bdf: Bdf,
        /// What happened.
        reason: String,
    },
    /// A page behind the guest's address space is gone.
    #[error(
        "An access of the guest failed on the host{}: a device no longer responds, or a page of \
         memory is bad",
        at.map_or_else(String::new, |at| format!(", at {at}"))
    )]
    AccessFailed {
        /// The address, if KVM reports it.
        at: Option<Gpa>,
    },
    /// A limit on tasks.
    #[error(
        "KVM cannot start its worker thread, which every guest needs: a limit on processes and \
         threads is reached (KVM_RUN fails with EAGAIN)"
    )]
    NoWorker,
    /// A thread of the monitor panicked; it has printed why.
    #[error("Internal error: a thread of Pinvisor panicked")]
    Panicked,
}

impl Explain for RunError {
    fn ids() -> Vec<&'static str> {
        RunErrorKind::iter().map(Into::into).collect()
    }

    fn id(&self) -> &'static str {
        RunErrorKind::from(self).into()
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::TooFewFiles { .. } | Self::Panicked | Self::NoWorker => ExitCode::Host,
            Self::AccessFailed { .. } | Self::DeviceFailed { .. } => ExitCode::Device,
            Self::GuestCrash(_) => ExitCode::Guest,
            Self::GuestStatus(_) => ExitCode::GuestStatus,
            Self::GuestReset => ExitCode::GuestReset,
        }
    }

    fn hint(&self, _: Limits) -> Option<String> {
        match self {
            Self::TooFewFiles { need, .. } => Some(host::open_files_hint(*need)),
            Self::NoWorker => Some(MORE_TASKS.to_owned()),
            Self::GuestReset => Some(
                "Linux may restart after a panic, too: see the end of its serial output; \
                 --on-reset restart boots it again"
                    .to_owned(),
            ),
            Self::Panicked
            | Self::AccessFailed { .. }
            | Self::DeviceFailed { .. }
            | Self::GuestCrash(_)
            | Self::GuestStatus(_) => None,
        }
    }

    fn check(&self, _: Limits) -> Option<Id> {
        match self {
            Self::TooFewFiles { .. } => Some(Id::OpenFiles),
            _ => None,
        }
    }
}
