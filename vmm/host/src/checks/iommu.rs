// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Checks `/dev/iommu`, IOMMUs and the unsafe mode.

use std::io;

use address::Bdf;
use iommufd_backend::CdevKind;

use crate::checks::id::Id;
use crate::checks::line::Line;
use crate::checks::rebuild::rebuild;
use crate::facts::backend::Route;
use crate::facts::device::cdev;
use crate::facts::iommu::{
    UNSAFE_INTERRUPTS, allows_unsafe_interrupts, iommus, open_iommufd, remaps_interrupts,
};
use crate::sys_root::SysRoot;

/// [`Id::Iommufd`]
pub(crate) fn check_iommufd(root: &SysRoot, route: Route) -> Line {
    let id = Id::Iommufd;
    if route.is_group() {
        return Line::ok(
            id,
            "/dev/iommu is not needed: devices are opened through their groups",
        );
    }
    match open_iommufd(root) {
        Ok(()) => Line::ok(id, "/dev/iommu opens"),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound => Line::fail(
                id,
                "/dev/iommu does not exist: the host kernel lacks CONFIG_IOMMUFD, or its module is \
                 not loaded",
                "modprobe iommufd",
            ),
            io::ErrorKind::PermissionDenied => Line::fail(
                id,
                "Cannot open /dev/iommu: permission denied",
                "run as root: sudo pinvisor ...",
            ),
            _ => Line::fail(
                id,
                format!("Cannot open /dev/iommu: {error}"),
                "ls -l /dev/iommu",
            ),
        },
    }
}

/// [`Id::Iommu`]
pub(crate) fn check_iommu(root: &SysRoot, devices: &[Bdf], noiommu: bool) -> Line {
    let id = Id::Iommu;
    let iommus = iommus(root).join(", ");
    if iommus.is_empty() {
        return Line::ok(
            id,
            "The host has no IOMMU, or it is disabled: noiommu mode is for such hosts",
        );
    }
    if !noiommu && !remaps_interrupts(root) {
        let text = format!(
            "The host's IOMMU ({iommus}) does not remap interrupts: a device behind it can raise \
             any interrupt of the host"
        );
        return if allows_unsafe_interrupts(root) {
            Line::warn(
                id,
                format!("{text}, which the host kernel is configured to allow"),
                format!("echo 0 > /{UNSAFE_INTERRUPTS}  # to disallow it again"),
            )
        } else {
            Line::fail(
                id,
                format!("{text}, so the host kernel refuses to assign devices"),
                format!(
                    "enable interrupt remapping in the host's firmware, and boot the host without \
                     intremap=off; or, if the guest is trusted: echo 1 > /{UNSAFE_INTERRUPTS}"
                ),
            )
        };
    }
    if !noiommu && !devices.is_empty() {
        return Line::ok(
            id,
            format!("An IOMMU ({iommus}) isolates the devices; --noiommu is not needed"),
        );
    }
    Line::warn(
        id,
        format!(
            "The host has an IOMMU ({iommus}), which isolates devices: noiommu mode is not \
             needed, nor is --noiommu for devices behind it"
        ),
        "omit --noiommu; to disable the IOMMU, boot the host with intel_iommu=off or amd_iommu=off",
    )
}

