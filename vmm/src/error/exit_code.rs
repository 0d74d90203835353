//! Exit codes: whose turn it is to do something about an error.

use std::io;

use host::BindError;
use iommufd_backend::Error as Backend;
use iommufd_backend::GetPaError;

use super::Error;
use crate::memory::guest::GuestRamError;

/// The command line is wrong, or a file named on it.
const USAGE: u8 = 1;
/// This machine cannot run it.
const HOST: u8 = 2;
/// A device cannot be used.
const DEVICE: u8 = 3;
/// Guest memory is not available or does not suit.
const MEMORY: u8 = 4;
/// The guest crashed.
const GUEST: u8 = 5;
/// The guest says that something went wrong in it.
const GUEST_STATUS: u8 = 6;
/// The guest asked for a restart: maybe after a panic.
const GUEST_RESET: u8 = 7;

impl Error {
    /// The exit code of a process that ends with this error.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_)
            | Self::DeviceTwice { .. }
            | Self::TooManyDevices { .. }
            | Self::NoiommuNotAccepted { .. }
            | Self::DeviceWithSoftware { .. }
            | Self::NoIdentity
            | Self::MixedModes { .. }
            | Self::Profile(_)
            | Self::File { .. }
            | Self::Kernel(_)
            | Self::Params(_)
            | Self::Load { .. } => USAGE,
            Self::Vm(_)
            | Self::Irq(_)
            | Self::Entry(_)
            | Self::PageTables(_)
            | Self::Acpi(_)
            | Self::NoEcam(_)
            | Self::Root(_)
            | Self::MemoryEncrypted { .. }
            | Self::Panicked
            | Self::NoWorker
            | Self::TooFewFiles { .. }
            | Self::Keeper(_)
            | Self::Process { .. } => HOST,
            Self::BehindIommu { .. }
            | Self::BusAddresses { .. }
            | Self::NotBehindIommu { .. }
            | Self::NoReset { .. }
            | Self::MemoryKept { .. }
            | Self::Function(_)
            | Self::Engine(_)
            | Self::NoProfile { .. }
            | Self::Mediate(_)
            | Self::Moved { .. }
            | Self::AccessFailed { .. }
            | Self::DeviceFailed { .. } => DEVICE,
            Self::TooFewHugepages { .. }
            | Self::TooLittleMemory { .. }
            | Self::Software(_)
            | Self::Window(_)
            | Self::Physical(_)
            | Self::TooManyPieces(_)
            | Self::Plan(_)
            | Self::Place { .. } => MEMORY,
            Self::Backend(error) | Self::GuestRam(GuestRamError::Map(error)) => backend_code(error),
            Self::Bind(BindError::BindFacts(error)) => backend_code(error),
            Self::Bind(
                BindError::BindUnsafeModeOff { .. }
                | BindError::BindNoNoiommu { .. }
                | BindError::BindNoVfioPci { .. }
                | BindError::BindNoCdev { .. },
            ) => HOST,
            Self::Bind(BindError::BindWrite { source, .. })
                if source.kind() == io::ErrorKind::ReadOnlyFilesystem =>
            {
                HOST
            }
            Self::Bind(_) => DEVICE,
            Self::GuestRam(_) => MEMORY,
            Self::GuestCrash(_) => GUEST,
            Self::GuestStatus(_) => GUEST_STATUS,
            Self::GuestReset => GUEST_RESET,
        }
    }
}

/// Whether this machine, or the container that it is, denies the call.
fn is_denied(source: &io::Error) -> bool {
    matches!(source.raw_os_error(), Some(libc::EPERM | libc::ENOSYS))
}

fn backend_code(error: &Backend) -> u8 {
    match error {
        Backend::OpenCdev { source, .. }
        | Backend::Pin { source, .. }
        | Backend::Map { source, .. }
        | Backend::Translate {
            source: GetPaError::Other(source),
            ..
        } if is_denied(source) => HOST,
        // Where an IOMMU cannot tell devices apart, binding is refused with EPERM, too.
        Backend::Device { source, .. } if source.raw_os_error() == Some(libc::ENOSYS) => HOST,
        Backend::OpenIommufd { .. }
        | Backend::Iommufd { .. }
        | Backend::NoCdev { .. }
        | Backend::NotBound {
            unsafe_mode: None, ..
        }
        | Backend::Read { .. }
        | Backend::Parse { .. }
        | Backend::AddressesHidden { .. }
        | Backend::Translate {
            source: GetPaError::NoSuchCommand | GetPaError::NotNoiommu | GetPaError::NotPermitted,
            ..
        } => HOST,
        Backend::NoDevice { .. }
        | Backend::NotBound { .. }
        | Backend::OpenCdev { .. }
        | Backend::Device { .. }
        | Backend::DeviceUnusable { .. }
        | Backend::NotQuiet { .. } => DEVICE,
        Backend::Pin { .. }
        | Backend::Translate { .. }
        | Backend::Misaligned { .. }
        | Backend::Map { .. }
        | Backend::Extent(_) => MEMORY,
    }
}
