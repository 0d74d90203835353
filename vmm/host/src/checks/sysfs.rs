// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Checks `/sys`.

use crate::checks::id::Id;
use crate::checks::line::Line;
use crate::facts::sysfs::{is_read_only, lists_devices};
use crate::sys_root::SysRoot;

/// [`Id::Sysfs`]
pub(crate) fn check(root: &SysRoot) -> Line {
    let id = Id::Sysfs;
    if let Err(error) = lists_devices(root) {
        return Line::fail(
            id,
            format!("/sys/bus/pci/devices, which lists PCI devices, cannot be read: {error}"),
            "mount -t sysfs sysfs /sys  # in a container: mount the host's",
        );
    }
    judge(is_read_only(root))
}

fn judge(is_read_only: bool) -> Line {
    let id = Id::Sysfs;
    if is_read_only {
        return Line::warn(
            id,
            "/sys is read-only: devices cannot be bound to vfio-pci here, and guest memory stays \
             pinned if only a reset through /sys can stop a device's DMA",
            "mount -o remount,bind,rw /sys",
        );
    }
    Line::ok(id, "/sys lists PCI devices and is writable")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::line::Verdict;
    use crate::sys_root::tests::Fake;

    #[test]
    fn without_sysfs_no_device_is_found() {
        let fake = Fake::new();
        let line = check(&fake.root);
        assert_eq!(line.verdict, Verdict::Fail);
        assert!(line.hint.unwrap().starts_with("mount -t sysfs"));
        fake.disk();
        assert_eq!(check(&fake.root).verdict, Verdict::Ok);
    }

    #[test]
    fn a_read_only_sysfs_is_a_warning() {
        let line = judge(true);
        assert_eq!(line.verdict, Verdict::Warn);
        assert!(line.text.contains("read-only"), "{}", line.text);
        assert_eq!(judge(false).verdict, Verdict::Ok);
    }
}
