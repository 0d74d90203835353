// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The names of checks.

use serde::Serialize;
use strum::{EnumIter, IntoStaticStr};

/// A check. Its name, in lower case with hyphens, stays the same from version to version.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EnumIter, IntoStaticStr, Serialize,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Id {
    /// The kernel's version.
    KernelVersion,
    /// The kernel's configuration.
    KernelConfig,
    /// `/sys`.
    Sysfs,
    /// Filters of system calls.
    Seccomp,
    /// Virtualisation by the CPU.
    CpuVirtualisation,
    /// `/dev/kvm`.
    Kvm,
    /// `/dev/iommu`.
    Iommufd,
    /// IOMMUs of the machine.
    Iommu,
    /// The kernel's switch for devices that no IOMMU stands before.
    UnsafeMode,
    /// Memory encryption.
    MemoryEncryption,
    /// The capability that noiommu mode needs.
    CapabilityRawio,
    /// Whether the caller is shown where its pages are.
    PageAddresses,
    /// The host's map of physical addresses.
    AddressMap,
    /// The place for the guest's memory-mapped PCI config space.
    ConfigSpace,
    /// The limit on locked memory.
    Memlock,
    /// The limit on open files.
    OpenFiles,
    /// Hugepages.
    Hugepages,
    /// Ordinary memory.
    AvailableMemory,
    /// What moves or takes memory that is to be pinned.
    PinnedMemory,
    /// Memory that failed.
    MemoryErrors,
    /// Guest memory that was not given back.
    KeptMemory,
    /// The kernel's taint.
    Taint,
    /// The kernel's lockdown.
    Lockdown,
    /// A device: whether it is there.
    DeviceExists,
    /// A device: what kind of function it is.
    DeviceType,
    /// A device: whether the host uses it.
    DeviceInUse,
    /// A device: its driver.
    DeviceDriver,
    /// A device: its character device.
    DeviceCdev,
    /// A device: how it is reset.
    DeviceReset,
    /// A device: its BARs.
    DeviceBars,
    /// A device: its interrupts.
    DeviceInterrupts,
    /// A device: which memory it can address.
    DeviceDmaWidth,
    /// A device: the functions that share something with it.
    DeviceSiblings,
    /// A device: how its DMA reaches guest memory.
    DeviceDmaMode,
}

impl Id {
    /// The name.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// All checks in the order in which they are made.
    pub fn all() -> impl Iterator<Item = Self> {
        <Self as strum::IntoEnumIterator>::iter()
    }

