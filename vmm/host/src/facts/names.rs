// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Names of PCI vendors, devices and classes: from a `pci.ids` file if one is installed, the
//! classes else from a short list.

use std::collections::BTreeMap;

use crate::sys_root::SysRoot;

/// Where distributions install the list.
const FILES: [&str; 3] = [
    "usr/share/misc/pci.ids",
    "usr/share/hwdata/pci.ids",
    "usr/share/pci.ids",
];

/// Names of classes where no list is installed, by base class and subclass (PCI Code and ID
/// Assignment Specification).
const CLASSES: [(u32, &str); 24] = [
    (0x0100, "SCSI storage controller"),
    (0x0104, "RAID controller"),
    (0x0106, "SATA controller"),
    (0x0107, "Serial Attached SCSI controller"),
    (0x0108, "Non-volatile memory controller"),
    (0x0180, "Mass storage controller"),
    (0x0200, "Ethernet controller"),
    (0x0207, "Infiniband controller"),
    (0x0280, "Network controller"),
    (0x0300, "VGA compatible controller"),
    (0x0302, "3D controller"),
    (0x0380, "Display controller"),
    (0x0403, "Audio device"),
    (0x0480, "Multimedia controller"),
    (0x0500, "RAM memory"),
    (0x0780, "Communication controller"),
    (0x0805, "SD host controller"),
    (0x0880, "System peripheral"),
    (0x0900, "Keyboard controller"),
    (0x0c03, "USB controller"),
    (0x0c05, "SMBus"),
    (0x0b40, "Co-processor"),
    (0x1200, "Processing accelerator"),
    (0x00ff, "Unclassified device"),
];

/// A list of names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    vendors: BTreeMap<u32, String>,
    devices: BTreeMap<(u32, u32), String>,
    /// By base class and subclass.
    classes: BTreeMap<u32, String>,
}

impl Names {
    /// The names that this machine has.
    pub(crate) fn read(root: &SysRoot) -> Self {
        let text = FILES.iter().find_map(|file| root.text(file).ok());
        Self::parse(&text.unwrap_or_default())
    }

    /// Reads lines `VVVV  NAME`, below them `<tab>DDDD  NAME`, and likewise `C CC  NAME`.
    fn parse(text: &str) -> Self {
        let mut names = Self::default();
        let mut section = None;
        for line in text.lines() {
            let below = line.strip_prefix('\t');
            let is_class = line.starts_with("C ");
            let entry = below.unwrap_or(line).trim_start_matches("C ");
            let Some((number, name)) = number_and_name(entry) else {
                continue;
            };
            let name = name.to_owned();
            match (below, section) {
                (None, _) => {
                    section = Some((is_class, number));
                    if !is_class {
                        names.vendors.insert(number, name);
                    }
                }
                (Some(_), Some((true, base))) => {
                    names.classes.insert(base << 8 | number, name);
                }
                (Some(_), Some((false, vendor))) => {
                    names.devices.insert((vendor, number), name);
                }
                (Some(_), None) => {}
            }
        }
        names
    }

    pub(crate) fn vendor(&self, vendor: u32) -> Option<&str> {
        self.vendors.get(&vendor).map(String::as_str)
    }

    pub(crate) fn device(&self, vendor: u32, device: u32) -> Option<&str> {
        self.devices.get(&(vendor, device)).map(String::as_str)
    }

    /// The name of the 24-bit class code `class`.
    pub(crate) fn class(&self, class: u32) -> Option<&str> {
        let class = class >> 8;
        let known = CLASSES.iter().find(|(number, _)| *number == class);
        self.classes
            .get(&class)
            .map(String::as_str)
            .or(known.map(|(_, name)| *name))
    }
}

/// At most four hexadecimal digits, two spaces, a name.
fn number_and_name(entry: &str) -> Option<(u32, &str)> {
    let (digits, name) = entry.split_once("  ")?;
    let is_number =
        (1..=4).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let number = u32::from_str_radix(digits, 16).ok().filter(|_| is_number)?;
    Some((number, name.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys_root::tests::Fake;

    const LIST: &str = "\
# comment
8086  Intel Corporation
\t10d3  82574L Gigabit Network Connection
\t\t8086 a01f  Gigabit CT Desktop Adapter
C 02  Network controller
\t00  Ethernet card
";

    #[test]
    fn an_installed_list_is_preferred() {
        let fake = Fake::new();
        let none = Names::read(&fake.root);
        assert_eq!(none.class(0x02_0000), Some("Ethernet controller"));
        assert_eq!(none.vendor(0x8086), None);
        fake.write("usr/share/hwdata/pci.ids", LIST);
        let names = Names::read(&fake.root);
        assert_eq!(names.class(0x02_0000), Some("Ethernet card"));
        assert_eq!(
            names.class(0x01_0802),
            Some("Non-volatile memory controller")
        );
        assert_eq!(names.class(0xff_0000), None);
        assert_eq!(names.vendor(0x8086), Some("Intel Corporation"));
        let name = names.device(0x8086, 0x10d3).unwrap();
        assert!(name.starts_with("82574L"));
        assert_eq!(names.devices.len(), 1);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[\\PC\t\n]*") {
            Names::parse(&text);
        }
    }
}
