// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Why a run does not begin to go on, or does not end well.

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
    /// The guest did something that no CPU can go on from.
    #[error("The guest crashed: {0}")]
    GuestCrash(String),
    /// The guest wants to be started anew, and is not.
    #[error("The guest asked for a restart")]
    GuestReset,
    /// The guest says that something went wrong in it.
    #[error("The guest switched itself off with status {0}")]
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
        "An access of the guest failed on the host{}: a device there no longer answers, or a page of memory is bad",
        at.map_or_else(String::new, |at| format!(", at {at}"))
    )]
    AccessFailed {
        /// Where, as far as KVM tells.
        at: Option<Gpa>,
    },
    /// A limit on tasks.
    #[error(
        "KVM cannot start its worker thread, without which no guest runs: a limit on processes and \
         threads is reached (KVM_RUN fails with EAGAIN)"
    )]
    NoWorker,
    /// A thread of the monitor panicked; it has printed why.
    #[error("A part of Pinvisor failed, which is a bug of its own")]
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
                "Linux restarts after a panic, too: look at what its serial port printed last; \
                 --on-reset restart starts it anew"
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
