// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `/dev/iommu` and IOMMUs.

use std::fs::OpenOptions;
use std::io;

use crate::sys_root::SysRoot;

/// Whether `/dev/iommu` opens as a run opens it.
pub(crate) fn open_iommufd(root: &SysRoot) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    options.open(root.path("dev/iommu")).map(drop)
}

/// The kernel's switch for IOMMUs that keep no interrupts in check
/// (drivers/iommu/iommufd/device.c iommufd_device_bind).
pub(crate) const UNSAFE_INTERRUPTS: &str = "sys/module/iommufd/parameters/allow_unsafe_interrupts";

/// Whether the IOMMU remaps interrupts of devices, too: the names of interrupt controllers behind
/// one begin with `IR-` (drivers/iommu/intel/irq_remapping.c, drivers/iommu/amd/iommu.c).
pub(crate) fn remaps_interrupts(root: &SysRoot) -> bool {
    root.word("proc/interrupts").contains(" IR-")
}

/// Whether the kernel gives away devices whose interrupts no IOMMU remaps.
pub(crate) fn allows_unsafe_interrupts(root: &SysRoot) -> bool {
    root.word(UNSAFE_INTERRUPTS) == "Y"
}

/// The names of the machine's IOMMUs.
pub(crate) fn iommus(root: &SysRoot) -> Vec<String> {
    root.names("sys/class/iommu")
}
