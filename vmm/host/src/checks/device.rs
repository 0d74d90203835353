// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Checks one PCI function.

use address::Bdf;
use iommufd_backend::{CdevKind, GroupNode, is_vfio_driver};

use crate::checks::id::Id;
use crate::checks::line::Line;
use crate::checks::rebuild::rebuild;
use crate::checks::units::names;
use crate::checks::{bars, dma_width, interrupts, reset};
use crate::facts::backend::Backend;
use crate::facts::device::{
    FunctionKind, Identity, Siblings, cdev, cdev_kind, driven_in_group, has_vfio_driver,
};
use crate::facts::in_use;
use crate::facts::uses::Use;
use crate::sys_root::SysRoot;

/// What follows where no IOMMU isolates a device.
const UNISOLATED: &str = "no IOMMU isolates it, so you must trust the guest as you trust root on the host. Other \
                          monitors refuse such a device, or start and let its DMA overwrite host memory";

/// All lines about `bdf`, for a run by `backend`.
pub(crate) fn check(root: &SysRoot, bdf: Bdf, backend: Backend) -> Vec<Line> {
    let mut lines = Vec::new();
    match root.pci().driver(bdf) {
        Ok(driver) => {
            lines.push(Line::ok(Id::DeviceExists, identity(root, bdf)));
            lines.extend(check_function(root, bdf, driver.as_deref(), backend));
        }
        Err(error) => lines.push(Line::fail(
            Id::DeviceExists,
            error.to_string(),
            "pinvisor list",
        )),
    }
    lines.into_iter().map(|line| line.of(bdf)).collect()
}

/// The lines about a function that is there, which `driver` has, for a run by `backend`.
fn check_function(root: &SysRoot, bdf: Bdf, driver: Option<&str>, backend: Backend) -> Vec<Line> {
    let id = Id::DeviceType;
    match FunctionKind::of(root, bdf) {
        FunctionKind::Bridge => vec![Line::fail(
            id,
            "This is a bridge: pass through the devices behind it",
            "pinvisor list",
        )],
        FunctionKind::Silent => vec![Line::fail(
            id,
            "It does not respond: its config space reads as all ones",
            silent_hint(bdf),
        )],
        FunctionKind::Device => {
            let siblings = Siblings::of(root, bdf);
            let mut lines = vec![
                Line::ok(id, "A device, not a bridge"),
                check_use(root, bdf),
                check_driver(bdf, driver),
            ];
            if driver.is_some_and(is_vfio_driver) {
                lines.push(match backend {
                    Backend::Cdev => check_cdev(root, bdf),
                    Backend::Group => check_group(root, bdf),
                });
            }
            lines.extend([
                reset::check(root, bdf),
                bars::check(root, bdf),
                interrupts::check(root, bdf),
                dma_width::check(root, bdf),
                check_siblings(root, bdf, &siblings),
            ]);
            lines
        }
    }
}

fn identity(root: &SysRoot, bdf: Bdf) -> String {
    let Identity {
        vendor,
        device,
        class,
    } = Identity::of(root, bdf);
    format!("{vendor:04x}:{device:04x}, class {class:06x}")
}

fn check_use(root: &SysRoot, bdf: Bdf) -> Line {
    let id = Id::DeviceInUse;
    let mut uses = in_use::by_host(root, bdf);
    uses.extend(in_use::by_user(root, bdf));
    if uses.is_empty() {
        return Line::ok(id, "Nothing uses it");
    }
    let texts: Vec<_> = uses.iter().map(ToString::to_string).collect();
    let hints: Vec<_> = uses.iter().map(Use::hint).collect();
    Line::fail(
        id,
        format!("In use: {}", texts.join("; ")),
        hints.join("; "),
    )
}

fn check_driver(bdf: Bdf, driver: Option<&str>) -> Line {
    let id = Id::DeviceDriver;
    match driver {
        Some(driver) if is_vfio_driver(driver) => Line::ok(id, format!("Bound to {driver}")),
        Some(driver) => Line::fail(
            id,
            format!("Bound to its own driver, {driver}, not to vfio-pci"),
            format!("pinvisor bind {bdf}"),
        ),
        None => Line::fail(
            id,
            "Not bound to any driver, including vfio-pci",
            format!("pinvisor bind {bdf}"),
        ),
    }
}

fn check_cdev(root: &SysRoot, bdf: Bdf) -> Line {
    let id = Id::DeviceCdev;
    match cdev(root, bdf) {
        Some(node) if node.exists(root.pci()) => match node.kind() {
            CdevKind::Noiommu => Line::ok(id, format!("{node}: {UNISOLATED}")),
            CdevKind::Iommu => Line::ok(
                id,
                format!("{node}: an IOMMU isolates it; --noiommu is not needed"),
            ),
        },
        Some(node) => Line::fail(
            id,
            format!("{node} does not exist, although the host kernel lists it"),
            "mount | grep /dev  # must show devtmpfs; if it does, boot Linux 7.3 or later",
        ),
        None => Line::fail(
            id,
            "Bound to a VFIO driver, which created no character device",
            rebuild("-e VFIO_DEVICE_CDEV"),
        ),
    }
}

