//! `/sys`: containers may lack it, or have it read-only.

use std::fs;

use rustix::fs::{StatVfsMountFlags, statvfs};

use crate::checks::id::Id;
use crate::checks::line::Line;
use crate::sys_root::SysRoot;

/// [`Id::Sysfs`]
pub(crate) fn check(root: &SysRoot) -> Line {
    let id = Id::Sysfs;
    if let Err(error) = fs::read_dir(root.path("sys/bus/pci/devices")) {
        return Line::fail(
            id,
            format!("/sys/bus/pci/devices, which lists PCI devices, cannot be read: {error}"),
            "mount -t sysfs sysfs /sys  # in a container: let the host's in",
        );
    }
    // One whose flags cannot be read is taken for writable: writing tells.
    let flags = statvfs(root.path("sys")).map(|found| found.f_flag);
    judge(flags.unwrap_or(StatVfsMountFlags::empty()))
}

fn judge(flags: StatVfsMountFlags) -> Line {
    let id = Id::Sysfs;
    if flags.contains(StatVfsMountFlags::RDONLY) {
        return Line::warn(
            id,
            "/sys is read-only: devices cannot be bound to vfio-pci here, and guest memory stays \
             pinned where only a reset through /sys would end a device's DMA",
            "mount -o remount,bind,rw /sys",
        );
    }
    Line::ok(id, "/sys lists PCI devices, and can be written to")
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
        let flags = StatVfsMountFlags::NOSUID | StatVfsMountFlags::RDONLY;
        let line = judge(flags);
        assert_eq!(line.verdict, Verdict::Warn);
        assert!(line.text.contains("read-only"), "{}", line.text);
        assert_eq!(judge(StatVfsMountFlags::NOSUID).verdict, Verdict::Ok);
    }
}
