// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Whether an NVMe controller can be guarded, as far as sysfs tells.

use address::Bdf;
use pci_config::InterruptKind;

use crate::facts::config_space::ConfigSpace;
use crate::facts::device::Identity;
use crate::sys_root::SysRoot;

/// Class code of NVMe I/O controllers (NVMe over PCIe Transport Specification 1.1, section 3.1.1.5).
pub const NVME_CLASS: u32 = 0x01_08_02;

/// Why an NVMe controller cannot be guarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuardObstacle {
    /// Something that only NVMe controllers have was asked for.
    #[error("it is no NVMe controller")]
    NotNvme,
    /// Its queues and interrupts are its physical function's to give and to take.
    #[error("it is a virtual function")]
    VirtualFunction,
    /// MSI-X is the only kind of interrupt that is served.
    #[error("it has no MSI-X")]
    NoMsix,
    /// Nothing could prove that its DMA has ended.
    #[error("it cannot be reset")]
    NoReset,
    /// Commands that the monitor checks are in its cache, and the device reads what was in memory before.
    #[error("its DMA bypasses the host's caches")]
    NotCoherent,
}

impl GuardObstacle {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(self) -> &'static str {
        match self {
            Self::VirtualFunction => {
                "pass the physical function through, with its virtual functions turned off, or use \
                 dma=identity if you trust the guest"
            }
            Self::NotNvme => "omit poll=, which is for NVMe controllers",
            Self::NoReset => {
                "move it to a slot of its own; or use dma=identity,reset=none if you trust the guest"
            }
            Self::NoMsix | Self::NotCoherent => {
                "use dma=identity if you trust the guest; otherwise this device requires an IOMMU"
            }
        }
    }
}

/// Whether a function is an NVMe controller, which the monitor guards where it mediates without a profile.
#[must_use]
pub fn is_nvme(root: &SysRoot, bdf: Bdf) -> bool {
    Identity::of(root, bdf).class == NVME_CLASS
}

/// What keeps an NVMe controller from being guarded, as far as it shows before it is bound: its registers are not
/// read. Capabilities that the caller may not read are taken to be there.
#[must_use]
pub fn guard_obstacle(root: &SysRoot, bdf: Bdf) -> Option<GuardObstacle> {
    if root.exists(&format!("sys/bus/pci/devices/{bdf}/physfn")) {
        return Some(GuardObstacle::VirtualFunction);
    }
    let bytes = root.pci().config_space(bdf).unwrap_or_default();
    let config = ConfigSpace::read(&bytes)?;
    let has_none = config.interrupts[InterruptKind::Msix] == 0;
    (has_none && !config.hides_capabilities).then_some(GuardObstacle::NoMsix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys_root::tests::Fake;

    const DISK: &str = "sys/devices/pci0000:00/0000:00:08.0/0000:01:00.0";

    #[test]
    fn a_controller_is_told_by_its_class() {
        let fake = Fake::new();
        let disk = fake.disk();
        assert!(is_nvme(&fake.root, disk));
        fake.write(&format!("{DISK}/class"), "0x010803\n");
        assert!(!is_nvme(&fake.root, disk));
    }

    #[test]
    fn a_virtual_function_and_one_without_msix_are_refused() {
        let fake = Fake::new();
        let disk = fake.disk();
        let obstacle = || guard_obstacle(&fake.root, disk);
        let config = |list: bool, id: u8| {
            let mut bytes = vec![0; 256];
            if list {
                bytes[0x06] = 0x10;
                bytes[0x34] = 0x40;
                bytes[0x40] = id;
            }
            std::fs::write(fake.dir.path().join(DISK).join("config"), bytes).unwrap();
        };
        config(true, 0x11);
        assert_eq!(obstacle(), None);
        config(true, 0x05);
        assert_eq!(obstacle(), Some(GuardObstacle::NoMsix));
        config(false, 0);
        assert_eq!(obstacle(), Some(GuardObstacle::NoMsix));
        config(true, 0x11);
        fake.link(&format!("{DISK}/physfn"), "sys/devices/pci0000:00");
        assert_eq!(obstacle(), Some(GuardObstacle::VirtualFunction));
    }

    #[test]
    fn what_is_not_shown_is_no_obstacle() {
        let fake = Fake::new();
        let disk = fake.disk();
        let mut header = [0; 64];
        header[0x06] = 0x10;
        header[0x34] = 0x40;
        std::fs::write(fake.dir.path().join(DISK).join("config"), header).unwrap();
        assert_eq!(guard_obstacle(&fake.root, disk), None);
    }
}
