// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The devices that can be passed through.

use std::io::{self, Write};

use address::Bdf;
use iommufd_backend::{CdevKind, ResetMethod};
use keeper::Found;
use serde::Serialize;

use crate::arch;
use crate::checks::{host_bridge, kept};
use crate::facts::backend::{Node, node, present_cdev, present_group};
use crate::facts::device::{FunctionKind, Identity, cdev};
use crate::facts::in_use;
use crate::facts::kept::keepers;
use crate::facts::names::Names;
use crate::sys_root::SysRoot;

/// Version of the form of [`Devices::write_json`].
const JSON_VERSION: u32 = 1;

/// Whether an IOMMU isolates a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// None does.
    Noiommu,
    /// One does.
    Iommu,
}

impl Mode {
    fn word(self) -> &'static str {
        match self {
            Self::Noiommu => "noiommu",
            Self::Iommu => "iommu",
        }
    }
}

/// A PCI device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Device {
    /// Its name, `DDDD:BB:DD.F`.
    pub bdf: String,
    /// Vendor ID, four hexadecimal digits.
    pub vendor: String,
    /// Device ID, four hexadecimal digits.
    pub device: String,
    /// Class code, six hexadecimal digits.
    pub class: String,
    /// The class's name.
    pub class_name: Option<String>,
    /// The vendor's name, where a list of names is installed.
    pub vendor_name: Option<String>,
    /// The device's name, where a list of names is installed.
    pub device_name: Option<String>,
    /// The driver that has it.
    pub driver: Option<String>,
    /// How it is bound to a VFIO driver; `None` if it is not.
    pub mode: Option<Mode>,
    /// Path of its VFIO character device.
    pub cdev: Option<String>,
    /// Path of its VFIO group in noiommu mode.
    pub group: Option<String>,
    /// The name of the kernel's interface by which a run uses it, if it does not ask for another one and all its devices
    /// have it.
    pub backend: Option<&'static str>,
    /// How it can be reset, in the kernel's words.
    pub reset: Vec<String>,
    /// The one by which a run resets it if no other function of its bus is passed through.
    pub strongest_reset: Option<String>,
    /// What the host uses it for.
    pub in_use: Vec<String>,
    /// What its host bridge does to addresses and to the CPU's caches, or why that is not known; where that differs from
    /// machine to machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_bridge: Option<String>,
}

/// The devices of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Devices {
    version: u32,
    /// The node that a run needs beside a character device; `None` if it is not there.
    pub iommufd: Option<String>,
    /// The devices, in order of their names.
    pub devices: Vec<Device>,
    /// Processes that keep guest memory pinned, as far as the caller may ask them.
    pub keepers: Vec<Keeper>,
}

/// A process that keeps guest memory pinned, because devices could not be made quiet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Keeper {
    /// Its number.
    pub pid: u32,
    /// Bytes of guest memory.
    pub bytes: u64,
    /// The devices.
    pub devices: Vec<String>,
    /// What it does, in a sentence.
    pub text: String,
    /// The command that gives the memory back.
    #[serde(rename = "next")]
    pub hint: String,
}

impl Keeper {
    fn of(found: &Found) -> Self {
        let devices = found.status.devices.iter();
        Self {
            pid: found.pid,
            bytes: found.status.bytes,
            devices: devices.map(|device| device.bdf.to_string()).collect(),
            text: kept::sentence(found),
            hint: kept::hint(found),
        }
    }
}

/// All PCI functions but bridges.
#[must_use]
pub fn list(root: &SysRoot) -> Devices {
    let names = Names::read(root);
    let functions = root.pci().functions().unwrap_or_default();
    Devices {
        version: JSON_VERSION,
        iommufd: root.exists("dev/iommu").then(|| "/dev/iommu".to_owned()),
        devices: functions
            .into_iter()
            .filter(|bdf| FunctionKind::of(root, *bdf) != FunctionKind::Bridge)
            .map(|bdf| device(root, &names, bdf))
            .collect(),
        keepers: keepers(root).iter().map(Keeper::of).collect(),
    }
}

