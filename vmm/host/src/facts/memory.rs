// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Memory of the machine, and what reduces it.

use address::Hpa;

use crate::facts::kernel::command_line;
use crate::sys_root::SysRoot;

/// Drivers that give a virtual machine's free memory back to its hypervisor, by bus.
const BALLOONS: [(&str, &str); 3] = [
    ("virtio", "virtio_balloon"),
    ("virtio", "virtio_mem"),
    ("vmbus", "hv_balloon"),
];

/// Words of the kernel's command line that put hugepages where nothing can be pinned (Linux
/// Documentation/admin-guide/kernel-parameters.txt).
const MOVABLE: [&str; 4] = [
    "hugetlb_cma=",
    "movablecore=",
    "kernelcore=",
    "movable_node",
];

/// Where the machine's memory ends, at least, as far as the caller can see.
pub(crate) fn end_of_memory(root: &SysRoot) -> Hpa {
    if let Ok(map) = root.iomem() {
        let ends = map.system_ram().map(|range| range.end);
        return ends.max().unwrap_or(Hpa(0));
    }
    Hpa(Meminfo::read(root)
        .and_then(|meminfo| meminfo.kib("MemTotal"))
        .unwrap_or(0)
        .saturating_mul(1 << 10))
}

/// `/proc/meminfo`.
#[derive(Debug)]
pub(crate) struct Meminfo(String);

impl Meminfo {
    /// Reads it; `None` if the kernel does not show it.
    pub(crate) fn read(root: &SysRoot) -> Option<Self> {
        root.text("proc/meminfo").ok().map(Self)
    }

    /// A number, in KiB.
    pub(crate) fn kib(&self, name: &str) -> Option<u64> {
        let mut lines = self.0.lines();
        let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse().ok()
    }
}

/// A driver that takes this virtual machine's free memory away for its hypervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Balloon {
    pub bus: &'static str,
    pub driver: &'static str,
    /// The device that it drives.
    pub device: String,
}

/// The first balloon that drives a device, if one does.
pub(crate) fn balloon(root: &SysRoot) -> Option<Balloon> {
    BALLOONS.into_iter().find_map(|(bus, driver)| {
        let directory = format!("sys/bus/{bus}/drivers/{driver}");
        let held = root.names(&directory).into_iter().find(|name| {
            // Beside attributes, a driver's directory has a link for each device that it holds.
            root.path(&directory).join(name).is_symlink() && name != "module"
        });
        held.map(|device| Balloon {
            bus,
            driver,
            device,
        })
    })
}

/// The word of the kernel's command line by which hugepages may be in movable memory, if there is
/// one.
#[must_use]
pub fn movable_memory(root: &SysRoot) -> Option<String> {
    let is_movable = |word: &String| MOVABLE.iter().any(|start| word.starts_with(start));
    command_line(root).into_iter().find(is_movable)
}