    /// What must hold, in a sentence.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::KernelVersion => {
                "Linux 7.3 or later, the first that tells the physical addresses of pinned memory \
                 (`IOMMU_IOAS_NOIOMMU_GET_PA`); 6.13 (`IOMMU_IOAS_MAP_FILE`) where an IOMMU translates"
            }
            Self::KernelConfig => {
                "The kernel was built with everything that is needed, by `/proc/config.gz` or \
                 `/boot/config-VERSION`"
            }
            Self::Sysfs => "`/sys` is mounted, lists PCI devices and can be written to",
            Self::Seccomp => {
                "No seccomp filter, as containers have one, looks at the caller's system calls"
            }
            Self::CpuVirtualisation => "The CPU offers virtualisation (`svm` or `vmx`)",
            Self::Kvm => {
                "`/dev/kvm` is there and opens, and KVM has all capabilities that a guest needs"
            }
            Self::Iommufd => "`/dev/iommu` is there and opens",
            Self::Iommu => {
                "The machine has no IOMMU, and noiommu mode is what is wanted; or the devices \
                 stand behind one, which remaps interrupts, too"
            }
            Self::UnsafeMode => {
                "The kernel gives away devices that no IOMMU stands before \
                 (`enable_unsafe_noiommu_mode`); it looks when a device is bound, not later"
            }
            Self::MemoryEncryption => {
                "Memory is not encrypted by address (AMD SME, SEV; Intel TDX guests): a device \
                 that is given a plain physical address would read and write ciphertext"
            }
            Self::CapabilityRawio => {
                "The caller has CAP_SYS_RAWIO in the first user namespace, which noiommu devices \
                 and physical addresses need"
            }
            Self::PageAddresses => {
                "`/proc/self/pagemap` shows the caller where pages are (CAP_SYS_ADMIN): a run then \
                 checks, at its start and end, that guest memory is where devices find it"
            }
            Self::AddressMap => "`/proc/iomem` shows its addresses to the caller",
            Self::ConfigSpace => {
                "There is a place for the guest's memory-mapped PCI config space: where the host has \
                 its own below 4 GiB, or a free MiB"
            }
            Self::Memlock => {
                "The limit on locked memory covers the guest's memory, once, or CAP_IPC_LOCK \
                 lifts it"
            }
            Self::OpenFiles => {
                "The hard limit on open files suffices for a run; each MSI-X vector that a guest \
                 uses is one more"
            }
            Self::Hugepages => {
                "There are hugepages for the guest's memory, where a device has it at its physical \
                 addresses (`dma=identity`)"
            }
            Self::AvailableMemory => {
                "The machine and the caller's control group have the guest's memory available, where \
                 it is not made of hugepages"
            }
            Self::PinnedMemory => {
                "No balloon takes memory before it is pinned, and no hugepage stands where the \
                 kernel must move it first"
            }
            Self::MemoryErrors => "No memory has failed so far",
            Self::KeptMemory => {
                "No guest memory is kept pinned for a device that could not be made quiet (root \
                 sees all that is)"
            }
            Self::Taint => {
                "The kernel has not reported trouble; bit 6 (U) only says that a device was \
                 bound in noiommu mode"
            }
            Self::Lockdown => "The kernel is not locked down, which a device would undo",
            Self::DeviceExists => "There is such a PCI function",
            Self::DeviceType => "It is no bridge",
            Self::DeviceInUse => {
                "The host does not use it: no mounted file system, swap, network that is \
                 reached by it, device or pool made of it, program that has a block device or its \
                 VFIO node open, no virtual functions that are on"
            }
            Self::DeviceDriver => "A VFIO driver holds it",
            Self::DeviceCdev => "It has a VFIO character device",
            Self::DeviceReset => "It can be reset without its neighbours",
            Self::DeviceBars => {
                "All its BARs have a place, and on x86 without an IOMMU the same address on the \
                 device's bus as for the CPU"
            }
            Self::DeviceInterrupts => {
                "It has interrupts, and the host serves MSI and MSI-X if it has them"
            }
            Self::DeviceDmaWidth => {
                "It can address all memory of the machine, by the address bits that its last driver on the host asked for (`dma_mask_bits`; 32 if it never had one)"
            }
            Self::DeviceSiblings => {
                "No function that another driver holds shares its reset, its requester ID or its \
                 IOMMU group"
            }
            Self::DeviceDmaMode => {
                "It can have the DMA mode that is wanted, beside the other devices"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_plain() {
        let names: BTreeSet<_> = Id::all().map(Id::name).collect();
        assert_eq!(names.len(), Id::all().count());
        for id in Id::all() {
            let name = id.name();
            let plain = |byte: u8| byte.is_ascii_lowercase() || byte == b'-';
            assert!(name.bytes().all(plain), "{name}");
            assert_eq!(serde_json::to_value(id).unwrap(), name);
        }
    }

    #[test]
    fn the_documentation_lists_every_check_in_order() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../docs/reference/checks.md"
        );
        let text = std::fs::read_to_string(path).unwrap();
        let rows: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("| `"))
            .collect();
        let row = |id: Id| format!("| `{}` | {} |", id.name(), id.meaning());
        assert_eq!(rows, Id::all().map(row).collect::<Vec<_>>());
    }
}