fn device(root: &SysRoot, names: &Names, bdf: Bdf) -> Device {
    let Identity {
        vendor,
        device,
        class,
    } = Identity::of(root, bdf);
    let owned = |name: Option<&str>| name.map(str::to_owned);
    let node = node(root, bdf);
    let listed = cdev(root, bdf).map(|node| node.kind());
    let mut uses = in_use::by_host(root, bdf);
    uses.extend(in_use::by_user(root, bdf));
    let reset = root.pci().reset_methods(bdf).unwrap_or_default();
    let expected = root.pci().expected_reset(bdf, |_| false).ok();
    let expected = expected.filter(|method| !matches!(method, ResetMethod::None { .. }));
    Device {
        bdf: bdf.to_string(),
        vendor: format!("{vendor:04x}"),
        device: format!("{device:04x}"),
        class: format!("{class:06x}"),
        class_name: owned(names.class(class)),
        vendor_name: owned(names.vendor(vendor)),
        device_name: owned(names.device(vendor, device)),
        driver: root.pci().driver(bdf).ok().flatten(),
        mode: node
            .as_ref()
            .map(Node::kind)
            .or(listed)
            .map(|kind| match kind {
                CdevKind::Noiommu => Mode::Noiommu,
                CdevKind::Iommu => Mode::Iommu,
            }),
        cdev: present_cdev(root, bdf).map(|node| node.to_string()),
        group: present_group(root, bdf).map(|node| node.to_string()),
        backend: node.map(|node| node.backend().name()),
        strongest_reset: expected.map(|method| method.to_string()),
        reset,
        in_use: uses.iter().map(ToString::to_string).collect(),
        host_bridge: match arch::described_bridge(root, bdf) {
            Ok(bridge) => bridge.as_ref().map(host_bridge::text),
            Err(error) => Some(error.to_string()),
        },
    }
}

impl Devices {
    /// Writes a table for a person.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        self.write_devices(out)?;
        for device in &self.devices {
            if let Some(bridge) = &device.host_bridge {
                writeln!(out, "{}: {bridge}", device.bdf)?;
            }
        }
        for Keeper { text, hint, .. } in &self.keepers {
            writeln!(out, "{text}: {hint}")?;
        }
        Ok(())
    }

    fn write_devices(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.devices.is_empty() {
            return writeln!(out, "No PCI devices");
        }
        let head = ["DEVICE", "ID", "DRIVER", "MODE", "RESET", "IN USE", "WHAT"];
        let mut rows = vec![head.map(str::to_owned)];
        rows.extend(self.devices.iter().map(Device::row));
        let width = |column: usize| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        for row in &rows {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:<width$}"))
                .collect();
            writeln!(out, "{}", cells.join("  ").trim_end())?;
        }
        Ok(())
    }

    /// Writes an object for a program: `version` (1), `iommufd` (a path or null), `devices`, a
    /// list of objects with the fields of [`Device`], and `keepers`, one of those of [`Keeper`].
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut *out, self)?;
        writeln!(out)
    }
}

