//! Exit codes: whose turn it is to do something about an error.

use std::io;

use host_check::BindError;

use super::{Error, ExitCode, Explain};
use crate::memory::guest::GuestRamError;

impl Error {
    /// The exit code of a process that ends with this error.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::File(error) => error.exit_code(),
            Self::Process(error) => error.exit_code(),
            Self::DeviceTwice { .. }
            | Self::TooManyDevices { .. }
            | Self::NoiommuNotAccepted { .. }
            | Self::DeviceWithSoftware { .. }
            | Self::NoIdentity
            | Self::MixedModes { .. }
            | Self::Profile(_)
            | Self::Kernel(_)
            | Self::Params(_)
            | Self::Load { .. } => ExitCode::Usage,
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
            | Self::Keeper(_) => ExitCode::Host,
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
            | Self::DeviceFailed { .. } => ExitCode::Device,
            Self::TooFewHugepages { .. }
            | Self::TooLittleMemory { .. }
            | Self::Software(_)
            | Self::Window(_)
            | Self::Physical(_)
            | Self::TooManyPieces(_)
            | Self::Plan(_)
            | Self::Place { .. } => ExitCode::Memory,
            Self::Backend(error) | Self::GuestRam(GuestRamError::Map(error)) => error.exit_code(),
            Self::Bind(BindError::BindFacts(error)) => error.exit_code(),
            Self::Bind(
                BindError::BindUnsafeModeOff { .. }
                | BindError::BindNoNoiommu { .. }
                | BindError::BindNoVfioPci { .. }
                | BindError::BindNoCdev { .. },
            ) => ExitCode::Host,
            Self::Bind(BindError::BindWrite { source, .. })
                if source.kind() == io::ErrorKind::ReadOnlyFilesystem =>
            {
                ExitCode::Host
            }
            Self::Bind(_) => ExitCode::Device,
            Self::GuestRam(_) => ExitCode::Memory,
            Self::GuestCrash(_) => ExitCode::Guest,
            Self::GuestStatus(_) => ExitCode::GuestStatus,
            Self::GuestReset => ExitCode::GuestReset,
        }
    }
}
