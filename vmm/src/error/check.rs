//! Which line of `pinvisor check` says more about an error.

use std::io;
use std::path::Path;

use host::{BindError, Id};
use iommufd_backend::GetPaError;

use super::cause::{self, Limits};
use super::{Backend, Error};
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
            | Self::Bind(BindError::BindFacts(error)) => return of_backend(error, limits),
            Self::Bind(error) => return of_binding(error),
            _ => return None,
        })
    }
}

fn of_backend(error: &Backend, limits: Limits) -> Option<Id> {
    Some(match error {
        Backend::OpenIommufd { .. } => Id::Iommufd,
        Backend::NoDevice { .. } => Id::DeviceExists,
        Backend::NotBound { .. } => Id::DeviceDriver,
        Backend::NoCdev { .. } => Id::DeviceCdev,
        Backend::OpenCdev { source, .. } => match source.raw_os_error() {
            Some(libc::EPERM) => Id::CapabilityRawio,
            _ => Id::DeviceCdev,
        },
        Backend::Pin { source, .. } if source.raw_os_error() == Some(libc::ENOMEM) => {
            match limits.limit_locked_memory() {
                true => Id::Memlock,
                false => return None,
            }
        }
        Backend::Translate { source, .. } => match source {
            GetPaError::NotPermitted => Id::CapabilityRawio,
            GetPaError::NoSuchCommand => Id::KernelVersion,
            GetPaError::NotNoiommu => Id::KernelConfig,
            _ => return None,
        },
        Backend::AddressesHidden { .. } => Id::AddressMap,
        Backend::Read { path, .. } | Backend::Parse { path, .. } => return of_file(path),
        _ => return None,
    })
}

fn of_file(path: &Path) -> Option<Id> {
    let ids = [
        ("/proc/iomem", Id::AddressMap),
        ("/sys/kernel/mm/hugepages", Id::Hugepages),
        ("/sys", Id::Sysfs),
    ];
    let found = ids.into_iter().find(|(start, _)| path.starts_with(start));
    found.map(|(_, id)| id)
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

#[cfg(test)]
mod tests {
    use super::super::cause::tests::NONE;
    use super::*;

    fn errno(number: i32) -> io::Error {
        io::Error::from_raw_os_error(number)
    }

    fn opened(number: i32) -> Error {
        Error::Backend(Backend::OpenCdev {
            bdf: "01:00.0".parse().unwrap(),
            path: "/dev/vfio/devices/noiommu-vfio0".into(),
            source: errno(number),
        })
    }

    #[test]
    fn what_is_missing_has_the_name_of_its_check() {
        let id = |error: Error| error.check_under(NONE).map(Id::name);
        assert_eq!(id(opened(libc::EPERM)), Some("capability-rawio"));
        assert_eq!(id(opened(libc::ENOENT)), Some("device-cdev"));
        let read = |path: &str| {
            id(Error::Backend(Backend::Read {
                path: path.into(),
                source: errno(libc::ENOENT),
            }))
        };
        assert_eq!(read("/sys/bus/pci/devices"), Some("sysfs"));
        assert_eq!(
            read("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages"),
            Some("hugepages")
        );
        assert_eq!(read("/proc/iomem"), Some("address-map"));
        assert_eq!(read("/proc/self/pagemap"), None);
        assert_eq!(id(opened(libc::EMFILE)), Some("open-files"));
        let kvm = VmError::Open(kvm_ioctls::Error::new(libc::ENOENT));
        assert_eq!(id(Error::Vm(kvm)), Some("kvm"));
        assert_eq!(id(Error::Panicked), None);
    }

    #[test]
    fn a_filter_is_named_before_what_it_hides() {
        let filtered = NONE.with_filter();
        for number in [libc::EPERM, libc::ENOSYS] {
            assert_eq!(opened(number).check_under(filtered), Some(Id::Seccomp));
        }
        let absent = opened(libc::ENOENT).check_under(filtered);
        assert_eq!(absent, Some(Id::DeviceCdev));
    }

    #[test]
    fn what_this_machine_denies_is_not_the_device_or_its_memory() {
        let denied = |number| {
            let pin = Error::Backend(Backend::Pin {
                length: 4096,
                source: errno(number),
            });
            let map = Error::Backend(Backend::Map {
                length: 4096,
                what: "hugepages",
                source: errno(number),
            });
            [opened(number), pin, map].map(|error| error.exit_code())
        };
        assert_eq!(denied(libc::EPERM), [2, 2, 2]);
        assert_eq!(denied(libc::ENOSYS), [2, 2, 2]);
        assert_eq!(denied(libc::EINVAL), [3, 4, 4]);
    }
}
