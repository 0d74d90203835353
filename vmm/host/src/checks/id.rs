// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The names of checks.

use serde::Serialize;
use strum::{EnumIter, EnumMessage, IntoStaticStr};

/// A check. Its name, in lower case with hyphens, stays the same from version to version; its message is its
/// [`meaning`](Self::meaning).
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    EnumIter,
    EnumMessage,
    IntoStaticStr,
    Serialize,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Id {
    /// The kernel's version.
    #[strum(
        message = "The host runs Linux 7.3 or later, the first that reports the host-physical \
               addresses (HPA) of pinned memory (`IOMMU_IOAS_NOIOMMU_GET_PA`); 5.15 is sufficient for \
               devices that are opened through their groups (`--backend group`), and 6.13 \
               (`IOMMU_IOAS_MAP_FILE`) for devices behind an IOMMU"
    )]
    KernelVersion,
    /// The kernel's configuration.
    #[strum(
        message = "The host kernel has every required option (`/proc/config.gz` or \
               `/boot/config-VERSION`)"
    )]
    KernelConfig,
    /// `/sys`.
    #[strum(message = "`/sys` is mounted, lists PCI devices and is writable")]
    Sysfs,
    /// Filters of system calls.
    #[strum(message = "No seccomp filter, such as a container's, applies to the caller")]
    Seccomp,
    /// Virtualisation by the CPU.
    #[strum(message = "The CPU supports virtualisation (`svm` or `vmx`; on aarch64, EL2)")]
    CpuVirtualisation,
    /// `/dev/kvm`.
    #[strum(
        message = "`/dev/kvm` exists and can be opened, and KVM has all capabilities that a guest \
               needs; on aarch64, a GICv3 with an ITS or a GICv2"
    )]
    Kvm,
    /// The kernel's interface for devices that no IOMMU translates.
    #[strum(
        message = "Which of the host kernel's interfaces a run uses for devices without an IOMMU, and why: character \
               devices and `/dev/iommu` (`cdev`), or groups and io_uring (`group`); for groups, \
               `/dev/vfio/vfio` exists"
    )]
    Backend,
    /// `/dev/iommu`.
    #[strum(
        message = "`/dev/iommu` exists and can be opened, unless devices are opened through their groups"
    )]
    Iommufd,
    /// io_uring.
    #[strum(
        message = "io_uring, which pins memory for devices that are opened through their groups, is not switched off \
               (`kernel.io_uring_disabled`)"
    )]
    IoUring,
    /// IOMMUs of the machine.
    #[strum(
        message = "The host has no IOMMU, and the devices are to be used in noiommu mode; or the \
               host's IOMMU isolates the devices and remaps interrupts"
    )]
    Iommu,
    /// The kernel's switch for devices that no IOMMU isolates.
    #[strum(
        message = "The host kernel's unsafe mode (`enable_unsafe_noiommu_mode`) is on, which it \
               requires when a device without an IOMMU is bound; it checks the mode again only when a device is \
               opened through its group"
    )]
    UnsafeMode,
    /// Memory encryption.
    #[strum(
        message = "Host memory is not encrypted by AMD SME or SEV, and the host is not an Intel \
               TDX guest: a device without an IOMMU would read and write ciphertext"
    )]
    MemoryEncryption,
    /// The capability that noiommu mode needs.
    #[strum(
        message = "The caller has CAP_SYS_RAWIO in the initial user namespace, which the host \
               kernel requires to open devices in noiommu mode and to report the HPA of \
               pinned memory"
    )]
    CapabilityRawio,
    /// Whether the caller is shown where its pages are.
    #[strum(
        message = "`/proc/self/pagemap` shows physical addresses to the caller (CAP_SYS_ADMIN): a \
               run then verifies, at its start and end, that guest memory is at the addresses \
               that devices use. Devices that are opened through their groups require it"
    )]
    PageAddresses,
    /// The host's map of physical addresses.
    #[strum(
        message = "`/proc/iomem` shows addresses to the caller, or root has copied it to \
               `/run/pinvisor/iomem`: Pinvisor reads the addresses of BARs and config space from it"
    )]
    AddressMap,
    /// The place for the guest's memory-mapped PCI config space.
    #[strum(
        message = "The guest's memory-mapped PCI config space has an address: the host's, if that \
               is below 4 GiB, or a free range of 1 MiB"
    )]
    ConfigSpace,
    /// The limit on locked memory.
    #[strum(
        message = "The limit on locked memory (`ulimit -l`) is at least the size of guest memory, \
               whatever the number of devices, and twice that for devices that are opened through \
               their groups; or CAP_IPC_LOCK overrides it"
    )]
    Memlock,
    /// The limit on open files.
    #[strum(
        message = "The hard limit on open files (`ulimit -Hn`) is sufficient for a run; each \
               MSI-X vector that a guest uses needs one more, and a guarded NVMe controller one for each CPU"
    )]
    OpenFiles,
    /// Hugepages.
    #[strum(
        message = "Enough hugepages are free for the guest's memory, if a device needs it \
               identity-mapped (`dma=identity`)"
    )]
    Hugepages,
    /// Ordinary memory.
    #[strum(
        message = "The host and the caller's control group have enough memory available for the \
               guest, if it does not use hugepages"
    )]
    AvailableMemory,
    /// What moves or takes memory that is to be pinned.
    #[strum(
        message = "No balloon driver takes memory from the host, and no hugepage is in movable \
               memory, from where the host kernel must migrate it before it is pinned"
    )]
    PinnedMemory,
    /// Memory that failed.
    #[strum(message = "No host memory has failed since boot")]
    MemoryErrors,
    /// Guest memory that was not released.
    #[strum(
        message = "No guest memory is kept pinned for a device that could not be stopped from \
               doing DMA (complete only for root)"
    )]
    KeptMemory,
    /// The kernel's taint.
    #[strum(
        message = "The host kernel's taint shows no fault. The taint `U` (bit 6) alone is no \
               fault: the host kernel sets it when a device is bound in noiommu mode"
    )]
    Taint,
    /// The kernel's lockdown.
    #[strum(message = "The host kernel is not locked down; a device could bypass lockdown")]
    Lockdown,
    /// A device: whether it is there.
    #[strum(message = "The PCI function exists")]
    DeviceExists,
    /// A device: what kind of function it is.
    #[strum(message = "The device is not a bridge")]
    DeviceType,
    /// A device: whether the host uses it.
    #[strum(
        message = "The host does not use the device: no mounted file system, swap, network route or \
               bridge, and no device or pool built on it; no process has its block device or VFIO \
               node open; none of its virtual functions is enabled"
    )]
    DeviceInUse,
    /// A device: its driver.
    #[strum(message = "The device is bound to a VFIO driver, such as vfio-pci")]
    DeviceDriver,
    /// A device: its character device.
    #[strum(
        message = "The device has a VFIO character device (`/dev/vfio/devices/…`), or a group in noiommu mode \
               (`/dev/vfio/noiommu-…`) if it is opened through that"
    )]
    DeviceCdev,
    /// A device: how it is reset.
    #[strum(message = "The device can be reset without affecting other functions")]
    DeviceReset,
    /// A device: its BARs.
    #[strum(
        message = "All BARs of the device have an address. Without an IOMMU, that address is the \
               same on the device's bus as for the CPU; on aarch64, the device tree has the \
               device's host bridge, with the offset that it adds to addresses"
    )]
    DeviceBars,
    /// A device: its interrupts.
    #[strum(message = "The device has interrupts. If it has MSI or MSI-X, the host supports them")]
    DeviceInterrupts,
    /// A device: which memory it can address.
    #[strum(
        message = "The device can address all host memory, with the number of address bits that \
               its last driver on the host requested (`dma_mask_bits`; 32 if it never had a \
               driver)"
    )]
    DeviceDmaWidth,
    /// A device: the functions that share something with it.
    #[strum(
        message = "No function with another driver shares the device's reset, requester ID or \
               IOMMU group"
    )]
    DeviceSiblings,
    /// A device: how its DMA reaches guest memory.
    #[strum(
        message = "The requested DMA mode, or the one that `dma=auto` selects, is possible for the \
               device, together with the guest's other devices. For an NVMe controller, whether it \
               can be guarded"
    )]
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
        self.get_message().unwrap_or_default()
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
