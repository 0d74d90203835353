//! What sysfs tells about PCI devices.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use address::{Bdf, Hpa};

use crate::error::Error;

/// Bits of the flags column of a `resource` file (include/linux/ioport.h).
const IORESOURCE_MEM: u64 = 0x200;

/// Number of regions of a function that have a line of their own: six BARs and the ROM.
pub const REGIONS: usize = 7;

/// PCI devices as a sysfs tree shows them.
#[derive(Clone, Debug)]
pub struct PciSysfs {
    devices: PathBuf,
    unsafe_noiommu_mode: PathBuf,
}

impl Default for PciSysfs {
    fn default() -> Self {
        Self::at(Path::new("/sys"))
    }
}

impl PciSysfs {
    /// The tree mounted at `sysfs`, normally `/sys`.
    #[must_use]
    pub fn at(sysfs: &Path) -> Self {
        Self {
            devices: sysfs.join("bus/pci/devices"),
            unsafe_noiommu_mode: sysfs.join("module/vfio/parameters/enable_unsafe_noiommu_mode"),
        }
    }

    /// Whether the kernel gives devices without an IOMMU away; `None` if it cannot
    /// (`CONFIG_VFIO_NOIOMMU` is off), or its module `vfio` is not loaded.
    #[must_use]
    pub fn unsafe_noiommu_mode(&self) -> Option<bool> {
        let text = fs::read_to_string(&self.unsafe_noiommu_mode).ok()?;
        Some(text.trim() == "Y")
    }

    /// The directory of `bdf`.
    ///
    /// # Errors
    /// [`Error::NoDevice`]
    pub fn directory(&self, bdf: Bdf) -> Result<PathBuf, Error> {
        let path = self.devices.join(bdf.to_string());
        if path.is_dir() {
            Ok(path)
        } else {
            Err(Error::NoDevice { bdf })
        }
    }

    /// Name of the driver that holds `bdf`, if any does.
    ///
    /// # Errors
    /// [`Error::NoDevice`], [`Error::Read`]
    pub fn driver(&self, bdf: Bdf) -> Result<Option<String>, Error> {
        let path = self.directory(bdf)?.join("driver");
        match fs::read_link(&path) {
            Ok(target) => Ok(target
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Read { path, source }),
        }
    }

    /// Physical addresses at which the host placed the memory regions of `bdf`: BAR0 to BAR5,
    /// then the ROM. `None` for I/O ports, absent regions and regions without a place.
    ///
    /// # Errors
    /// [`Error::NoDevice`], [`Error::Read`], [`Error::Parse`]
    pub fn memory_regions(&self, bdf: Bdf) -> Result<[Option<Hpa>; REGIONS], Error> {
        let path = self.directory(bdf)?.join("resource");
        let text = fs::read_to_string(&path).map_err(|source| Error::Read {
            path: path.clone(),
            source,
        })?;
        let mut regions = [None; REGIONS];
        for (region, line) in regions.iter_mut().zip(text.lines()) {
            *region = memory_region(line).ok_or_else(|| Error::Parse {
                path: path.clone(),
                found: line.to_owned(),
            })?;
        }
        Ok(regions)
    }
}

/// Start of a line `START END FLAGS` if it describes placed memory; `None` if it is malformed.
fn memory_region(line: &str) -> Option<Option<Hpa>> {
    let mut columns = line
        .split_whitespace()
        .map(|word| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok());
    let (start, _end, flags) = (columns.next()??, columns.next()??, columns.next()??);
    Some((flags & IORESOURCE_MEM != 0 && start != 0).then_some(Hpa(start)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const DISK: &str = "0000:01:00.0";

    fn tree() -> (tempfile::TempDir, PathBuf, PciSysfs) {
        let root = tempfile::tempdir().unwrap();
        let device = root.path().join("bus/pci/devices").join(DISK);
        fs::create_dir_all(&device).unwrap();
        let sysfs = PciSysfs::at(root.path());
        (root, device, sysfs)
    }

    #[test]
    fn memory_is_told_from_ports_and_absent_regions() {
        let (_root, device, sysfs) = tree();
        fs::write(
            device.join("resource"),
            "0x00000000fe800000 0x00000000fe803fff 0x0000000000140204\n\
             0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
             0x000000000000c000 0x000000000000c01f 0x0000000000040101\n\
             0x0000383800000000 0x0000383800003fff 0x000000000014220c\n\
             0x0000000000000000 0x0000000000003fff 0x0000000000140204\n",
        )
        .unwrap();
        assert_eq!(
            sysfs.memory_regions(DISK.parse().unwrap()).unwrap(),
            [
                Some(Hpa(0xfe80_0000)),
                None,
                None,
                Some(Hpa(0x3838_0000_0000)),
                None,
                None,
                None
            ]
        );
    }

    #[test]
    fn a_garbled_resource_file_is_an_error() {
        let (_root, device, sysfs) = tree();
        for text in ["0x1\n", "0x1 0x2 zz\n", "\n"] {
            fs::write(device.join("resource"), text).unwrap();
            assert!(matches!(
                sysfs.memory_regions(DISK.parse().unwrap()),
                Err(Error::Parse { .. })
            ));
        }
    }

    #[test]
    fn unsafe_mode_is_on_off_or_not_there() {
        let (root, _device, sysfs) = tree();
        assert_eq!(sysfs.unsafe_noiommu_mode(), None);
        let parameters = root.path().join("module/vfio/parameters");
        fs::create_dir_all(&parameters).unwrap();
        for (text, mode) in [("Y\n", true), ("N\n", false)] {
            fs::write(parameters.join("enable_unsafe_noiommu_mode"), text).unwrap();
            assert_eq!(sysfs.unsafe_noiommu_mode(), Some(mode));
        }
    }

    #[test]
    fn the_driver_is_the_last_part_of_the_link() {
        let (_root, device, sysfs) = tree();
        let bdf = DISK.parse().unwrap();
        assert_eq!(sysfs.driver(bdf).unwrap(), None);
        symlink("../../../bus/pci/drivers/nvme", device.join("driver")).unwrap();
        assert_eq!(sysfs.driver(bdf).unwrap().as_deref(), Some("nvme"));
        assert!(matches!(
            sysfs.driver("0000:02:00.0".parse().unwrap()),
            Err(Error::NoDevice { .. })
        ));
    }
}
