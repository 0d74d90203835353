// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Whether an NVMe controller can be guarded, as far as sysfs tells.

mod driven;

use address::Bdf;
use iommufd_backend::ResetMethod;
use pci_config::InterruptKind;

use crate::arch;
use crate::facts::config_space::ConfigSpace;
use crate::facts::device::Identity;
use crate::facts::host_bridge::host_bridge;
use crate::sys_root::SysRoot;

pub(crate) use driven::Driven;

/// Class code of NVMe I/O controllers (NVMe over PCIe Transport Specification 1.1, section 3.1.1.5).
pub const NVME_CLASS: u32 = 0x01_08_02;

/// Why an NVMe controller cannot be guarded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
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
    /// The other controllers could change what this one was checked for.
    #[error("its subsystem has another controller, {0}")]
    SharedSubsystem(String),
}

impl GuardObstacle {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::VirtualFunction => {
                "pass the physical function through, with its virtual functions turned off, or use \
                 dma=identity if you trust the guest"
            }
            Self::NotNvme => "omit poll=, which is for NVMe controllers",
            Self::NoReset => {
                "move it to a slot of its own; or use dma=identity,reset=none if you trust the guest"
            }
            Self::NoMsix | Self::NotCoherent | Self::SharedSubsystem(_) => {
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

/// What keeps an NVMe controller from being guarded, as far as sysfs shows it: its registers are not read. Of its
/// subsystem only the host's own driver knows, while it has the controller. Capabilities that the caller may not read are
/// taken to be there.
#[must_use]
pub fn guard_obstacle(root: &SysRoot, bdf: Bdf) -> Option<GuardObstacle> {
    if root.exists(&format!("sys/bus/pci/devices/{bdf}/physfn")) {
        return Some(GuardObstacle::VirtualFunction);
    }
    if lacks_msix(root, bdf) {
        return Some(GuardObstacle::NoMsix);
    }
    let reset = root.pci().expected_reset(bdf, |_| true);
    if matches!(reset, Ok(ResetMethod::None { .. })) {
        return Some(GuardObstacle::NoReset);
    }
    if !arch::DMA_IS_COHERENT && bypasses_caches(root, bdf) {
        return Some(GuardObstacle::NotCoherent);
    }
    let driven = Driven::of(root, bdf)?;
    let other = driven.others.into_iter().next();
    other.map(GuardObstacle::SharedSubsystem)
}

fn lacks_msix(root: &SysRoot, bdf: Bdf) -> bool {
    let bytes = root.pci().config_space(bdf).unwrap_or_default();
    ConfigSpace::read(&bytes).is_some_and(|config| {
        config.interrupts[InterruptKind::Msix] == 0 && !config.hides_capabilities
    })
}

/// Whether the device does not see what is in the CPU's caches. A host bridge that cannot be understood is refused by
/// every run.
fn bypasses_caches(root: &SysRoot, bdf: Bdf) -> bool {
    host_bridge(root, bdf, &[]).is_ok_and(|bridge| !bridge.is_coherent)
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
    fn one_that_cannot_be_reset_is_refused() {
        let fake = Fake::new();
        let real = "sys/devices/pci0000:00/0000:00:03.0";
        fake.write(&format!("{real}/class"), "0x010802\n");
        fake.link("sys/bus/pci/devices/0000:00:03.0", real);
        let bdf = "00:03.0".parse().unwrap();
        assert_eq!(
            guard_obstacle(&fake.root, bdf),
            Some(GuardObstacle::NoReset)
        );
        fake.write(&format!("{real}/reset_method"), "flr\n");
        assert_eq!(guard_obstacle(&fake.root, bdf), None);
    }

    #[test]
    fn dma_that_bypasses_the_caches_is_told_by_the_device_tree() {
        let fake = Fake::new();
        let bridge = "sys/devices/platform/a.pcie";
        let node = "sys/firmware/devicetree/base/pcie";
        let cells = |name: &str, value: u32| {
            let path = fake.dir.path().join(node).join(name);
            std::fs::write(path, value.to_be_bytes()).unwrap();
        };
        fake.write(&format!("{node}/device_type"), "pci\0");
        cells("#address-cells", 3);
        cells("#size-cells", 2);
        let function = format!("{bridge}/pci0000:00/0000:00:00.0/0000:01:00.0");
        fake.write(&format!("{function}/class"), "0x010802\n");
        fake.link(&format!("{bridge}/of_node"), node);
        fake.link("sys/bus/pci/devices/0000:01:00.0", &function);
        let bdf = "01:00.0".parse().unwrap();
        assert!(bypasses_caches(&fake.root, bdf));
        fake.write(&format!("{node}/dma-coherent"), "");
        assert!(!bypasses_caches(&fake.root, bdf));
        let disk = Fake::new();
        assert!(!bypasses_caches(&disk.root, disk.disk()), "no device tree");
    }

    #[test]
    fn a_subsystem_with_another_controller_is_refused() {
        let fake = Fake::new();
        let disk = fake.disk();
        fake.directory(&format!("{DISK}/nvme/nvme0"));
        fake.directory("sys/class/nvme-subsystem/nvme-subsys0/nvme0");
        assert_eq!(guard_obstacle(&fake.root, disk), None);
        fake.directory("sys/class/nvme-subsystem/nvme-subsys0/nvme1");
        let shared = GuardObstacle::SharedSubsystem("nvme1".to_owned());
        assert_eq!(guard_obstacle(&fake.root, disk), Some(shared));
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
