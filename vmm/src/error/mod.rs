//! What can fail, and with which exit code.

mod cause;
mod check;
mod exit_code;
mod hint;

use std::io;
use std::path::PathBuf;

use address::{Bdf, Gpa, Hpa};
use devices::pci::RootError;
use devices::vfio_pci::SetupError;
use host::{AvailableMemory, BindError, BindErrorKind, Encryption};
use iommufd_backend::Error as Backend;
use iommufd_backend::ErrorKind as BackendKind;
use iommufd_backend::TranslatedBar;
use iommufd_backend::hugepages::HugepageSize;
use iommufd_backend::software::SoftwareError;
use strum::{EnumDiscriminants, EnumIter, IntoEnumIterator, IntoStaticStr};

use crate::arch::AcpiError;
use crate::arch::EntryError;
use crate::arch::NoRoomError;
use crate::arch::ParamsError;
use crate::boot::kernel::KernelError;
use crate::boot::place::PlaceError;
use crate::bus::address_map::NoEcamError;
use crate::config::ConfigError;
use crate::kvm::irq::IrqError;
use crate::kvm::vm::VmError;
use crate::memory::guest::GuestRamError;
use crate::memory::pieces::TooManyPieces;
use crate::memory::plan::PlanError;

/// Why a guest could not be run, or did not end well.
#[derive(Debug, thiserror::Error, EnumDiscriminants)]
#[strum_discriminants(
    name(ErrorKind),
    derive(EnumIter, IntoStaticStr),
    strum(serialize_all = "kebab-case"),
    doc = "The kinds of [`Error`]; their names stay."
)]
pub enum Error {
    /// A value that no parser refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The same device was named twice.
    #[error("--device names {bdf} twice")]
    DeviceTwice {
        /// The device.
        bdf: Bdf,
    },
    /// More devices than a bus has slots.
    #[error("{count} devices were named, there are slots for {most}")]
    TooManyDevices {
        /// Devices named.
        count: usize,
        /// Slots for them.
        most: usize,
    },
    /// The user has not accepted what passing a device through without an IOMMU means.
    #[error(
        "No IOMMU stands between PCI device {bdf} and memory: its driver can read and \
         write all memory of this machine, so its guest must be trusted like root"
    )]
    NoiommuNotAccepted {
        /// The device.
        bdf: Bdf,
    },
    /// Memory is encrypted by address.
    #[error("{}; PCI device {bdf} cannot be used without an IOMMU", encryption.meaning())]
    MemoryEncrypted {
        /// The device.
        bdf: Bdf,
        /// By what.
        encryption: Encryption,
    },
    /// The addresses on a device's bus are others than the CPU's.
    #[error(
        "PCI device {bdf}: BAR{} is at {:#x} on its bus and at {:#x} for the CPU, so addresses \
         mean something else to the device",
        found.bar, found.bus, found.cpu
    )]
    BusAddresses {
        /// The device.
        bdf: Bdf,
        /// The first BAR that shows it.
        found: TranslatedBar,
    },
    /// A device that was not to be bound or unbound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Identity was asked for where an IOMMU translates.
    #[error("PCI device {bdf} is behind an IOMMU, which does not let physical addresses through")]
    BehindIommu {
        /// The device.
        bdf: Bdf,
    },
    /// A layout was asked to be broken that there is not.
    #[error(
        "No device here needs guest memory at its physical addresses, so that cannot be broken"
    )]
    NoIdentity,
    /// Guest memory cannot be laid out for both of two devices.
    #[error(
        "PCI device {other} needs guest memory at addresses that its guest need not translate, and \
         {translate} (dma=translate) has it anywhere"
    )]
    MixedModes {
        /// The device whose guest translates.
        translate: Bdf,
        /// The other one.
        other: Bdf,
    },
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
    /// An IOMMU was asked for where there is none.
    #[error("No IOMMU stands between PCI device {bdf} and memory")]
    NotBehindIommu {
        /// The device.
        bdf: Bdf,
    },
    /// A device that keeps what its last user left in it.
    #[error(
        "PCI device {bdf} cannot be reset, so its next user inherits what it is doing: it has no \
         reset of its own, and {}",
        bus_reset(others)
    )]
    NoReset {
        /// The device.
        bdf: Bdf,
        /// Functions that a reset of its bus would hit too.
        others: Vec<Bdf>,
    },
    /// There is no evidence that a device has ended its DMA, so guest memory was not given back.
    #[error(
        "PCI device {bdf} could not be made quiet, so guest memory stays pinned: process {process} \
         keeps {status}"
    )]
    MemoryKept {
        /// The first such device.
        bdf: Bdf,
        /// The process that keeps it.
        process: u32,
        /// What it keeps.
        status: keeper::Status,
    },
    /// The process that keeps memory.
    #[error(transparent)]
    Keeper(#[from] keeper::KeeperError),
    /// A file named on the command line.
    #[error("Cannot open {what} {}", path.display())]
    File {
        /// What it is for.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
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
    /// A machine in software has no place for a real device, which knows only real addresses.
    #[error("PCI device {bdf} cannot use synthetic physical memory")]
    DeviceWithSoftware {
        /// The device.
        bdf: Bdf,
    },
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
    /// The device of a synthetic machine.
    #[error("{0}")]
    Engine(Box<dyn std::error::Error + Send + Sync>),
    /// The guest's bus.
    #[error(transparent)]
    Root(#[from] RootError),
    /// This process: threads, event loop, terminal.
    #[error("Cannot {operation}")]
    Process {
        /// What was tried, as a verb phrase.
        operation: &'static str,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
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

impl Error {
    /// The name of what went wrong, which stays from version to version.
    #[must_use]
    pub fn id(&self) -> &'static str {
        match self {
            Self::Backend(error)
            | Self::GuestRam(GuestRamError::Map(error))
            | Self::Bind(BindError::BindFacts(error)) => BackendKind::from(error).into(),
            Self::Bind(error) => BindErrorKind::from(error).into(),
            _ => ErrorKind::from(self).into(),
        }
    }

    /// All names that [`id`](Self::id) can give.
    pub fn ids() -> impl Iterator<Item = &'static str> {
        // These have no name of their own.
        let own = ErrorKind::iter()
            .filter(|kind| !matches!(kind, ErrorKind::Backend | ErrorKind::Bind))
            .map(Into::into);
        let backend = BackendKind::iter().map(Into::into);
        let bind = BindErrorKind::iter()
            .filter(|kind| *kind != BindErrorKind::BindFacts)
            .map(Into::into);
        own.chain(backend).chain(bind)
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

/// What stands in the way of a reset of a device's bus.
fn bus_reset(others: &[Bdf]) -> String {
    match others {
        [] => "neither has its bus".to_owned(),
        _ => format!(
            "a reset of its bus would hit {} too, not passed through to this guest",
            names(others, ", ")
        ),
    }
}

fn names(list: &[Bdf], between: &str) -> String {
    let names: Vec<_> = list.iter().map(Bdf::to_string).collect();
    names.join(between)
}

/// Makes an [`Error::Process`] of the error of `operation`, a verb phrase.
pub fn process(operation: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Process {
        operation,
        source: source.into(),
    }
}

#[cfg(test)]
mod tests;