/// As [`check_cdev`], for a device that is opened through its group.
fn check_group(root: &SysRoot, bdf: Bdf) -> Line {
    let id = Id::DeviceCdev;
    if cdev_kind(root, bdf) == CdevKind::Iommu {
        return Line::fail(
            id,
            "An IOMMU isolates it, and groups are for devices without one",
            "omit --backend group",
        );
    }
    match GroupNode::of(root.pci(), bdf) {
        Ok(Some(node)) if node.exists(root.pci()) => Line::ok(id, format!("{node}: {UNISOLATED}")),
        Ok(Some(node)) => Line::fail(
            id,
            format!("{node} does not exist, although the host kernel lists it"),
            "mount | grep /dev  # must show devtmpfs",
        ),
        Ok(None) | Err(_) => Line::fail(
            id,
            "Bound to a VFIO driver, which created no group in noiommu mode (/dev/vfio/noiommu-…)",
            rebuild("-e VFIO_GROUP -e VFIO_CONTAINER -e VFIO_NOIOMMU"),
        ),
    }
}

fn check_siblings(root: &SysRoot, bdf: Bdf, siblings: &Siblings) -> Line {
    let id = Id::DeviceSiblings;
    let driven = driven_in_group(root, bdf);
    if !driven.is_empty() {
        return Line::fail(
            id,
            format!(
                "The IOMMU cannot distinguish it from {}, which has its own driver: VFIO requires \
                 all of an IOMMU group",
                names(&driven, ", ")
            ),
            format!("pinvisor bind {}", names(&driven, " ")),
        );
    }
    if siblings.others.is_empty() || !siblings.is_behind_bridge {
        return Line::ok(id, "It shares neither reset nor requester ID");
    }
    let expected = root.pci().expected_reset(bdf, |_| true);
    let shares_reset = expected.is_ok_and(|method| method.own().is_none());
    let shared = match (shares_reset, siblings.is_conventional) {
        (false, false) => {
            return Line::ok(
                id,
                format!(
                    "On a bus with {}, but with its own reset",
                    names(&siblings.others, ", ")
                ),
            );
        }
        (true, false) => "its bus's reset",
        (false, true) => "its bridge's requester ID (DMA alias)",
        (true, true) => "its bus's reset and its bridge's requester ID (DMA alias)",
    };
    let is_foreign = |other: &Bdf| !has_vfio_driver(root, *other);
    let foreign: Vec<Bdf> = siblings.others.iter().copied().filter(is_foreign).collect();
    let text = format!("Shares {shared} with {}", names(&siblings.others, ", "));
    if foreign.is_empty() {
        return Line::ok(id, format!("{text}, all with VFIO drivers"));
    }
    Line::warn(
        id,
        format!("{text}: operations on one affect all"),
        format!("pinvisor bind {}", names(&foreign, " ")),
    )
}

