// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Why a run does not start, or fails.

use address::{Bdf, Gpa};
use host::{Id, OpenFiles};
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
    #[error(
        "A run needs up to {need} open files{}, but the hard limit of this process is {limit}",
        of_guarded(files)
    )]
    TooFewFiles {
        /// The limit.
        limit: u64,
        /// Files needed.
        need: u64,
        /// What for.
        files: OpenFiles,
    },
    /// The guest did something after which no CPU can continue.
    #[error("The guest crashed: {0}")]
    GuestCrash(String),
    /// The guest requested a restart, and is not restarted.
    #[error("The guest requested a restart, which ended the run")]
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
        "The host could not complete a memory access by the guest{}, which ended the run: a device \
         no longer responds, or a page of host memory has failed",
        at.map_or_else(String::new, |at| format!(" at GPA {at}"))
    )]
    AccessFailed {
        /// The address, if KVM reports it.
        at: Option<Gpa>,
    },
    /// A limit on tasks.
    #[error(
        "KVM cannot start the worker thread that every guest needs: a limit on the number of \
         processes and threads is reached on the host (KVM_RUN fails with EAGAIN)"
    )]
    NoWorker,
    /// A thread of the monitor panicked; it has printed why.
    #[error("Internal error: a thread of Pinvisor panicked")]
    Panicked,
}

/// What guarded controllers add to the need, where there are some.
fn of_guarded(files: &OpenFiles) -> String {
    match files.of_guarded() {
        0 => String::new(),
        count => format!(" ({count} for guarded NVMe controllers)"),
    }
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
                "look for a panic at the end of the guest's serial output: Linux may restart \
                 after one. With the option '--on-reset restart', Pinvisor boots the guest again \
                 instead"
                    .to_owned(),
            ),
            Self::AccessFailed { .. } => Some(
                "on the host, dmesg shows a failed device or 'memory failure'; pinvisor plan with \
                 the options of this run shows what is at the address"
                    .to_owned(),
            ),
            Self::DeviceFailed { bdf, .. } => Some(format!(
                "the host's log has the reason: dmesg | grep -e {bdf} -e AER"
            )),
            Self::GuestCrash(_) => Some(
                "see the end of the guest's serial output; for early messages of Linux add \
                 --cmdline 'earlyprintk=serial console=ttyS0'"
                    .to_owned(),
            ),
            Self::GuestStatus(_) => {
                Some("see the end of the guest's serial output for the failure".to_owned())
            }
            Self::Panicked => Some(
                "this is a bug in Pinvisor: please report it, with the output above this line"
                    .to_owned(),
            ),
        }
    }

    fn check(&self, _: Limits) -> Option<Id> {
        match self {
            Self::TooFewFiles { .. } => Some(Id::OpenFiles),
            _ => None,
        }
    }
}
