//! Judging one PCI function.

use address::Bdf;
use iommufd_backend::{Cdev, CdevKind, NODES, RegionKind, Resource, TranslatedBar, strongest};

use crate::bind::is_bridge;
use crate::checks::id::Id;
use crate::checks::interrupts;
use crate::checks::line::Line;
use crate::checks::reset::{self, Siblings};
use crate::facts::config_space::{is_silent, silent_hint};
use crate::facts::in_use;
use crate::facts::memory::end_of_memory;
use crate::sys_root::{SysRoot, size};

/// All lines about `bdf`.
pub(crate) fn check(root: &SysRoot, bdf: Bdf) -> Vec<Line> {
    let mut lines = Vec::new();
    let driver = match root.pci().driver(bdf) {
        Ok(driver) => {
            lines.push(Line::ok(Id::DeviceExists, identity(root, bdf)));
            driver
        }
        Err(error) => {
            let line = Line::fail(Id::DeviceExists, error.to_string(), "pinvisor list");
            return vec![line.of(bdf)];
        }
    };
    if is_bridge(root, bdf) {
        lines.push(Line::fail(
            Id::DeviceType,
            "This is a bridge: pass through the devices behind it",
            "pinvisor list",
        ));
    } else if is_silent(&root.pci().config_space(bdf).unwrap_or_default()) {
        lines.push(Line::fail(
            Id::DeviceType,
            "It does not respond: its config space reads as all ones",
            silent_hint(bdf),
        ));
    } else {
        let siblings = Siblings::of(root, bdf);
        lines.push(Line::ok(Id::DeviceType, "A device, no bridge"));
        lines.push(check_use(root, bdf));
        lines.push(check_driver(bdf, driver.as_deref()));
        if driver.as_deref().is_some_and(is_vfio) {
            lines.push(check_cdev(root, bdf));
        }
        lines.push(reset::check(root, bdf, &siblings));
        lines.push(check_bars(root, bdf));
        lines.push(interrupts::check(root, bdf));
        lines.push(check_dma_width(root, bdf));
        lines.push(check_siblings(root, bdf, &siblings));
    }
    lines.into_iter().map(|line| line.of(bdf)).collect()
}

fn is_vfio(driver: &str) -> bool {
    driver.contains("vfio")
}

fn identity(root: &SysRoot, bdf: Bdf) -> String {
    let number = |name| root.pci().number(bdf, name).unwrap_or(0);
    format!(
        "{:04x}:{:04x}, class {:06x}",
        number("vendor"),
        number("device"),
        number("class")
    )
}

fn check_use(root: &SysRoot, bdf: Bdf) -> Line {
    let id = Id::DeviceInUse;
    let mut uses = in_use::by_host(root, bdf);
    uses.extend(in_use::by_user(root, bdf));
    if uses.is_empty() {
        return Line::ok(id, "Nothing uses it");
    }
    let texts: Vec<_> = uses.iter().map(ToString::to_string).collect();
    let hints: Vec<_> = uses.iter().map(in_use::Use::hint).collect();
    Line::fail(
        id,
        format!("In use: {}", texts.join("; ")),
        hints.join("; "),
    )
}

fn check_driver(bdf: Bdf, driver: Option<&str>) -> Line {
    let id = Id::DeviceDriver;
    match driver {
        Some(driver) if is_vfio(driver) => Line::ok(id, format!("Bound to {driver}")),
        Some(driver) => Line::fail(
            id,
            format!("Its own driver, {driver}, has it, not vfio-pci"),
            format!("pinvisor bind {bdf}"),
        ),
        None => Line::fail(
            id,
            "No driver has it, not vfio-pci either",
            format!("pinvisor bind {bdf}"),
        ),
    }
}

