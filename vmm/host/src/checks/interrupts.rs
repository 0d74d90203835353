// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Checks the interrupts of a PCI function.

use address::Bdf;
use pci_config::InterruptKind;

use crate::checks::id::Id;
use crate::checks::line::Line;
use crate::facts::config_space::ConfigSpace;
use crate::facts::device::cdev_kind;
use crate::facts::interrupts::{NoMessages, no_messages};
use crate::sys_root::SysRoot;

pub(crate) fn check(root: &SysRoot, bdf: Bdf) -> Line {
    let id = Id::DeviceInterrupts;
    let bytes = root.pci().config_space(bdf).unwrap_or_default();
    let Some(config) = ConfigSpace::read(&bytes) else {
        return Line::warn(
            id,
            "Its config space cannot be read",
            format!("xxd /sys/bus/pci/devices/{bdf}/config"),
        );
    };
    let vectors = |kind| config.interrupts[kind];
    let messages = || {
        InterruptKind::ALL
            .into_iter()
            .filter(|kind| kind.is_message())
    };
    let has_line = vectors(InterruptKind::Intx) > 0;
    let mut kinds = Vec::new();
    if has_line {
        kinds.push(InterruptKind::Intx.to_string());
    }
    if config.hides_capabilities {
        let names: Vec<_> = messages().map(InterruptKind::name).collect();
        kinds.push(format!("{} are visible to root only", names.join(" and ")));
        return Line::ok(id, kinds.join(", "));
    }
    if let Some(reason) = no_messages(root, bdf)
        && messages().any(|kind| vectors(kind) > 0)
    {
        return without_messages(reason, has_line);
    }
    for kind in messages().filter(|kind| vectors(*kind) > 0) {
        let (has, gets) = (
            vectors(kind),
            cdev_kind(root, bdf).vectors(kind, vectors(kind)),
        );
        let fewer = match gets < has {
            true => format!(", of which a guest gets {gets} without an IOMMU"),
            false => String::new(),
        };
        kinds.push(format!("{kind} ({has}{fewer})"));
    }
    if kinds.is_empty() {
        return Line::warn(
            id,
            "It has no interrupts: only a driver that polls can use it",
            format!("lspci -vvs {bdf}"),
        );
    }
    Line::ok(id, kinds.join(", "))
}

/// A device whose messages the host does not support.
fn without_messages(reason: NoMessages, has_line: bool) -> Line {
    let reason = match reason {
        NoMessages::CommandLine => "the host was booted with pci=nomsi".to_owned(),
        NoMessages::MsiBus(function) => format!("msi_bus of {function} is 0"),
    };
    let (now, without) = match has_line {
        true => ("a guest sees only INTx", ""),
        false => (
            "a guest sees no interrupts",
            ": only a driver that polls can use it",
        ),
    };
    Line::warn(
        Id::DeviceInterrupts,
        format!("It has MSI or MSI-X, which the host does not support ({reason}): {now}{without}"),
        "boot the host without pci=nomsi, or move the device to another slot",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::line::Verdict;
    use crate::sys_root::tests::Fake;

    const BELOW: &str = "sys/devices/pci0000:00/0000:00:08.0";

    /// A disk with MSI-X, and INTx by its pin.
    fn fake(pin: u8) -> (Fake, Bdf) {
        let fake = Fake::new();
        let disk = fake.disk();
        let mut config = vec![0; 256];
        (config[0x06], config[0x34], config[0x3d]) = (0x10, 0x40, pin);
        config[0x40..0x44].copy_from_slice(&[0x11, 0, 7, 0]);
        let path = fake.dir.path().join(BELOW).join("0000:01:00.0/config");
        std::fs::write(path, config).unwrap();
        (fake, disk)
    }

    #[test]
    fn a_host_without_messages_is_noticed() {
        let (fake, disk) = fake(1);
        let line = || check(&fake.root, disk);
        assert_eq!(line().text, "INTx, MSI-X (8)");
        for other in ["quiet pci=noaer pcie=nomsi", "pci=nomsix"] {
            fake.write("proc/cmdline", other);
            assert_eq!(line().verdict, Verdict::Ok, "{other}");
        }
        fake.write("proc/cmdline", "quiet pci=noaer,nomsi splash");
        assert_eq!(line().verdict, Verdict::Warn);
        assert!(line().text.contains("sees only INTx"), "{}", line().text);
        fake.write("proc/cmdline", "quiet");
        fake.link("sys/bus/pci/devices/0000:00:08.0", BELOW);
        for place in ["0000:01:00.0/msi_bus", "msi_bus"] {
            fake.write(&format!("{BELOW}/{place}"), "1\n");
            assert_eq!(line().verdict, Verdict::Ok, "{place}");
            fake.write(&format!("{BELOW}/{place}"), "0\n");
            assert_eq!(line().verdict, Verdict::Warn, "{place}");
            fake.write(&format!("{BELOW}/{place}"), "1\n");
        }
    }

    #[test]
    fn without_a_pin_nothing_is_left() {
        let (fake, disk) = fake(0);
        assert_eq!(check(&fake.root, disk).text, "MSI-X (8)");
        fake.write("proc/cmdline", "pci=nomsi");
        let text = check(&fake.root, disk).text;
        assert!(text.contains("only a driver that polls"), "{text}");
    }
}
