//! Which line of `pinvisor check` says more about an error.

use std::io;

use host_check::{BindError, Id};

use super::cause::{self, Limits};
use super::{Error, Explain};
use crate::kvm::vm::VmError;
use crate::memory::guest::GuestRamError;

impl Error {
    /// The check that looks for what is missing here, if there is one.
    #[must_use]
    pub fn check(&self) -> Option<Id> {
        self.check_under(Limits::read())
    }

    /// The same where these limits apply.
    pub(super) fn check_under(&self, limits: Limits) -> Option<Id> {
        let errno = cause::errno(self);
        match errno {
            Some(libc::EPERM | libc::ENOSYS) if limits.has_filter() => return Some(Id::Seccomp),
            Some(libc::EMFILE) => return Some(Id::OpenFiles),
            _ => {}
        }
        Some(match self {
            Self::Vm(VmError::Open(_) | VmError::Lacks(_)) => Id::Kvm,
            Self::NoEcam(_) => Id::ConfigSpace,
            Self::MemoryEncrypted { .. } => Id::MemoryEncryption,
            Self::TooFewHugepages { .. } => Id::Hugepages,
            Self::TooLittleMemory { .. } => Id::AvailableMemory,
            Self::TooFewFiles { .. } => Id::OpenFiles,
            Self::BusAddresses { .. } => Id::DeviceBars,
            Self::NoReset { .. } => Id::DeviceReset,
            Self::BehindIommu { .. }
            | Self::NotBehindIommu { .. }
            | Self::MixedModes { .. }
            | Self::NoProfile { .. } => Id::DeviceDmaMode,
            Self::MemoryKept { .. } => Id::KeptMemory,
            Self::Backend(error)
            | Self::GuestRam(GuestRamError::Map(error))
            | Self::Bind(BindError::BindFacts(error)) => return error.check(limits),
            Self::Bind(error) => return of_binding(error),
            _ => return None,
        })
    }
}

fn of_binding(error: &BindError) -> Option<Id> {
    Some(match error {
        BindError::BindInUse { .. } | BindError::UnbindOpen { .. } => Id::DeviceInUse,
        BindError::BindUnsafeModeOff { .. } | BindError::BindNoNoiommu { .. } => Id::UnsafeMode,
        BindError::BindNoVfioPci { .. } => Id::KernelConfig,
        BindError::BindNoCdev { .. } => Id::DeviceCdev,
        BindError::BindWrite { source, .. } => match source.kind() {
            io::ErrorKind::ReadOnlyFilesystem => Id::Sysfs,
            _ => return None,
        },
        BindError::BindBridge { .. } | BindError::BindSilent { .. } => Id::DeviceType,
        _ => return None,
    })
}
