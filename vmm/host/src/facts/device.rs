// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The identity, driver and shared resources of a PCI function.

use address::Bdf;
use iommufd_backend::{CdevKind, CdevNode, Error, TranslatedBar, is_vfio_driver};

use crate::arch;
use crate::facts::config_space::{ConfigSpace, is_silent};
use crate::sys_root::SysRoot;

/// Base class of bridges.
const BRIDGE: u32 = 0x06;

/// The numbers by which a function is known; 0 for those that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub vendor: u32,
    pub device: u32,
    /// Base class, subclass and programming interface.
    pub class: u32,
}

impl Identity {
    pub(crate) fn of(root: &SysRoot, bdf: Bdf) -> Self {
        let number = |name| root.pci().number(bdf, name).unwrap_or(0);
        Self {
            vendor: number("vendor"),
            device: number("device"),
            class: number("class"),
        }
    }
}

/// What kind of function it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FunctionKind {
    /// A bridge, by its class or its header.
    Bridge,
    /// Nothing responds: config space reads as all ones.
    Silent,
    /// A device.
    Device,
}

impl FunctionKind {
    pub(crate) fn of(root: &SysRoot, bdf: Bdf) -> Self {
        let class = Identity::of(root, bdf).class;
        let config = root.pci().config_space(bdf).unwrap_or_default();
        let is_silent = is_silent(&config);
        let header = ConfigSpace::read(&config).map_or(0, |config| config.header_type);
        if class >> 16 == BRIDGE || header != 0 && !is_silent {
            Self::Bridge
        } else if is_silent {
            Self::Silent
        } else {
            Self::Device
        }
    }
}

/// Whether a driver that is none of VFIO's has the function.
pub(crate) fn has_other_driver(root: &SysRoot, bdf: Bdf) -> bool {
    let driver = root.pci().driver(bdf).ok().flatten();
    driver.is_some_and(|driver| !is_vfio_driver(&driver))
}

/// Whether a VFIO driver has the function.
pub(crate) fn has_vfio_driver(root: &SysRoot, bdf: Bdf) -> bool {
    let driver = root.pci().driver(bdf).ok().flatten();
    driver.is_some_and(|driver| is_vfio_driver(&driver))
}

/// The function's VFIO character device, as far as sysfs lists one.
pub(crate) fn cdev(root: &SysRoot, bdf: Bdf) -> Option<CdevNode> {
    CdevNode::of(root.pci(), bdf).ok().flatten()
}

/// Whether an IOMMU translates for a function: by its character device, or before it has one, by
/// its group.
#[must_use]
pub fn cdev_kind(root: &SysRoot, bdf: Bdf) -> CdevKind {
    if let Some(node) = cdev(root, bdf) {
        return node.kind();
    }
    let group = root.pci().iommu_group(bdf).ok().flatten();
    match group {
        Some(group) if !group.is_made_up => CdevKind::Iommu,
        _ => CdevKind::Noiommu,
    }
}

/// The first BAR of a function of this `kind` that has another address on the device's bus than for the CPU, if that
/// shows that memory has another one, too. Where an IOMMU translates, a device is given no address of the CPU's.
///
/// # Errors
/// What sysfs does not show.
pub fn translated_bar(
    root: &SysRoot,
    bdf: Bdf,
    kind: CdevKind,
) -> Result<Option<TranslatedBar>, Error> {
    match kind {
        CdevKind::Noiommu => arch::translated_bar(root, bdf),
        CdevKind::Iommu => Ok(None),
    }
}

/// The functions on a function's bus.
pub(crate) struct Siblings {
    /// All others on the same bus.
    pub(crate) others: Vec<Bdf>,
    /// Whether the bus belongs to a bridge, which can reset it.
    pub(crate) is_behind_bridge: bool,
    /// Whether the bus is a conventional one, on which all have the bridge's requester ID.
    pub(crate) is_conventional: bool,
}

impl Siblings {
    pub(crate) fn of(root: &SysRoot, bdf: Bdf) -> Self {
        let on_bus = |other: &Bdf| {
            *other != bdf && (other.domain(), other.bus()) == (bdf.domain(), bdf.bus())
        };
        let mut others = root.pci().functions().unwrap_or_default();
        others.retain(on_bus);
        let is_behind_bridge = root.pci().parent(bdf).is_some();
        Self {
            others,
            is_behind_bridge,
            is_conventional: is_behind_bridge && !is_express(root, bdf),
        }
    }
}