fn check_cdev(root: &SysRoot, bdf: Bdf) -> Line {
    let id = Id::DeviceCdev;
    let found = Cdev::name(root.pci(), bdf).ok().flatten();
    let node = found.map(|(name, kind)| (format!("{NODES}/{name}"), kind));
    match node {
        Some((node, kind)) if root.exists(node.trim_start_matches('/')) => match kind {
            CdevKind::Noiommu => Line::ok(
                id,
                format!(
                    "{node}: no IOMMU stands before it, so its guest is trusted like root. Other \
                     monitors refuse such a device, or start and let its DMA overwrite the host"
                ),
            ),
            CdevKind::Iommu => Line::ok(
                id,
                format!("{node}: an IOMMU stands before it; --noiommu is not needed"),
            ),
        },
        Some((node, _)) => Line::fail(
            id,
            format!("{node} is not there, though the kernel lists it"),
            "mount | grep /dev  # devtmpfs? If it is: Linux 7.3 or later is needed",
        ),
        None => Line::fail(
            id,
            "A VFIO driver has it, but made no character device",
            "in the kernel's source: scripts/config -e VFIO_DEVICE_CDEV && make olddefconfig \
             bzImage",
        ),
    }
}

/// Whether it is a PCI Express function: only those have the speed of a link
/// (drivers/pci/pci-sysfs.c pcie_dev_attrs_are_visible).
pub(crate) fn is_express(root: &SysRoot, bdf: Bdf) -> bool {
    root.exists(&format!("sys/bus/pci/devices/{bdf}/max_link_speed"))
}

fn check_bars(root: &SysRoot, bdf: Bdf) -> Line {
    let id = Id::DeviceBars;
    let resources = match root.pci().resources(bdf) {
        Ok(resources) => resources,
        Err(error) => {
            return Line::fail(id, error.to_string(), format!("lspci -vs {bdf}"));
        }
    };
    let bars: Vec<(usize, Resource)> = resources
        .into_iter()
        .take(6)
        .enumerate()
        .filter_map(|(index, bar)| Some((index, bar?)))
        .collect();
    if bars.is_empty() {
        return Line::ok(id, "It has none");
    }
    let texts: Vec<_> = bars
        .iter()
        .map(|(index, bar)| bar_text(*index, *bar))
        .collect();
    let text = texts.join(", ");
    let is_lost = |bar: &Resource| bar.kind == RegionKind::Memory && bar.start.is_none();
    if bars.iter().any(|(_, bar)| is_lost(bar)) {
        return Line::fail(
            id,
            format!("{text}: the host has no place for a BAR, so the guest has none either"),
            "boot with pci=realloc",
        );
    }
    // Where an IOMMU translates, a device is given no address of the CPU's.
    let translated = match cfg!(target_arch = "x86_64") && !root.is_behind_iommu(bdf) {
        true => root.pci().translated_bar(bdf).ok().flatten(),
        false => None,
    };
    if let Some(TranslatedBar { bar, bus, .. }) = translated {
        return Line::fail(
            id,
            format!(
                "{text}; but BAR{bar} is at {bus:#x} on the device's bus: addresses mean something \
                 else to the device than to the CPU"
            ),
            format!("lspci -vvt  # which bridge translates for {bdf}? Another slot may do"),
        );
    }
    Line::ok(id, text)
}

fn bar_text(index: usize, bar: Resource) -> String {
    match (bar.kind, bar.start) {
        (RegionKind::Ports, _) => format!("BAR{index} {} ports", bar.size),
        (RegionKind::Memory, Some(start)) => {
            format!("BAR{index} {} at {start:#x}", size(bar.size))
        }
        (RegionKind::Memory, None) => format!("BAR{index} {} nowhere", size(bar.size)),
    }
}

