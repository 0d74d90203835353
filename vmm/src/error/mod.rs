//! What can fail, and with which exit code.

mod backend;
mod cause;
mod check;
mod codes;
mod exit_code;
mod explain;
mod file;
mod hint;
mod process;

use address::{Bdf, Gpa};
use devices::guest_table::TableError;
use devices::pci::RootError;
use devices::vfio_pci::SetupError;
use host_check::BindError;
use iommufd_backend::Error as Backend;
use keeper::KeeperError;
use strum::{EnumDiscriminants, EnumIter, IntoEnumIterator, IntoStaticStr};

use crate::arch::{ArchError, EntryError};
use crate::boot::BootError;
use crate::bus::address_map::NoEcamError;
use crate::kvm::irq::IrqError;
use crate::kvm::vm::VmError;
use crate::memory::LayoutError;
use crate::memory::backing::PinError;
use crate::memory::pieces::TooManyPieces;
use crate::memory::plan::PlanError;
use crate::passthrough::assigned::KeepError;
use crate::stages::{BindStageError, InspectError};

pub use cause::Limits;
pub use exit_code::ExitCode;
pub use explain::Explain;
pub use file::FileError;
pub use process::{ProcessError, process};

/// Why a guest could not be run, or did not end well.
#[derive(Debug, thiserror::Error, EnumDiscriminants)]
#[strum_discriminants(
    name(ErrorKind),
    derive(EnumIter, IntoStaticStr),
    strum(serialize_all = "kebab-case"),
    doc = "The kinds of [`Error`]; their names stay."
)]
pub enum Error {
    /// It is refused before any device is touched.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// A device is not bound.
    #[error(transparent)]
    Bind(#[from] BindStageError),
    /// Memory is kept, or would not be.
    #[error(transparent)]
    Keep(#[from] KeepError),
    /// Guest memory is not to be had.
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
    /// A profile is not sound.
    #[error(transparent)]
    Profile(#[from] devices::mediate::ProfileError),
    /// None of the shipped profiles is for the device.
    #[error("PCI device {bdf}: no profile is known for {vendor:04x}:{device:04x}")]
    NoProfile {
        /// The device.
        bdf: Bdf,
        /// Its vendor ID.
        vendor: u16,
        /// Its device ID.
        device: u16,
    },
    /// A device cannot be mediated.
    #[error(transparent)]
    Mediate(#[from] devices::mediate::SetupError),
    /// The DMA window.
    #[error(transparent)]
    Window(#[from] crate::bus::window::WindowError),
    /// A file that the user named.
    #[error(transparent)]
    File(#[from] FileError),
    /// KVM.
    #[error(transparent)]
    Vm(#[from] VmError),
    /// KVM's interrupts.
    #[error(transparent)]
    Irq(#[from] IrqError),
    /// The host's address map.
    #[error(transparent)]
    NoEcam(#[from] NoEcamError),
    /// `/dev/iommu`, a VFIO device, sysfs, memory to pin.
    #[error(transparent)]
    Backend(#[from] Backend),
    /// A limit on open files that leaves too few for a run.
    #[error("A run needs up to {need} open files, and the limit is {limit}")]
    TooFewFiles {
        /// The limit.
        limit: u64,
        /// Files needed.
        need: u64,
    },
    /// A function on the guest's bus.
    #[error(transparent)]
    Function(#[from] SetupError),
    /// The DMA engine in software.
    #[error(transparent)]
    Engine(#[from] devices::edu::SetupError),
    /// The guest's bus.
    #[error(transparent)]
    Root(#[from] RootError),
    /// This process: threads, event loop, terminal.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A thread of the monitor panicked; it has printed why.
    #[error("A part of Pinvisor failed, which is a bug of its own")]
    Panicked,
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
    ArchError: EntryError;
    KeepError: KeeperError;
    LayoutError: PlanError, TableError, TooManyPieces;
}

impl Error {
    /// The error of its owner, which explains it.
    fn owned(&self) -> Option<&dyn Explain> {
        Some(match self {
            Self::Inspect(error) => error,
            Self::Bind(error) => error,
            Self::Keep(error) => error,
            Self::Backend(error) => error,
            Self::Pin(error) => error,
            Self::Layout(error) => error,
            Self::Boot(error) => error,
            Self::Arch(error) => error,
            Self::File(error) => error,
            Self::Process(error) => error,
            _ => return None,
        })
    }

    /// The name of what went wrong, which stays from version to version.
    #[must_use]
    pub fn id(&self) -> &'static str {
        match self.owned() {
            Some(error) => error.id(),
            None => ErrorKind::from(self).into(),
        }
    }

    /// All names that [`id`](Self::id) can give.
    pub fn ids() -> impl Iterator<Item = &'static str> {
        ErrorKind::iter().flat_map(|kind| match kind {
            ErrorKind::Inspect => InspectError::ids(),
            ErrorKind::Bind => BindStageError::ids(),
            ErrorKind::Keep => KeepError::ids(),
            ErrorKind::Backend => Backend::ids(),
            ErrorKind::Pin => PinError::ids(),
            ErrorKind::Layout => LayoutError::ids(),
            ErrorKind::Boot => BootError::ids(),
            ErrorKind::Arch => ArchError::ids(),
            ErrorKind::File => FileError::ids(),
            ErrorKind::Process => ProcessError::ids(),
            own => vec![own.into()],
        })
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

#[cfg(test)]
mod tests;