/// [`Id::UnsafeMode`]
pub(crate) fn check_unsafe_mode(root: &SysRoot, devices: &[Bdf], route: Route) -> Line {
    let id = Id::UnsafeMode;
    const SWITCH: &str = "echo 1 > /sys/module/vfio/parameters/enable_unsafe_noiommu_mode";
    if !route.is_noiommu() {
        return Line::ok(id, "Not needed: an IOMMU translates");
    }
    let is_bound =
        |bdf: &Bdf| cdev(root, *bdf).is_some_and(|node| node.kind() == CdevKind::Noiommu);
    match root.pci().unsafe_noiommu_mode() {
        Some(true) if route.is_group() => {
            Line::ok(id, "On, which devices with groups require for each run")
        }
        // drivers/vfio/container.c vfio_noiommu_ioctl
        Some(false) if route.is_group() => Line::fail(
            id,
            "Off: the host kernel requires it to bind a device that no IOMMU isolates, and to open it through its group",
            SWITCH,
        ),
        Some(true) => Line::ok(
            id,
            "On. The kernel checks it only when a device is bound; it can be switched off after \
             that",
        ),
        Some(false) if !devices.is_empty() && devices.iter().all(is_bound) => Line::ok(
            id,
            "Off, but the kernel checks it only when a device is bound: these devices were bound \
             while it was on, and continue to work",
        ),
        Some(false) => Line::fail(
            id,
            "Off: the host kernel does not allow binding a device that no IOMMU isolates",
            SWITCH,
        ),
        None if root.exists("sys/module/vfio") => Line::fail(
            id,
            "The host kernel has no such mode: it was built without CONFIG_VFIO_NOIOMMU",
            rebuild("-e VFIO_NOIOMMU"),
        ),
        None => Line::fail(
            id,
            "The host kernel's module vfio is not loaded, or does not exist",
            format!("modprobe vfio-pci && {SWITCH}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::line::Verdict;
    use crate::facts::backend::Backend;
    use crate::sys_root::tests::Fake;

    const CDEV: Route = Route::Noiommu(Backend::Cdev);
    const GROUP: Route = Route::Noiommu(Backend::Group);

    #[test]
    fn absent_and_present_nodes_are_distinguished() {
        let fake = Fake::new();
        assert!(
            check_iommufd(&fake.root, CDEV)
                .text
                .contains("/dev/iommu does not exist")
        );
        let group = check_iommufd(&fake.root, GROUP);
        assert_eq!(group.verdict, Verdict::Ok);
        fake.write("dev/iommu", "");
        assert_eq!(check_iommufd(&fake.root, CDEV).verdict, Verdict::Ok);
        let strange = Fake::new();
        strange.directory("dev/iommu");
        assert!(
            check_iommufd(&strange.root, CDEV)
                .text
                .contains("Cannot open")
        );
    }

    #[test]
    fn an_iommu_is_a_warning_to_those_who_have_no_device_behind_it() {
        let fake = Fake::new();
        let disk = fake.disk();
        let judge = |devices: &[Bdf], noiommu| check_iommu(&fake.root, devices, noiommu);
        assert_eq!(judge(&[], true).verdict, Verdict::Ok);
        fake.directory("sys/class/iommu/dmar0");
        fake.write("proc/interrupts", "  0:  9   IR-IO-APIC   2-edge  timer\n");
        let line = judge(&[], false);
        assert_eq!(line.verdict, Verdict::Warn);
        assert!(line.text.contains("dmar0"));
        assert_eq!(judge(&[disk], true).verdict, Verdict::Warn);
        assert_eq!(judge(&[disk], false).verdict, Verdict::Ok);
    }

    #[test]
    fn an_iommu_that_does_not_remap_interrupts_is_not_enough() {
        let fake = Fake::new();
        let disk = fake.disk();
        fake.directory("sys/class/iommu/dmar0");
        fake.write("proc/interrupts", "  0:  9   IO-APIC   2-edge  timer\n");
        let judge = |noiommu| check_iommu(&fake.root, &[disk], noiommu);
        let line = judge(false);
        assert_eq!(line.verdict, Verdict::Fail);
        assert!(line.hint.unwrap().contains("intremap"));
        // Without an IOMMU interrupts are not remapped either.
        assert!(judge(true).text.contains("noiommu mode is not needed"));
        fake.write(UNSAFE_INTERRUPTS, "Y\n");
        assert_eq!(judge(false).verdict, Verdict::Warn);
    }

    #[test]
    fn unsafe_mode_matters_until_devices_are_bound() {
        let fake = Fake::new();
        let disk = fake.disk();
        let judge = |devices: &[Bdf]| check_unsafe_mode(&fake.root, devices, CDEV);
        assert!(judge(&[]).text.contains("not loaded"));
        fake.directory("sys/module/vfio");
        assert!(judge(&[]).text.contains("CONFIG_VFIO_NOIOMMU"));
        let switch = "sys/module/vfio/parameters/enable_unsafe_noiommu_mode";
        fake.write(switch, "N\n");
        assert_eq!(judge(&[disk]).verdict, Verdict::Fail);
        fake.directory("sys/bus/pci/devices/0000:01:00.0/vfio-dev/noiommu-vfio0");
        let off = judge(&[disk]);
        assert_eq!(off.verdict, Verdict::Ok);
        assert!(off.text.contains("continue to work"));
        assert_eq!(judge(&[]).verdict, Verdict::Fail);
        let group = |devices: &[Bdf]| check_unsafe_mode(&fake.root, devices, GROUP).verdict;
        assert_eq!(group(&[disk]), Verdict::Fail, "opening needs it, too");
        fake.write(switch, "Y\n");
        assert_eq!(group(&[disk]), Verdict::Ok);
        assert_eq!(judge(&[]).verdict, Verdict::Ok);
        let behind = check_unsafe_mode(&fake.root, &[], Route::Iommu);
        assert_eq!(behind.verdict, Verdict::Ok);
    }
}