fn check_dma_width(root: &SysRoot, bdf: Bdf) -> Line {
    let id = Id::DeviceDmaWidth;
    let width = root.pci().dma_width(bdf);
    let end = end_of_memory(root);
    let bits = match width.known() {
        Some(bits) => format!("{bits} address bits, as the last driver on the host set them"),
        None => format!(
            "{} address bits, since the kernel reports none",
            width.bits()
        ),
    };
    if root.is_behind_iommu(bdf) {
        return Line::ok(id, format!("{bits}; an IOMMU translates"));
    }
    if width.reaches(end) {
        return Line::ok(id, format!("{bits}; memory ends at {end}"));
    }
    Line::warn(
        id,
        format!(
            "{bits} (32 if it never had one), and memory ends at {end}: a guest that has none \
             below {} may not be able to use it",
            size(1_u64.checked_shl(width.bits()).unwrap_or(u64::MAX))
        ),
        format!("pinvisor plan --noiommu --device {bdf} ...  # shows what is below 4 GiB"),
    )
}

/// The functions that the device's IOMMU cannot tell from it, and that a driver of their own has: the
/// kernel gives a group of them away as a whole, ports and bridges apart
/// (drivers/iommu/iommu.c iommu_device_claim_dma_owner).
fn driven_in_group(root: &SysRoot, bdf: Bdf) -> Vec<Bdf> {
    if !root.is_behind_iommu(bdf) {
        return Vec::new();
    }
    let members = root.names(format!("sys/bus/pci/devices/{bdf}/iommu_group/devices"));
    let members = members.iter().filter_map(|name| name.parse::<Bdf>().ok());
    let has_own_driver = |other: &Bdf| {
        let driver = root.pci().driver(*other).ok().flatten();
        driver.is_some_and(|driver| !is_vfio(&driver))
    };
    members
        .filter(|other| *other != bdf && !is_bridge(root, *other) && has_own_driver(other))
        .collect()
}

fn check_siblings(root: &SysRoot, bdf: Bdf, siblings: &Siblings) -> Line {
    let id = Id::DeviceSiblings;
    let driven = driven_in_group(root, bdf);
    if !driven.is_empty() {
        return Line::fail(
            id,
            format!(
                "The IOMMU cannot tell it from {}, which has a driver of its own: the kernel \
                 gives a group away as a whole",
                names(&driven, ", ")
            ),
            format!("pinvisor bind {}", names(&driven, " ")),
        );
    }
    if siblings.others.is_empty() || !siblings.is_behind_bridge {
        return Line::ok(id, "It shares neither reset nor requester ID");
    }
    let methods = root.pci().reset_methods(bdf).unwrap_or_default();
    let shares_reset = strongest(&methods).is_none_or(|method| method.contains("bus"));
    let shared = match (shares_reset, siblings.is_conventional) {
        (false, false) => {
            return Line::ok(
                id,
                format!(
                    "On a bus with {}, but with a reset of its own",
                    names(&siblings.others, ", ")
                ),
            );
        }
        (true, false) => "its bus's reset",
        (false, true) => "its bridge's requester ID (DMA alias)",
        (true, true) => "its bus's reset and its bridge's requester ID (DMA alias)",
    };
    let is_foreign = |other: &Bdf| {
        let driver = root.pci().driver(*other).ok().flatten();
        !driver.as_deref().is_some_and(is_vfio)
    };
    let foreign: Vec<Bdf> = siblings.others.iter().copied().filter(is_foreign).collect();
    let text = format!("Shares {shared} with {}", names(&siblings.others, ", "));
    if foreign.is_empty() {
        return Line::ok(id, format!("{text}, all with VFIO drivers"));
    }
    Line::warn(
        id,
        format!("{text}: what is done to one is done to all"),
        format!("pinvisor bind {}", names(&foreign, " ")),
    )
}

