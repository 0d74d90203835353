// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What sysfs reports about PCI devices.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use address::{Bdf, Hpa};

use crate::error::Error;

/// Bits of the flags column of a `resource` file (include/linux/ioport.h).
const IORESOURCE_IO: u64 = 0x100;
const IORESOURCE_MEM: u64 = 0x200;
const IORESOURCE_UNSET: u64 = 0x2000_0000;

/// Number of regions of a function that have a line of their own: six BARs and the ROM.
pub const REGIONS: usize = BARS + 1;
/// Number of BARs of a function.
pub const BARS: usize = 6;

/// What a region of a function is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionKind {
    /// I/O ports.
    Ports,
    /// Memory.
    Memory,
}

/// A region of a function: a BAR or the ROM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resource {
    /// What it is made of.
    pub kind: RegionKind,
    /// Where the host placed it; `None` if it found no place.
    pub start: Option<u64>,
    /// Bytes, or ports.
    pub size: u64,
}

impl Resource {
    /// Where the host placed it in memory; `None` for I/O ports and for what has no place.
    #[must_use]
    pub fn address(&self) -> Option<Hpa> {
        let start = self.start.filter(|_| self.kind == RegionKind::Memory);
        start.map(Hpa)
    }
}

/// The memory BARs among the regions of a function that have a place: each with its number.
pub fn memory_bars(
    regions: &[Option<Resource>; REGIONS],
) -> impl Iterator<Item = (usize, Range<Hpa>)> {
    let bars = regions.iter().take(BARS).enumerate();
    bars.filter_map(|(number, region)| {
        let region = region.as_ref()?;
        let range = region.address()?.span(region.size)?;
        (!range.is_empty()).then_some((number, range))
    })
}

/// The IOMMU group of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IommuGroup {
    /// Its number.
    pub number: String,
    /// Whether it is the one that VFIO makes up for a device that no IOMMU isolates
    /// (drivers/vfio/group.c vfio_noiommu_group_alloc).
    pub is_made_up: bool,
}

/// PCI devices as a sysfs tree shows them.
#[derive(Clone, Debug)]
pub struct PciSysfs {
    devices: PathBuf,
    nodes: PathBuf,
    unsafe_noiommu_mode: PathBuf,
}

impl Default for PciSysfs {
    fn default() -> Self {
        Self::at(Path::new("/sys"))
    }
}

impl PciSysfs {
    /// The tree mounted at `sysfs`, normally `/sys`, with the nodes in `dev` beside it.
    #[must_use]
    pub fn at(sysfs: &Path) -> Self {
        Self {
            devices: sysfs.join("bus/pci/devices"),
            nodes: sysfs.with_file_name("dev"),
            unsafe_noiommu_mode: sysfs.join("module/vfio/parameters/enable_unsafe_noiommu_mode"),
        }
    }

