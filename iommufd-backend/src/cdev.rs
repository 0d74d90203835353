//! The VFIO character device of a PCI function: finding it and telling its kind.

use std::fs::{self, File, OpenOptions};
use std::path::Path;

use address::Bdf;

use crate::error::Error;
use crate::pci_sysfs::PciSysfs;

/// Where the kernel puts the nodes.
pub const NODES: &str = "/dev/vfio/devices";

/// Whether an IOMMU stands between the device and memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CdevKind {
    /// `vfioN`: an IOMMU translates what the device addresses.
    Iommu,
    /// `noiommu-vfioN`: nothing does. The device addresses physical memory, all of it.
    Noiommu,
}

impl CdevKind {
    /// The kind that a node of this `name` has (drivers/vfio/vfio_main.c
    /// vfio_device_set_noiommu_and_name); `None` if it is no name of a VFIO device.
    fn of_name(name: &str) -> Option<Self> {
        let (kind, number) = match name.strip_prefix("noiommu-") {
            Some(rest) => (Self::Noiommu, rest),
            None => (Self::Iommu, name),
        };
        let digits = number.strip_prefix("vfio")?;
        let valid = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
        valid.then_some(kind)
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
    /// Finds the character device of `bdf` through `sysfs` and tells its kind, without opening
    /// it: the node's name and kind.
    ///
    /// # Errors
    /// [`Error::NoDevice`]; [`Error::NotBound`] if another driver than a VFIO one holds the
    /// device; [`Error::NoCdev`] if the kernel made none.
    pub fn find(sysfs: &PciSysfs, bdf: Bdf) -> Result<(String, CdevKind), Error> {
        let driver = sysfs.driver(bdf)?;
        let found = Self::name(sysfs, bdf)?;
        // Kernels before 7.3 list a noiommu device here without making a node for it.
        match (found, driver) {
            (Some(found), _) if Path::new(NODES).join(&found.0).exists() => Ok(found),
            (_, Some(driver)) if driver.contains("vfio") => Err(Error::NoCdev { bdf, driver }),
            (_, driver) => Err(Error::NotBound {
                bdf,
                driver,
                unsafe_mode: sysfs.unsafe_noiommu_mode(),
            }),
        }
    }

    /// The name and kind of the character device that sysfs lists for `bdf`, whether it has a
    /// node or not.
    ///
    /// # Errors
    /// [`Error::NoDevice`]
    pub fn name(sysfs: &PciSysfs, bdf: Bdf) -> Result<Option<(String, CdevKind)>, Error> {
        let directory = sysfs.directory(bdf)?.join("vfio-dev");
        Ok(fs::read_dir(directory)
            .into_iter()
            .flatten()
            .flatten()
            .find_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                CdevKind::of_name(&name).map(|kind| (name, kind))
            }))
    }

    /// Opens the character device of `bdf`.
    ///
    /// # Errors
    /// As [`find`](Self::find); [`Error::OpenCdev`], with `EPERM` where the kind is
    /// [`CdevKind::Noiommu`] and the caller lacks CAP_SYS_RAWIO.
    pub fn open(sysfs: &PciSysfs, bdf: Bdf) -> Result<Self, Error> {
        let (name, kind) = Self::find(sysfs, bdf)?;
        let path = Path::new(NODES).join(name);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|source| Error::OpenCdev { bdf, path, source })?;
        Ok(Self { bdf, kind, file })
    }

    /// Whether an IOMMU stands between the device and memory.
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
    fn names_tell_the_kind() {
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