impl Device {
    fn row(&self) -> [String; 7] {
        let or_dash = |text: Option<&str>| text.unwrap_or("-").to_owned();
        let joined = |list: &[String]| match list {
            [] => "-".to_owned(),
            list => list.join("; "),
        };
        let class = self.class_name.as_deref().unwrap_or(&self.class);
        let name = self.device_name.as_deref().or(self.vendor_name.as_deref());
        [
            self.bdf.clone(),
            format!("{}:{}", self.vendor, self.device),
            or_dash(self.driver.as_deref()),
            or_dash(self.mode.map(Mode::word)),
            or_dash(self.strongest_reset.as_deref()),
            joined(&self.in_use),
            name.map_or(class.to_owned(), |name| format!("{class}: {name}")),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys_root::tests::Fake;

    #[test]
    fn bridges_are_omitted_and_the_rest_is_listed() {
        let fake = Fake::new();
        fake.disk();
        fake.write("sys/devices/pci0000:00/0000:00:08.0/class", "0x060400\n");
        fake.link(
            "sys/bus/pci/devices/0000:00:08.0",
            "sys/devices/pci0000:00/0000:00:08.0",
        );
        fake.write("dev/iommu", "");
        fake.write("dev/vfio/devices/noiommu-vfio0", "");
        fake.directory("sys/bus/pci/devices/0000:01:00.0/vfio-dev/noiommu-vfio0");
        let devices = list(&fake.root);
        let mut json = Vec::new();
        devices.write_json(&mut json).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(json["iommufd"], "/dev/iommu");
        assert_eq!(json["devices"].as_array().unwrap().len(), 1);
        let disk = &json["devices"][0];
        assert_eq!(disk["cdev"], "/dev/vfio/devices/noiommu-vfio0");
        assert_eq!(disk["mode"], "noiommu");
        assert_eq!(disk["backend"], "cdev");
        assert_eq!(disk["group"], serde_json::Value::Null);
        assert_eq!(disk["class_name"], "Non-volatile memory controller");
        assert_eq!(disk["driver"], serde_json::Value::Null);
        let mut text = Vec::new();
        devices.write_text(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let row = text.lines().nth(1).unwrap();
        assert_eq!(
            row,
            "0000:01:00.0  1b36:0010  -       noiommu  flr    -       Non-volatile memory controller"
        );
    }

    #[test]
    fn host_bridges_follow_where_they_differ() {
        let fake = Fake::new();
        fake.disk();
        let mut devices = list(&fake.root);
        let shown = |devices: &Devices| {
            let mut text = Vec::new();
            devices.write_text(&mut text).unwrap();
            let json = serde_json::to_value(devices).unwrap();
            let bridge = json["devices"][0].get("host_bridge").cloned();
            (String::from_utf8(text).unwrap(), bridge)
        };
        devices.devices[0].host_bridge = None;
        let (text, json) = shown(&devices);
        assert_eq!((text.lines().count(), json), (2, None));
        devices.devices[0].host_bridge = Some("host bridge: it is".to_owned());
        let (text, json) = shown(&devices);
        assert!(
            text.ends_with("\n0000:01:00.0: host bridge: it is\n"),
            "{text}"
        );
        assert_eq!(json.unwrap(), "host bridge: it is");
    }

    #[test]
    fn a_device_that_has_a_group_alone_is_in_noiommu_mode() {
        let fake = Fake::new();
        fake.disk();
        let disk = || list(&fake.root).devices.remove(0);
        assert_eq!((disk().mode, disk().backend), (None, None));
        fake.write("sys/kernel/iommu_groups/0/name", "vfio-noiommu\n");
        fake.link(
            "sys/bus/pci/devices/0000:01:00.0/iommu_group",
            "sys/kernel/iommu_groups/0",
        );
        fake.directory("sys/bus/pci/devices/0000:01:00.0/vfio-dev/vfio0");
        fake.write("dev/vfio/noiommu-0", "");
        assert_eq!(disk().mode, Some(Mode::Noiommu));
        assert_eq!(disk().group.as_deref(), Some("/dev/vfio/noiommu-0"));
        assert_eq!((disk().cdev, disk().backend), (None, Some("group")));
    }

    #[test]
    fn the_reset_is_that_of_a_run_with_the_device_alone() {
        let fake = Fake::new();
        fake.disk();
        let below = "sys/devices/pci0000:00/0000:00:08.0";
        let methods = format!("{below}/0000:01:00.0/reset_method");
        let reset = || list(&fake.root).devices[0].strongest_reset.clone();
        assert_eq!(reset().as_deref(), Some("flr"));
        fake.write(&methods, "pm bus\n");
        assert_eq!(reset().as_deref(), Some("bus"));
        fake.link(
            "sys/bus/pci/devices/0000:01:00.1",
            &format!("{below}/0000:01:00.1"),
        );
        fake.directory(&format!("{below}/0000:01:00.1"));
        assert_eq!(reset().as_deref(), Some("pm"));
        fake.write(&methods, "bus\n");
        assert_eq!(reset(), None);
    }

    #[test]
    fn the_hint_of_a_keeper_is_next_in_json() {
        let keeper = Keeper {
            pid: 77,
            bytes: 1,
            devices: Vec::new(),
            text: "It keeps".to_owned(),
            hint: "pinvisor release 01:00.0".to_owned(),
        };
        let json = serde_json::to_value(keeper).unwrap();
        assert_eq!(json["next"], "pinvisor release 01:00.0");
        assert_eq!(json.get("hint"), None);
    }

    #[test]
    fn a_machine_without_pci_has_no_devices() {
        let mut text = Vec::new();
        list(&Fake::new().root).write_text(&mut text).unwrap();
        assert_eq!(text, b"No PCI devices\n");
    }
}
