// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! All errors: one enum for each stage or owner, which [explains itself](crate::error::explain).

use devices::guest_table::TableError;
use devices::mediate::ProfileError;
use host::{BindError, Id};
use iommufd_backend::Error as Backend;
use keeper::KeeperError;
use strum::{EnumDiscriminants, EnumIter, IntoEnumIterator};

use crate::arch::{ArchError, EntryError};
use crate::boot::BootError;
use crate::bus::BusError;
use crate::bus::address_map::NoEcamError;
use crate::bus::window::WindowError;
use crate::config::ValidateError;
use crate::confine::ConfineError;
use crate::error::explain::{ExitCode, Explain, FileError, Limits, ProcessError, chain, errno};
use crate::handover::HandoverError;
use crate::kvm::irq::IrqError;
use crate::kvm::vm::VmError;
use crate::memory::LayoutError;
use crate::memory::backing::PinError;
use crate::memory::pieces::TooManyPieces;
use crate::memory::plan::PlanError;
use crate::passthrough::assigned::KeepError;
use crate::passthrough::guarded::GuardError;
use crate::run::RunError;
use crate::stages::{BindStageError, InspectError};

/// Why a guest could not be run, or did not end well.
#[derive(Debug, thiserror::Error, EnumDiscriminants)]
#[strum_discriminants(name(ErrorKind), derive(EnumIter), doc = "The kinds of [`Error`].")]
pub enum Error {
    /// What was asked for does not fit together.
    #[error(transparent)]
    Config(#[from] ValidateError),
    /// The guest is refused before any device is touched.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// A device is not bound.
    #[error(transparent)]
    Bind(#[from] BindStageError),
    /// Memory is kept for a device, or would not be.
    #[error(transparent)]
    Keep(#[from] KeepError),
    /// `/dev/iommu`, a VFIO device, sysfs, memory to pin.
    #[error(transparent)]
    Backend(#[from] Backend),
    /// Guest memory cannot be allocated.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// Guest memory is not where it should be.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The kernel cannot be booted.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// What the kernel begins with cannot be made.
    #[error(transparent)]
    Arch(#[from] ArchError),
    /// The guest's bus.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// A controller is not guarded.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// Devices and memory of another process.
    #[error(transparent)]
    Handover(#[from] HandoverError),
    /// KVM.
    #[error(transparent)]
    Vm(#[from] VmError),
    /// KVM's interrupts.
    #[error(transparent)]
    Irq(#[from] IrqError),
    /// The guest did not end well.
    #[error(transparent)]
    Run(#[from] RunError),
    /// This process: threads, event loop, terminal.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A file that the user named.
    #[error(transparent)]
    File(#[from] FileError),
    /// This process cannot be confined.
    #[error(transparent)]
    Confine(#[from] ConfineError),
}

/// Lets `?` take what belongs to an owner's error without naming that.
macro_rules! through_owner {
    ($($owner:ty: $($source:ty),+;)+) => {
        $($(impl From<$source> for Error {
            fn from(error: $source) -> Self {
                <$owner>::from(error).into()
            }
        })+)+
    };
}
through_owner! {
    BindStageError: BindError;
    KeepError: KeeperError;
    LayoutError: PlanError, TableError, TooManyPieces;
    ArchError: EntryError;
    BusError: NoEcamError, ProfileError, WindowError;
}

impl Error {
    /// The error of its owner, which explains it.
    fn owned(&self) -> &dyn Explain {
        match self {
            Self::Config(error) => error,
            Self::Inspect(error) => error,
            Self::Bind(error) => error,
            Self::Keep(error) => error,
            Self::Backend(error) => error,
            Self::Pin(error) => error,
            Self::Layout(error) => error,
            Self::Boot(error) => error,
            Self::Arch(error) => error,
            Self::Bus(error) => error,
            Self::Guard(error) => error,
            Self::Handover(error) => error,
            Self::Vm(error) => error,
            Self::Irq(error) => error,
            Self::Run(error) => error,
            Self::Process(error) => error,
            Self::File(error) => error,
            Self::Confine(error) => error,
        }
    }

    /// All names that [`id`](Self::id) can give.
    pub fn ids() -> impl Iterator<Item = &'static str> {
        ErrorKind::iter().flat_map(|kind| match kind {
            ErrorKind::Config => ValidateError::ids(),
            ErrorKind::Inspect => InspectError::ids(),
            ErrorKind::Bind => BindStageError::ids(),
            ErrorKind::Keep => KeepError::ids(),
            ErrorKind::Backend => Backend::ids(),
            ErrorKind::Pin => PinError::ids(),
            ErrorKind::Layout => LayoutError::ids(),
            ErrorKind::Boot => BootError::ids(),
            ErrorKind::Arch => ArchError::ids(),
            ErrorKind::Bus => BusError::ids(),
            ErrorKind::Guard => GuardError::ids(),
            ErrorKind::Handover => HandoverError::ids(),
            ErrorKind::Vm => VmError::ids(),
            ErrorKind::Irq => IrqError::ids(),
            ErrorKind::Run => RunError::ids(),
            ErrorKind::Process => ProcessError::ids(),
            ErrorKind::File => FileError::ids(),
            ErrorKind::Confine => ConfineError::ids(),
        })
    }

    /// The name of what went wrong, which stays from version to version.
    #[must_use]
    pub fn id(&self) -> &'static str {
        self.owned().id()
    }

    /// The exit code of a process that ends with this error.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        self.owned().exit_code()
    }

    /// What the user can do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        self.hint_under(Limits::read())
    }

    /// The same where these limits apply.
    fn hint_under(&self, limits: Limits) -> Option<String> {
        let own = self.owned().hint(limits);
        own.or_else(|| limits.explain(errno(self)?))
    }

    /// The check that looks for what is missing here, if there is one.
    #[must_use]
    pub fn check(&self) -> Option<Id> {
        self.check_under(Limits::read())
    }

    /// The same where these limits apply.
    fn check_under(&self, limits: Limits) -> Option<Id> {
        match errno(self) {
            Some(libc::EPERM | libc::ENOSYS) if limits.has_filter() => Some(Id::Seccomp),
            Some(libc::EMFILE) => Some(Id::OpenFiles),
            _ => self.owned().check(limits),
        }
    }

    /// Whether guest memory stays pinned, which outranks all other errors of a run.
    #[must_use]
    pub fn keeps_memory(&self) -> bool {
        matches!(self, Self::Keep(KeepError::MemoryKept { .. }))
    }

    /// The error and what is behind it, on one line.
    #[must_use]
    pub fn chain(&self) -> String {
        chain(self)
    }
}

#[cfg(test)]
mod tests;
