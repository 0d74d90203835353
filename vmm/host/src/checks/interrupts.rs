// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Judges the interrupts of a PCI function.

use address::Bdf;

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
    let mut kinds = Vec::new();
    if config.intx {
        kinds.push("INTx".to_owned());
    }
    let Some((msi, msix)) = config.messages else {
        kinds.push("whether MSI and MSI-X, only root can see".to_owned());
        return Line::ok(id, kinds.join(", "));
    };
    let refusal = no_messages(root, bdf);
    if let (Some(reason), true) = (refusal, msi > 0 || msix > 0) {
        let reason = match reason {
            NoMessages::CommandLine => "the kernel was booted with pci=nomsi".to_owned(),
            NoMessages::MsiBus(function) => format!("msi_bus of {function} is 0"),
        };
        let (now, without) = match config.intx {
            true => ("a guest sees INTx alone", ""),
            false => (
                "a guest sees no interrupts",
                ": only a driver that polls can use it",
            ),
        };
        return Line::warn(
            id,
            format!(
                "It has MSI or MSI-X, which the host does not serve ({reason}): {now}{without}"
            ),
            "boot without pci=nomsi, or put it into another slot",
        );
    }
    if msi > 0 {
        let one = if cdev_kind(root, bdf).msi_vectors(msi) < msi {
            ", of which a guest gets 1 where there is no IOMMU"
        } else {
            ""
        };
        kinds.push(format!("MSI ({msi}{one})"));
    }
    if msix > 0 {
        kinds.push(format!("MSI-X ({msix})"));
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
        assert!(line().text.contains("INTx alone"), "{}", line().text);
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