    /// Where the nodes of devices are, normally `/dev`.
    pub(crate) fn nodes(&self) -> &Path {
        &self.nodes
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
    /// [`Error::NoDevice`]; [`Error::Read`] where no device is listed, as without `/sys`.
    pub fn directory(&self, bdf: Bdf) -> Result<PathBuf, Error> {
        let path = self.devices.join(bdf.to_string());
        if path.is_dir() {
            return Ok(path);
        }
        Err(match fs::metadata(&self.devices) {
            Ok(_) => Error::NoDevice { bdf },
            Err(source) => Error::Read {
                path: self.devices.clone(),
                source,
            },
        })
    }

    /// All PCI functions, in order.
    ///
    /// # Errors
    /// [`Error::Read`], also if the kernel has no PCI support.
    pub fn functions(&self) -> Result<Vec<Bdf>, Error> {
        let entries = fs::read_dir(&self.devices).map_err(|source| Error::Read {
            path: self.devices.clone(),
            source,
        })?;
        let mut functions: Vec<Bdf> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect();
        functions.sort_unstable();
        Ok(functions)
    }

    /// A number that the file `name` of `bdf` holds in hexadecimal: `vendor`, `device`, `class`.
    ///
    /// # Errors
    /// [`Error::NoDevice`], [`Error::Read`], [`Error::Parse`]
    pub fn number(&self, bdf: Bdf, name: &str) -> Result<u32, Error> {
        let (path, text) = self.text(bdf, name)?;
        let text = text.trim();
        u32::from_str_radix(text.trim_start_matches("0x"), 16).map_err(|_| Error::Parse {
            path,
            found: text.to_owned(),
        })
    }

    /// Config space of `bdf`: 64 bytes of it without CAP_SYS_ADMIN (drivers/pci/pci-sysfs.c
    /// pci_read_config).
    ///
    /// # Errors
    /// [`Error::NoDevice`], [`Error::Read`]
    pub fn config_space(&self, bdf: Bdf) -> Result<Vec<u8>, Error> {
        let path = self.directory(bdf)?.join("config");
        fs::read(&path).map_err(|source| Error::Read { path, source })
    }

    /// The ways in which the kernel can reset `bdf`, the preferred first, in its words
    /// (drivers/pci/pci.c pci_reset_fn_methods). None of them where it has none.
    ///
    /// # Errors
    /// [`Error::NoDevice`], [`Error::Read`]
    pub fn reset_methods(&self, bdf: Bdf) -> Result<Vec<String>, Error> {
        match self.text(bdf, "reset_method") {
            Ok((_, text)) => Ok(text.split_whitespace().map(str::to_owned).collect()),
            Err(Error::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }

    /// The IOMMU group of `bdf`, if it has one.
    ///
    /// # Errors
    /// [`Error::NoDevice`]
    pub fn iommu_group(&self, bdf: Bdf) -> Result<Option<IommuGroup>, Error> {
        let path = self.directory(bdf)?.join("iommu_group");
        let Some(number) = fs::read_link(&path)
            .ok()
            .and_then(|target| Some(target.file_name()?.to_string_lossy().into_owned()))
        else {
            return Ok(None);
        };
        let name = fs::read_to_string(path.join("name")).unwrap_or_default();
        Ok(Some(IommuGroup {
            number,
            is_made_up: name.trim() == "vfio-noiommu",
        }))
    }

    /// The regions of `bdf`: BAR0 to BAR5, then the ROM; `None` for those that it has not.
    ///
    /// # Errors
    /// [`Error::NoDevice`], [`Error::Read`], [`Error::Parse`]
    pub fn resources(&self, bdf: Bdf) -> Result<[Option<Resource>; REGIONS], Error> {
        let (path, text) = self.text(bdf, "resource")?;
        let mut regions = [None; REGIONS];
        for (region, line) in regions.iter_mut().zip(text.lines()) {
            *region = resource(line).ok_or_else(|| Error::Parse {
                path: path.clone(),
                found: line.to_owned(),
            })?;
        }
        Ok(regions)
    }

    /// The text of the file `name` of `bdf` without the white space around it.
    pub(crate) fn word(&self, bdf: Bdf, name: &str) -> Result<String, Error> {
        Ok(self.text(bdf, name)?.1.trim().to_owned())
    }

    fn text(&self, bdf: Bdf, name: &str) -> Result<(PathBuf, String), Error> {
        let path = self.directory(bdf)?.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok((path, text)),
            Err(source) => Err(Error::Read { path, source }),
        }
    }

    /// Name of the driver that alone may have `bdf`; empty if any may.
    ///
    /// # Errors
    /// [`Error::NoDevice`], [`Error::Read`]
    pub fn driver_override(&self, bdf: Bdf) -> Result<String, Error> {
        Ok(match self.word(bdf, "driver_override")?.as_str() {
            // How the kernel prints none.
            "(null)" => String::new(),
            name => name.to_owned(),
        })
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
}

/// The region that a line `START END FLAGS` describes, if any; `None` if it is malformed.
fn resource(line: &str) -> Option<Option<Resource>> {
    let mut columns = line
        .split_whitespace()
        .map(|word| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok());
    let (start, end, flags) = (columns.next()??, columns.next()??, columns.next()??);
    let kind = match (flags & IORESOURCE_MEM, flags & IORESOURCE_IO) {
        (0, 0) => return Some(None),
        (0, _) => RegionKind::Ports,
        _ => RegionKind::Memory,
    };
    Some(Some(Resource {
        kind,
        start: (start != 0 && flags & IORESOURCE_UNSET == 0).then_some(start),
        size: end.checked_sub(start)?.saturating_add(1),
    }))
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
    fn memory_is_distinguished_from_ports_and_absent_regions() {
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
        let regions = sysfs.resources(DISK.parse().unwrap()).unwrap();
        let addresses = regions.map(|region| region?.address());
        assert_eq!(
            addresses,
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
    fn memory_bars_have_a_place_and_a_size() {
        let region = |kind, start, size| Some(Resource { kind, start, size });
        let (memory, ports) = (RegionKind::Memory, RegionKind::Ports);
        let regions = [
            region(memory, Some(0x1000), 0x100),
            None,
            region(ports, Some(0xc000), 0x20),
            region(memory, None, 0x1000),
            region(memory, Some(u64::MAX), 2),
            region(memory, Some(0x2000), 0),
            // The ROM is no BAR.
            region(memory, Some(0x3000), 0x1000),
        ];
        let bars: Vec<_> = memory_bars(&regions).collect();
        assert_eq!(bars, [(0, Hpa(0x1000)..Hpa(0x1100))]);
    }

    #[test]
    fn a_garbled_resource_file_is_an_error() {
        let (_root, device, sysfs) = tree();
        for text in ["0x1\n", "0x1 0x2 zz\n", "\n"] {
            fs::write(device.join("resource"), text).unwrap();
            assert!(matches!(
                sysfs.resources(DISK.parse().unwrap()),
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

    #[test]
    fn what_a_function_is_can_be_read() {
        let (_root, device, sysfs) = tree();
        let bdf: Bdf = DISK.parse().unwrap();
        assert_eq!(sysfs.functions().unwrap(), [bdf]);
        fs::write(device.join("class"), "0x010802\n").unwrap();
        fs::write(device.join("vendor"), "words\n").unwrap();
        assert_eq!(sysfs.number(bdf, "class").unwrap(), 0x01_0802);
        assert!(matches!(
            sysfs.number(bdf, "vendor"),
            Err(Error::Parse { .. })
        ));
        assert!(matches!(
            sysfs.number(bdf, "device"),
            Err(Error::Read { .. })
        ));
        assert!(sysfs.reset_methods(bdf).unwrap().is_empty());
        fs::write(device.join("reset_method"), "flr bus\n").unwrap();
        assert_eq!(sysfs.reset_methods(bdf).unwrap(), ["flr", "bus"]);
    }

    #[test]
    fn a_made_up_group_is_no_iommu() {
        let (root, device, sysfs) = tree();
        let bdf = DISK.parse().unwrap();
        assert_eq!(sysfs.iommu_group(bdf).unwrap(), None);
        let group = root.path().join("kernel/iommu_groups/7");
        fs::create_dir_all(&group).unwrap();
        symlink(&group, device.join("iommu_group")).unwrap();
        assert!(!sysfs.iommu_group(bdf).unwrap().unwrap().is_made_up);
        fs::write(group.join("name"), "vfio-noiommu\n").unwrap();
        let made_up = sysfs.iommu_group(bdf).unwrap().unwrap();
        assert_eq!(made_up.number, "7");
        assert!(made_up.is_made_up);
    }

    #[test]
    fn a_region_has_a_size_and_perhaps_a_place() {
        let region = |line| resource(line).unwrap().unwrap();
        let ports = region("0xc000 0xc01f 0x40101");
        assert_eq!((ports.kind, ports.size), (RegionKind::Ports, 32));
        let unset = region("0x0 0x3fff 0x20140204");
        assert_eq!((unset.start, unset.size), (None, 0x4000));
        assert_eq!(resource("0x2 0x1 0x200"), None);
        assert_eq!(region("0x0 0xffffffffffffffff 0x200").size, u64::MAX);
    }

    proptest::proptest! {
        #[test]
        fn no_line_makes_it_panic(line in ".*") {
            let _ = resource(&line);
        }

        #[test]
        fn no_numbers_make_it_panic(start: u64, end: u64, flags: u64) {
            let _ = resource(&format!("{start:#x} {end:#x} {flags:#x}"));
        }
    }
}