/// Whether it is a PCI Express function: only those have the speed of a link
/// (drivers/pci/pci-sysfs.c pcie_dev_attrs_are_visible).
fn is_express(root: &SysRoot, bdf: Bdf) -> bool {
    root.exists(&format!("sys/bus/pci/devices/{bdf}/max_link_speed"))
}

/// The functions that the device's IOMMU cannot distinguish from it, and that have their own
/// driver: the kernel gives a group of them away as a whole, ports and bridges apart
/// (drivers/iommu/iommu.c iommu_device_claim_dma_owner).
pub(crate) fn driven_in_group(root: &SysRoot, bdf: Bdf) -> Vec<Bdf> {
    if cdev_kind(root, bdf) == CdevKind::Noiommu {
        return Vec::new();
    }
    let members = root.names(format!("sys/bus/pci/devices/{bdf}/iommu_group/devices"));
    let members = members.iter().filter_map(|name| name.parse::<Bdf>().ok());
    members
        .filter(|other| *other != bdf)
        .filter(|other| FunctionKind::of(root, *other) != FunctionKind::Bridge)
        .filter(|other| has_other_driver(root, *other))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys_root::tests::Fake;

    const DISK: &str = "sys/devices/pci0000:00/0000:00:08.0/0000:01:00.0";

    #[test]
    fn a_node_has_precedence_over_a_group() {
        let fake = Fake::new();
        let disk = fake.disk();
        let kind = || cdev_kind(&fake.root, disk);
        assert_eq!(kind(), CdevKind::Noiommu);
        fake.directory("sys/kernel/iommu_groups/7");
        fake.link(&format!("{DISK}/iommu_group"), "sys/kernel/iommu_groups/7");
        assert_eq!(kind(), CdevKind::Iommu);
        fake.write("sys/kernel/iommu_groups/7/name", "vfio-noiommu\n");
        assert_eq!(kind(), CdevKind::Noiommu);
        fake.directory(&format!("{DISK}/vfio-dev/vfio0"));
        assert_eq!(kind(), CdevKind::Noiommu, "as before Linux 7.3");
        fake.write("sys/kernel/iommu_groups/7/name", "");
        assert_eq!(kind(), CdevKind::Iommu);
        fake.directory(&format!("{DISK}/vfio-dev/noiommu-vfio0"));
        std::fs::remove_dir(fake.dir.path().join(DISK).join("vfio-dev/vfio0")).unwrap();
        assert_eq!(kind(), CdevKind::Noiommu);
    }

    #[test]
    fn a_bar_has_two_addresses_only_where_no_iommu_translates() {
        let fake = Fake::new();
        let disk = fake.disk();
        let mut config = vec![0; 64];
        config[0x10..0x14].copy_from_slice(&0xf000_0000_u32.to_le_bytes());
        std::fs::write(fake.dir.path().join(DISK).join("config"), config).unwrap();
        let found = |kind| translated_bar(&fake.root, disk, kind).unwrap().is_some();
        assert!(found(CdevKind::Noiommu));
        assert!(!found(CdevKind::Iommu));
    }

    #[test]
    fn a_function_is_a_bridge_by_class_or_header_and_may_be_silent() {
        let fake = Fake::new();
        let disk = fake.disk();
        let kind = || FunctionKind::of(&fake.root, disk);
        assert_eq!(kind(), FunctionKind::Device);
        let config = fake.dir.path().join(DISK).join("config");
        std::fs::write(&config, [0xff; 64]).unwrap();
        assert_eq!(kind(), FunctionKind::Silent);
        let mut header = [0; 64];
        header[0x0e] = 1;
        std::fs::write(&config, header).unwrap();
        assert_eq!(kind(), FunctionKind::Bridge);
        std::fs::write(&config, [0; 64]).unwrap();
        fake.write(&format!("{DISK}/class"), "0x060400\n");
        assert_eq!(kind(), FunctionKind::Bridge);
    }
}
