// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The devices of this machine: `/sys` and `/proc/iomem`.

use std::fs;
use std::path::{Path, PathBuf};

use stress_format::{Interrupt, Ram};

/// An NVMe disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskInfo {
    /// Name of its file in `/dev`.
    pub name: String,
    /// Bytes.
    pub bytes: u64,
    /// Bytes of a logical block.
    pub block: usize,
    /// Its PCI function.
    pub function: Function,
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceInfo {
    /// Its name.
    pub name: String,
    /// Its PCI function.
    pub function: Function,
}

/// A PCI function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Bus, device and function; the domain only if it is not 0.
    pub bdf: String,
    /// What its driver uses.
    pub interrupt: Interrupt,
}

/// The NVMe disks below `sys`, by name. The paths of a disk that has several are hidden by Linux, and here.
#[must_use]
pub fn disks(sys: &Path) -> Vec<DiskInfo> {
    let names = names(&sys.join("block"));
    let disks = names.into_iter().filter(|name| name.starts_with("nvme"));
    disks.filter_map(|name| disk(sys, name)).collect()
}

fn disk(sys: &Path, name: String) -> Option<DiskInfo> {
    let folder = sys.join("block").join(&name);
    if number(&folder.join("hidden")) == Some(1) {
        return None;
    }
    // Sectors of 512 bytes, whatever the disk's own are (Linux Documentation/ABI/stable/sysfs-block).
    let bytes = number(&folder.join("size"))?.checked_mul(512)?;
    let block = number(&folder.join("queue/logical_block_size"))?;
    let block = usize::try_from(block)
        .ok()
        .filter(|block| (512..=65_536).contains(block) && block.is_power_of_two())?;
    // nvme0n1 is a namespace of the controller nvme0.
    let digits = name.find('n').map(|_| name.trim_start_matches("nvme"))?;
    let controller = format!("nvme{}", digits.split('n').next()?);
    let device = sys.join("class/nvme").join(controller).join("device");
    Some(DiskInfo {
        function: function(&device),
        name,
        bytes,
        block,
    })
}

/// The network interfaces below `sys` that are a device's, by name.
#[must_use]
pub fn interfaces(sys: &Path) -> Vec<InterfaceInfo> {
    let folder = sys.join("class/net");
    let names = names(&folder).into_iter();
    let info = |name: String| {
        let device = folder.join(&name).join("device");
        device.exists().then(|| InterfaceInfo {
            function: function(&device),
            name,
        })
    };
    names.filter_map(info).collect()
}

/// Whether an interface has its link.
#[must_use]
pub fn has_carrier(sys: &Path, interface: &str) -> bool {
    number(&sys.join("class/net").join(interface).join("carrier")) == Some(1)
}

/// The PCI function that a device is or belongs to.
fn function(device: &Path) -> Function {
    let unknown = Function {
        bdf: "unknown".into(),
        interrupt: Interrupt::Polling,
    };
    let Ok(device) = device.canonicalize() else {
        return unknown;
    };
    let found = device.ancestors().find_map(|folder| {
        let name = folder.file_name()?.to_str()?;
        is_bdf(name).then_some((folder, name))
    });
    found.map_or(unknown, |(folder, name)| Function {
        bdf: name.strip_prefix("0000:").unwrap_or(name).into(),
        interrupt: interrupt(folder),
    })
}

/// Whether a name is `DDDD:BB:DD.F`.
fn is_bdf(name: &str) -> bool {
    let shape = |byte: u8| match byte {
        b':' | b'.' => byte,
        byte if byte.is_ascii_hexdigit() => b'0',
        _ => b'?',
    };
    name.bytes().map(shape).eq(*b"0000:00:00.0")
}

/// `msi_irqs` has a file for each vector with the kind in it (Linux Documentation/ABI/testing/sysfs-bus-pci).
fn interrupt(function: &Path) -> Interrupt {
    let folder = function.join("msi_irqs");
    let kind = names(&folder)
        .first()
        .and_then(|vector| fs::read_to_string(folder.join(vector)).ok());
    match kind.as_deref().map(str::trim) {
        Some("msi") => Interrupt::Msi,
        Some("msix") => Interrupt::Msix,
        _ => Interrupt::Intx,
    }
}

/// The RAM of an `/proc/iomem` above 1 MiB, below which no device has any business.
#[must_use]
pub fn ram(iomem: &str) -> Vec<Ram> {
    let hex = |digits: &str| u64::from_str_radix(digits, 16).ok();
    let piece = |line: &str| {
        let range = line.strip_suffix(" : System RAM")?;
        let (first, last) = range.split_once('-')?;
        let (gpa, last) = (hex(first)?, hex(last)?);
        let len = last.checked_sub(gpa)?.checked_add(1)?;
        (gpa >= 1 << 20).then_some(Ram { gpa, len })
    };
    iomem.lines().filter_map(piece).collect()
}

/// Bytes of memory that may be used without swapping, by `/proc/meminfo`.
#[must_use]
pub fn available_memory(meminfo: &str) -> Option<usize> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: usize = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The names in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

fn number(path: &PathBuf) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn write(root: &Path, name: &str, text: &str) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn disks_and_interfaces_are_found_with_their_functions() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let pci = "devices/pci0000:00/0000:00:02.0";
        write(root, &format!("{pci}/msi_irqs/24"), "msix\n");
        write(root, &format!("{pci}/virtio0/features"), "");
        for (name, hidden) in [("nvme0n1", "0"), ("nvme0c0n1", "1"), ("sda", "0")] {
            write(root, &format!("block/{name}/hidden"), hidden);
            write(root, &format!("block/{name}/size"), "2048\n");
            write(
                root,
                &format!("block/{name}/queue/logical_block_size"),
                "4096\n",
            );
        }
        fs::create_dir_all(root.join("class/nvme/nvme0")).unwrap();
        symlink(root.join(pci), root.join("class/nvme/nvme0/device")).unwrap();
        fs::create_dir_all(root.join("class/net/lo")).unwrap();
        fs::create_dir_all(root.join("class/net/eth0")).unwrap();
        symlink(
            root.join(pci).join("virtio0"),
            root.join("class/net/eth0/device"),
        )
        .unwrap();
        write(root, "class/net/eth0/carrier", "1\n");

        let function = Function {
            bdf: "00:02.0".into(),
            interrupt: Interrupt::Msix,
        };
        let disk = DiskInfo {
            name: "nvme0n1".into(),
            bytes: 1 << 20,
            block: 4096,
            function: function.clone(),
        };
        assert_eq!(disks(root), [disk]);
        let interface = InterfaceInfo {
            name: "eth0".into(),
            function,
        };
        assert_eq!(interfaces(root), [interface]);
        assert!(has_carrier(root, "eth0") && !has_carrier(root, "eth1"));
        assert_eq!(disks(&root.join("none")), []);
    }

    #[test]
    fn ram_is_what_lies_above_1_mib() {
        let iomem = "00001000-0009ffff : System RAM\n100000000-1001fffff : System RAM\n\
                     \x20\x20100000000-100ffffff : Kernel code\nfec00000-fec003ff : IOAPIC 0\n-1 : System RAM\n";
        assert_eq!(
            ram(iomem),
            [Ram {
                gpa: 1 << 32,
                len: 0x20_0000
            }]
        );
    }

    #[test]
    fn memory_is_reported_in_kib() {
        let meminfo = "MemTotal:  99 kB\nMemAvailable:     421332 kB\nX: 1 kB\n";
        assert_eq!(available_memory(meminfo), Some(421_332 * 1024));
        assert_eq!(available_memory("MemAvailable: x kB\n"), None);
    }
}
