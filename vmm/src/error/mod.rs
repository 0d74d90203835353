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

use std::path::PathBuf;

use address::{Bdf, Gpa, Hpa};
use devices::pci::RootError;
use devices::vfio_pci::SetupError;
use host_check::{AvailableMemory, BindError};
use iommufd_backend::Error as Backend;
use iommufd_backend::hugepages::HugepageSize;
use iommufd_backend::software::SoftwareError;
use keeper::KeeperError;
use strum::{EnumDiscriminants, EnumIter, IntoEnumIterator, IntoStaticStr};

use crate::arch::AcpiError;
use crate::arch::EntryError;
use crate::arch::NoRoomError;
use crate::arch::ParamsError;
use crate::boot::kernel::KernelError;
use crate::boot::place::PlaceError;
use crate::bus::address_map::NoEcamError;
use crate::kvm::irq::IrqError;
use crate::kvm::vm::VmError;
use crate::memory::guest::GuestRamError;
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
    /// Physical addresses that no table can hold.
    #[error(transparent)]
    Physical(#[from] devices::guest_table::TableError),
    /// A page of guest memory is not where devices were told that it is.
    #[error(
        "The page of guest memory at {gpa} was at {planned} and {}",
        found.map_or("is gone".to_owned(), |hpa| format!("is now at {hpa}"))
    )]
    Moved {
        /// Where the guest has it.
        gpa: Gpa,
        /// Where it was when it was pinned.
        planned: Hpa,
        /// Where it is, if there is a page at all.
        found: Option<Hpa>,
    },
    /// The DMA window.
    #[error(transparent)]
    Window(#[from] crate::bus::window::WindowError),
    /// A file that the user named.
    #[error(transparent)]
    File(#[from] FileError),
    /// The kernel.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The command line for the kernel.
    #[error(transparent)]
    Params(#[from] ParamsError),
    /// KVM.
    #[error(transparent)]
    Vm(#[from] VmError),
    /// KVM's interrupts.
    #[error(transparent)]
    Irq(#[from] IrqError),
    /// vCPU state.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// Boot page tables.
    #[error(transparent)]
    PageTables(#[from] NoRoomError),
    /// ACPI tables.
    #[error(transparent)]
    Acpi(#[from] AcpiError),
    /// The host's address map.
    #[error(transparent)]
    NoEcam(#[from] NoEcamError),
    /// `/dev/iommu`, a VFIO device, sysfs, memory to pin.
    #[error(transparent)]
    Backend(#[from] Backend),
    /// Synthetic physical memory.
    #[error(transparent)]
    Software(#[from] SoftwareError),
    /// Too few hugepages in the pool; or enough, and the kernel gives this process no more of them.
    #[error(
        "Guest memory needs {need} hugepages of {size}, of which {}",
        if *need > got.saturating_add(*free) {
            format!(
                "{} are available ({total} in the pool, the others in use or reserved)",
                got.saturating_add(*free)
            )
        } else {
            format!(
                "this process got {got}: the pool has {free} more that are free ({total} in all), but the \
                 kernel refuses them to this process"
            )
        }
    )]
    TooFewHugepages {
        /// Size of the pages.
        size: HugepageSize,
        /// Pages that the guest needs in all.
        need: u64,
        /// Those of them that it got before the kernel refused more.
        got: u64,
        /// Pages of the pool that are free and not reserved.
        free: u64,
        /// Pages in the pool.
        total: u64,
    },
    /// A limit on open files that leaves too few for a run.
    #[error("A run needs up to {need} open files, and the limit is {limit}")]
    TooFewFiles {
        /// The limit.
        limit: u64,
        /// Files needed.
        need: u64,
    },
    /// Less ordinary memory than the guest is to have.
    #[error("Guest memory needs {} MiB of ordinary memory, and {available}", bytes >> 20)]
    TooLittleMemory {
        /// Bytes needed.
        bytes: u64,
        /// What there is at most.
        available: AvailableMemory,
    },
    /// Identity memory in more pieces than are safe.
    #[error(transparent)]
    TooManyPieces(#[from] TooManyPieces),
    /// The layout of guest memory.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Places for kernel and initramfs.
    #[error("Cannot load kernel {}", kernel.display())]
    Place {
        /// The kernel.
        kernel: PathBuf,
        /// Why it has no place, or its initramfs.
        source: PlaceError,
    },
    /// Guest memory in this process.
    #[error(transparent)]
    GuestRam(#[from] GuestRamError),
    /// Writing into guest memory.
    #[error("Cannot load {what}")]
    Load {
        /// What was to be loaded.
        what: &'static str,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
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
    KeepError: KeeperError;
}

impl Error {
    /// The error of its owner, which explains it.
    fn owned(&self) -> Option<&dyn Explain> {
        Some(match self {
            Self::Inspect(error) => error,
            Self::Bind(error) => error,
            Self::Keep(error) => error,
            Self::Backend(error) | Self::GuestRam(GuestRamError::Map(error)) => error,
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