pub(crate) fn names(list: &[Bdf], between: &str) -> String {
    let names: Vec<_> = list.iter().map(Bdf::to_string).collect();
    names.join(between)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::line::Verdict;
    use crate::sys_root::tests::Fake;

    const BELOW: &str = "sys/devices/pci0000:00/0000:00:08.0";

    fn line(fake: &Fake, bdf: Bdf, id: Id) -> Line {
        let lines = check(&fake.root, bdf);
        lines.into_iter().find(|line| line.id == id).unwrap()
    }

    #[test]
    fn a_device_that_is_not_there_is_one_line() {
        let fake = Fake::new();
        let lines = check(&fake.root, "01:00.0".parse().unwrap());
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0].verdict, Verdict::Fail);
    }

    #[test]
    fn a_disk_with_its_own_driver_wants_binding() {
        let fake = Fake::new();
        let disk = fake.disk();
        let of = |id| line(&fake, disk, id);
        assert!(of(Id::DeviceDriver).text.starts_with("No driver"));
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
        assert!(of(Id::DeviceSiblings).text.contains("a reset of its own"));
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
    fn dma_reaches_as_far_as_the_kernel_says_whatever_the_bus() {
        let fake = Fake::new();
        let disk = fake.disk();
        let width = || line(&fake, disk, Id::DeviceDmaWidth);
        fake.write("proc/iomem", "00001000-7fffffff : System RAM\n");
        assert_eq!(width().verdict, Verdict::Ok);
        fake.write("proc/iomem", "100000000-1ffffffff : System RAM\n");
        // A PCI Express function, of which the kernel reports nothing, 32 and 64 bits.
        fake.write(&format!("{BELOW}/0000:01:00.0/max_link_speed"), "8");
        assert_eq!(width().verdict, Verdict::Warn);
        for (bits, verdict) in [("32\n", Verdict::Warn), ("64\n", Verdict::Ok)] {
            fake.write(&format!("{BELOW}/0000:01:00.0/dma_mask_bits"), bits);
            assert_eq!(width().verdict, verdict, "{bits}");
            assert!(width().text.starts_with(bits.trim()));
        }
        // A conventional one with 40 bits.
        std::fs::remove_file(
            fake.dir
                .path()
                .join(BELOW)
                .join("0000:01:00.0/max_link_speed"),
        )
        .unwrap();
        fake.write(&format!("{BELOW}/0000:01:00.0/dma_mask_bits"), "40\n");
        assert_eq!(width().verdict, Verdict::Ok);
        fake.write("proc/iomem", "100000000-1ffffffffff : System RAM\n");
        let narrow = width();
        assert_eq!(narrow.verdict, Verdict::Warn);
        assert!(narrow.text.contains("below 1 TiB"), "{}", narrow.text);
        fake.link(
            &format!("{BELOW}/0000:01:00.0/iommu_group"),
            "sys/kernel/iommu_groups/7",
        );
        fake.directory("sys/kernel/iommu_groups/7");
        assert_eq!(width().verdict, Verdict::Ok);
    }

    #[test]
    fn a_bar_without_a_place_and_a_garbled_one_are_refused() {
        let fake = Fake::new();
        let disk = fake.disk();
        for text in ["0x0 0x3fff 0x140204\n", "nonsense\n"] {
            fake.write(&format!("{BELOW}/0000:01:00.0/resource"), text);
            assert_eq!(line(&fake, disk, Id::DeviceBars).verdict, Verdict::Fail);
        }
    }

    #[test]
    fn the_node_tells_whether_an_iommu_stands_before() {
        let fake = Fake::new();
        let disk = fake.disk();
        let directory = format!("{BELOW}/0000:01:00.0");
        fake.directory("sys/bus/pci/drivers/vfio-pci");
        fake.link(
            &format!("{directory}/driver"),
            "sys/bus/pci/drivers/vfio-pci",
        );
        let cdev = || line(&fake, disk, Id::DeviceCdev);
        assert!(cdev().text.contains("made no character device"));
        fake.directory(&format!("{directory}/vfio-dev/noiommu-vfio0"));
        assert!(cdev().text.contains("is not there"));
        fake.write("dev/vfio/devices/noiommu-vfio0", "");
        let line = cdev();
        assert_eq!(line.verdict, Verdict::Ok);
        assert!(line.text.contains("trusted like root"));
    }
}
