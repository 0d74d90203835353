// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The VFIO character device of a PCI function: its path and kind.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

use address::Bdf;
use pci_config::InterruptKind;

use crate::error::Error;
use crate::pci_sysfs::PciSysfs;

/// Where the kernel puts the nodes, in `/dev`.
const NODES: &str = "vfio/devices";

/// Whether an IOMMU translates for the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CdevKind {
    /// `vfioN`: an IOMMU translates what the device addresses.
    Iommu,
    /// `noiommu-vfioN`: nothing does. The device addresses physical memory, all of it.
    Noiommu,
}

impl CdevKind {
    /// The kind that a node of this `name` has (drivers/vfio/vfio_main.c
    /// vfio_device_set_noiommu_and_name); `None` if it is not the name of a VFIO device.
    fn of_name(name: &str) -> Option<Self> {
        let (kind, number) = match name.strip_prefix("noiommu-") {
            Some(rest) => (Self::Noiommu, rest),
            None => (Self::Iommu, name),
        };
        let digits = number.strip_prefix("vfio")?;
        let valid = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
        valid.then_some(kind)
    }

    /// How many of the `counted` vectors of `kind` of such a device can be used: without interrupt remapping
    /// x86 hosts cannot give a device a block of MSI vectors.
    #[must_use]
    pub fn vectors(self, kind: InterruptKind, counted: u16) -> u16 {
        match (self, kind) {
            (Self::Noiommu, InterruptKind::Msi) => counted.min(1),
            _ => counted,
        }
    }
}

/// Whether the driver of this name is one of VFIO's.
#[must_use]
pub fn is_vfio_driver(name: &str) -> bool {
    name.contains("vfio")
}

/// The VFIO character device that sysfs lists for a function. Its node may be missing, as in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CdevNode {
    name: String,
    kind: CdevKind,
}

impl CdevNode {
    /// The character device of `bdf`, if sysfs lists one. What kernels before 7.3 list for a device in noiommu mode is
    /// none: it has the name of a device behind an IOMMU, and no node (drivers/vfio/vfio.h vfio_device_add).
    ///
    /// # Errors
    /// [`Error::NoDevice`]
    pub fn of(sysfs: &PciSysfs, bdf: Bdf) -> Result<Option<Self>, Error> {
        let directory = sysfs.directory(bdf)?.join("vfio-dev");
        let group = sysfs.iommu_group(bdf)?;
        let has_made_up_group = group.is_some_and(|group| group.is_made_up);
        Ok(fs::read_dir(directory)
            .into_iter()
            .flatten()
            .flatten()
            .find_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let kind = CdevKind::of_name(&name)?;
                let is_real = kind == CdevKind::Noiommu || !has_made_up_group;
                is_real.then_some(Self { name, kind })
            }))
    }

    /// Whether an IOMMU translates for the device.
    #[must_use]
    pub fn kind(&self) -> CdevKind {
        self.kind
    }

    /// The path of its node.
    #[must_use]
    pub fn path(&self, sysfs: &PciSysfs) -> PathBuf {
        sysfs.nodes().join(NODES).join(&self.name)
    }

    /// Whether the node is there.
    #[must_use]
    pub fn exists(&self, sysfs: &PciSysfs) -> bool {
        self.path(sysfs).exists()
    }
}

/// The absolute path of the node.
impl fmt::Display for CdevNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Path::new("/dev")
            .join(NODES)
            .join(&self.name)
            .display()
            .fmt(f)
    }
}

/// An open VFIO character device that is bound to no `/dev/iommu` yet.
#[derive(Debug)]
pub struct Cdev {
    pub(crate) bdf: Bdf,
    pub(crate) kind: CdevKind,
    pub(crate) file: File,
}

impl Cdev {
    /// Finds the character device of `bdf` through `sysfs`, without opening it.
    ///
    /// # Errors
    /// [`Error::NoDevice`]; [`Error::NotBound`] if another driver than a VFIO one holds the
    /// device; [`Error::NoCdev`] if the kernel made none.
    pub fn find(sysfs: &PciSysfs, bdf: Bdf) -> Result<CdevNode, Error> {
        let driver = sysfs.driver(bdf)?;
        let found = CdevNode::of(sysfs, bdf)?;
        match (found, driver) {
            (Some(found), _) if found.exists(sysfs) => Ok(found),
            (_, Some(driver)) if is_vfio_driver(&driver) => Err(Error::NoCdev { bdf, driver }),
            (_, driver) => Err(Error::NotBound {
                bdf,
                driver,
                unsafe_mode: sysfs.unsafe_noiommu_mode(),
            }),
        }
    }