/// What the user can do about a function that does not respond ([`FunctionKind::Silent`]).
pub(crate) fn silent_hint(bdf: Bdf) -> String {
    format!(
        "dmesg | grep {bdf}  # may show why; if the device hangs, power the host off and on (a \
         reboot may not be enough)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::line::Verdict;
    use crate::sys_root::tests::Fake;

    const BELOW: &str = "sys/devices/pci0000:00/0000:00:08.0";

    fn line(fake: &Fake, bdf: Bdf, id: Id) -> Line {
        let lines = check(&fake.root, bdf, Backend::Cdev);
        lines.into_iter().find(|line| line.id == id).unwrap()
    }

    #[test]
    fn a_device_that_is_not_there_is_one_line() {
        let fake = Fake::new();
        let lines = check(&fake.root, "01:00.0".parse().unwrap(), Backend::Cdev);
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0].verdict, Verdict::Fail);
    }

    #[test]
    fn a_disk_with_its_own_driver_needs_binding() {
        let fake = Fake::new();
        let disk = fake.disk();
        let of = |id| line(&fake, disk, id);
        assert!(of(Id::DeviceDriver).text.starts_with("Not bound"));
        fake.link(
            &format!("{BELOW}/0000:01:00.0/driver"),
            "sys/bus/pci/drivers/nvme",
        );
        let driver = of(Id::DeviceDriver);
        assert_eq!(driver.hint.as_deref(), Some("pinvisor bind 0000:01:00.0"));
        assert_eq!(of(Id::DeviceBars).text, "BAR0 16 KiB at 0xfe800000");
        assert_eq!(of(Id::DeviceReset).text, "By itself (flr)");
        assert_eq!(of(Id::DeviceInterrupts).verdict, Verdict::Warn);
        assert_eq!(of(Id::DeviceSiblings).verdict, Verdict::Ok);
    }

    #[test]
    fn what_shares_a_bus_is_named() {
        let fake = Fake::new();
        let disk = fake.disk();
        let of = |id| line(&fake, disk, id);
        fake.write(&format!("{BELOW}/0000:01:00.1/class"), "0x020000");
        fake.link(
            "sys/bus/pci/devices/0000:01:00.1",
            &format!("{BELOW}/0000:01:00.1"),
        );
        fake.write(&format!("{BELOW}/0000:01:00.0/max_link_speed"), "8");
        assert!(of(Id::DeviceSiblings).text.contains("its own reset"));
        fake.write(&format!("{BELOW}/0000:01:00.0/reset_method"), "bus\n");
        assert!(
            of(Id::DeviceReset)
                .text
                .contains("together with 0000:01:00.1")
        );
        let siblings = of(Id::DeviceSiblings);
        assert_eq!(siblings.verdict, Verdict::Warn);
        assert_eq!(siblings.hint.as_deref(), Some("pinvisor bind 0000:01:00.1"));
        std::fs::remove_file(
            fake.dir
                .path()
                .join(BELOW)
                .join("0000:01:00.0/max_link_speed"),
        )
        .unwrap();
        assert!(of(Id::DeviceSiblings).text.contains("DMA alias"));
    }

    #[test]
    fn an_iommu_group_is_given_away_as_a_whole() {
        let fake = Fake::new();
        let disk = fake.disk();
        let group = "sys/kernel/iommu_groups/7";
        for (member, class) in [
            ("0000:01:00.0", "0x010802"),
            ("0000:01:00.1", "0x020000"),
            ("0000:00:08.0", "0x060400"),
        ] {
            let real = format!("{BELOW}/{member}");
            fake.write(&format!("{real}/class"), class);
            fake.link(&format!("{group}/devices/{member}"), &real);
            fake.link(&format!("{real}/iommu_group"), group);
            if member != "0000:01:00.0" {
                fake.link(&format!("sys/bus/pci/devices/{member}"), &real);
            }
        }
        let siblings = || line(&fake, disk, Id::DeviceSiblings);
        let drive = |member: &str, driver: &str| {
            let driver = format!("sys/bus/pci/drivers/{driver}");
            fake.directory(&driver);
            fake.link(&format!("{BELOW}/{member}/driver"), &driver);
        };
        drive("0000:00:08.0", "pcieport");
        assert_ne!(siblings().verdict, Verdict::Fail);
        drive("0000:01:00.1", "e1000e");
        assert_eq!(siblings().verdict, Verdict::Fail);
        assert_eq!(
            siblings().hint.as_deref(),
            Some("pinvisor bind 0000:01:00.1")
        );
    }

    #[test]
    fn a_device_on_the_root_bus_without_reset_is_refused() {
        let fake = Fake::new();
        fake.write("sys/devices/pci0000:00/0000:00:03.0/class", "0x00ff00");
        fake.link(
            "sys/bus/pci/devices/0000:00:03.0",
            "sys/devices/pci0000:00/0000:00:03.0",
        );
        let bdf = "00:03.0".parse().unwrap();
        let reset = line(&fake, bdf, Id::DeviceReset);
        assert_eq!(reset.verdict, Verdict::Fail);
        assert!(reset.hint.unwrap().contains("reset=none"));
    }

    #[test]
    fn the_node_shows_whether_an_iommu_isolates() {
        let fake = Fake::new();
        let disk = fake.disk();
        let directory = format!("{BELOW}/0000:01:00.0");
        fake.directory("sys/bus/pci/drivers/vfio-pci");
        fake.link(
            &format!("{directory}/driver"),
            "sys/bus/pci/drivers/vfio-pci",
        );
        let cdev = || line(&fake, disk, Id::DeviceCdev);
        assert!(cdev().text.contains("created no character device"));
        fake.directory(&format!("{directory}/vfio-dev/noiommu-vfio0"));
        assert!(cdev().text.contains("does not exist"));
        fake.write("dev/vfio/devices/noiommu-vfio0", "");
        let line = cdev();
        assert_eq!(line.verdict, Verdict::Ok);
        assert!(line.text.contains("as you trust root"));
    }

    #[test]
    fn a_group_is_another_way_to_a_device_without_an_iommu() {
        let fake = Fake::new();
        let disk = fake.disk();
        let directory = format!("{BELOW}/0000:01:00.0");
        fake.directory("sys/bus/pci/drivers/vfio-pci");
        let driver = "sys/bus/pci/drivers/vfio-pci";
        fake.link(&format!("{directory}/driver"), driver);
        let group = || {
            let lines = check(&fake.root, disk, Backend::Group);
            lines.into_iter().find(|line| line.id == Id::DeviceCdev)
        };
        assert!(group().unwrap().text.contains("created no group"));
        let name = "sys/kernel/iommu_groups/3/name";
        fake.write(name, "vfio-noiommu\n");
        fake.link(
            &format!("{directory}/iommu_group"),
            "sys/kernel/iommu_groups/3",
        );
        assert!(group().unwrap().text.contains("does not exist"));
        fake.write("dev/vfio/noiommu-3", "");
        let line = group().unwrap();
        assert_eq!(line.verdict, Verdict::Ok);
        assert!(line.text.starts_with("/dev/vfio/noiommu-3: no IOMMU"));
        fake.write(name, "");
        let behind = group().unwrap();
        assert_eq!(behind.verdict, Verdict::Fail);
        assert_eq!(behind.hint.as_deref(), Some("omit --backend group"));
    }
}
