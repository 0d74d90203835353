// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `/sys`: containers may lack it, or have it read-only.

use std::{fs, io};

use rustix::fs::{StatVfsMountFlags, statvfs};

use crate::sys_root::SysRoot;

/// Whether it lists PCI devices.
pub(crate) fn lists_devices(root: &SysRoot) -> io::Result<()> {
    fs::read_dir(root.path("sys/bus/pci/devices")).map(drop)
}

/// Whether nothing can be written to it. One whose flags cannot be read is taken for writable: a write
/// will show.
pub(crate) fn is_read_only(root: &SysRoot) -> bool {
    let found = statvfs(root.path("sys"));
    found.is_ok_and(|found| has_read_only(found.f_flag))
}

fn has_read_only(flags: StatVfsMountFlags) -> bool {
    flags.contains(StatVfsMountFlags::RDONLY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_flag_counts() {
        let flags = StatVfsMountFlags::NOSUID | StatVfsMountFlags::RDONLY;
        assert!(has_read_only(flags));
        assert!(!has_read_only(StatVfsMountFlags::NOSUID));
    }
}