    /// Opens the character device of `bdf`.
    ///
    /// # Errors
    /// As [`find`](Self::find); [`Error::OpenCdev`], with `EPERM` where the kind is
    /// [`CdevKind::Noiommu`] and the caller lacks CAP_SYS_RAWIO.
    pub fn open(sysfs: &PciSysfs, bdf: Bdf) -> Result<Self, Error> {
        let node = Self::find(sysfs, bdf)?;
        let (path, kind) = (node.path(sysfs), node.kind());
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|source| Error::OpenCdev { bdf, path, source })?;
        Ok(Self { bdf, kind, file })
    }

    /// Whether an IOMMU translates for the device.
    #[must_use]
    pub fn kind(&self) -> CdevKind {
        self.kind
    }

    /// The device's name on the host.
    #[must_use]
    pub fn bdf(&self) -> Bdf {
        self.bdf
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_remapping_one_message_is_left() {
        let (iommu, noiommu) = (CdevKind::Iommu, CdevKind::Noiommu);
        assert_eq!(iommu.vectors(InterruptKind::Msi, 32), 32);
        assert_eq!(noiommu.vectors(InterruptKind::Msi, 32), 1);
        assert_eq!(noiommu.vectors(InterruptKind::Msi, 0), 0);
        assert_eq!(noiommu.vectors(InterruptKind::Msix, 32), 32);
    }

    #[test]
    fn a_node_may_be_listed_without_being_there() {
        let root = tempfile::tempdir().unwrap();
        let device = root.path().join("sys/bus/pci/devices/0000:01:00.0");
        let sysfs = PciSysfs::at(&root.path().join("sys"));
        let of = || CdevNode::of(&sysfs, "01:00.0".parse().unwrap());
        assert!(matches!(of(), Err(Error::Read { .. })));
        fs::create_dir_all(device.join("power")).unwrap();
        assert_eq!(of().unwrap(), None);
        fs::create_dir_all(device.join("vfio-dev/noiommu-vfio3")).unwrap();
        let node = of().unwrap().unwrap();
        assert_eq!(node.kind(), CdevKind::Noiommu);
        assert_eq!(node.to_string(), "/dev/vfio/devices/noiommu-vfio3");
        assert!(!node.exists(&sysfs));
        fs::create_dir_all(root.path().join("dev/vfio/devices")).unwrap();
        fs::write(node.path(&sysfs), "").unwrap();
        assert!(node.exists(&sysfs));
    }

    #[test]
    fn what_older_kernels_list_in_noiommu_mode_is_no_character_device() {
        let root = tempfile::tempdir().unwrap();
        let device = root.path().join("sys/bus/pci/devices/0000:01:00.0");
        let sysfs = PciSysfs::at(&root.path().join("sys"));
        let of = || CdevNode::of(&sysfs, "01:00.0".parse().unwrap()).unwrap();
        fs::create_dir_all(device.join("vfio-dev/vfio0")).unwrap();
        let group = root.path().join("sys/kernel/iommu_groups/3");
        fs::create_dir_all(&group).unwrap();
        std::os::unix::fs::symlink(&group, device.join("iommu_group")).unwrap();
        assert_eq!(of().unwrap().kind(), CdevKind::Iommu);
        fs::write(group.join("name"), "vfio-noiommu\n").unwrap();
        assert_eq!(of(), None);
        fs::create_dir_all(device.join("vfio-dev/noiommu-vfio0")).unwrap();
        assert_eq!(of().unwrap().kind(), CdevKind::Noiommu);
    }

    #[test]
    fn names_encode_the_kind() {
        assert_eq!(CdevKind::of_name("vfio0"), Some(CdevKind::Iommu));
        assert_eq!(CdevKind::of_name("noiommu-vfio12"), Some(CdevKind::Noiommu));
        for name in [
            "",
            "vfio",
            "noiommu-",
            "noiommu-12",
            "xvfio0",
            "vfio0x",
            "noiommu-noiommu-vfio0",
        ] {
            assert_eq!(CdevKind::of_name(name), None, "{name}");
        }
    }
}
