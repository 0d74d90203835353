// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Devices in a tree of files. A written file keeps what was written to it.

use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;

const PORT: &str = "0000:00:08.0";
const NIC: &str = "0000:01:00.0";

/// A root port with a function behind it.
struct Tree {
    root: tempfile::TempDir,
    sysfs: PciSysfs,
}

/// Config space with bus mastering on, and a PCI Express capability at 0x40: of a port with a slot,
/// in which there is a card or none.
fn config(present: bool) -> [u8; 0x80] {
    let mut bytes = [0; 0x80];
    bytes[0x04] = 6;
    bytes[0x06] = 0x10;
    bytes[0x34] = 0x40;
    bytes[0x40] = CAP_EXPRESS;
    bytes[0x43] = 1;
    bytes[0x5a] = if present { 0x40 } else { 0 };
    bytes
}

impl Tree {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let sysfs = PciSysfs::at(&root.path().join("sys"));
        let tree = Self { root, sysfs };
        let port = tree.add("devices/pci0000:00", PORT);
        fs::write(port.join("reset_subordinate"), "").unwrap();
        let nic = tree.add(&format!("devices/pci0000:00/{PORT}"), NIC);
        for file in ["reset", "reset_method", "driver_override"] {
            fs::write(nic.join(file), "").unwrap();
        }
        tree.write(NIC, "reset_method", "pm bus\n");
        tree
    }

    fn add(&self, below: &str, name: &str) -> PathBuf {
        let path = self.root.path().join("sys").join(below).join(name);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("config"), config(true)).unwrap();
        let list = self.root.path().join("sys/bus/pci/devices");
        fs::create_dir_all(&list).unwrap();
        symlink(&path, list.join(name)).unwrap();
        path
    }

    fn directory(&self, name: &str) -> PathBuf {
        self.root.path().join("sys/bus/pci/devices").join(name)
    }

    fn write(&self, name: &str, file: &str, text: &str) {
        fs::write(self.directory(name).join(file), text).unwrap();
    }

    fn read(&self, name: &str, file: &str) -> String {
        fs::read_to_string(self.directory(name).join(file)).unwrap()
    }

    fn drive(&self, name: &str, driver: &str) {
        symlink(
            Path::new("drivers").join(driver),
            self.directory(name).join("driver"),
        )
        .unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_dir_all(fs::canonicalize(self.directory(name)).unwrap()).unwrap();
        fs::remove_file(self.directory(name)).unwrap();
    }

    fn nic(&self) -> Leftover {
        Leftover::of(&self.sysfs, NIC.parse().unwrap(), false, false)
    }

    fn settle(&self, device: &Leftover) -> Result<Quiet, Error> {
        settle(&self.sysfs, device, &[device.bdf], Duration::ZERO)
    }

    fn is_master(&self) -> bool {
        fs::read(self.directory(NIC).join("config")).unwrap()[4] & 4 != 0
    }
}

fn method(result: Result<Quiet, Error>) -> String {
    match result.unwrap().because() {
        Because::Reset(method) => method.clone(),
        because => panic!("{because:?}"),
    }
}

#[test]
fn a_free_function_is_stopped_and_reset_by_what_is_strongest() {
    let tree = Tree::new();
    let nic = tree.nic();
    assert_eq!(nic.parent, Some(PORT.parse().unwrap()));
    assert_eq!(method(tree.settle(&nic)), "bus");
    assert!(!tree.is_master());
    assert_eq!(tree.read(NIC, "reset"), "1");
    // Its list of resets and its override are what they were. (A file keeps what is behind the
    // last write; sysfs does not.)
    assert!(tree.read(NIC, "reset_method").starts_with("pm bus"));
    assert!(tree.read(NIC, "driver_override").starts_with('\n'));
    assert_eq!(tree.read(PORT, "reset_subordinate"), "");
    tree.drive(NIC, "vfio-pci");
    assert!(tree.settle(&nic).is_ok());
}

#[test]
fn a_function_that_a_driver_has_is_left_alone() {
    let tree = Tree::new();
    let nic = tree.nic();
    tree.drive(NIC, "e1000e");
    let text = tree.settle(&nic).unwrap_err().to_string();
    assert!(text.contains("it is bound to e1000e"), "{text}");
    assert_eq!(tree.read(NIC, "reset"), "");
    assert!(tree.is_master());
}

#[test]
fn without_a_trusted_function_reset_the_bridge_is_reset_if_nothing_else_is_behind_it() {
    let tree = Tree::new();
    let nic = tree.nic();
    tree.write(NIC, "reset_method", "pm\n");
    assert_eq!(method(tree.settle(&nic)), "bus");
    assert_eq!(tree.read(PORT, "reset_subordinate"), "1");
    assert_eq!(tree.read(NIC, "reset"), "");
    tree.add(&format!("devices/pci0000:00/{PORT}"), "0000:01:00.1");
    assert_eq!(method(tree.settle(&nic)), "pm");
    tree.write(NIC, "reset_method", "\n");
    assert!(tree.settle(&nic).is_err());
    // The kernel lists a reset of the bus for the function that it found first, and refuses it.
    tree.write(NIC, "reset_method", "bus\n");
    tree.write(NIC, "reset", "");
    assert!(tree.settle(&nic).is_err());
    assert_eq!(tree.read(NIC, "reset"), "");
    let both = [nic.bdf, "0000:01:00.1".parse().unwrap()];
    let settled = |device: &Leftover| settle(&tree.sysfs, device, &both, Duration::ZERO);
    assert_eq!(method(settled(&nic)), "bus");
    tree.drive("0000:01:00.1", "e1000e");
    assert!(settled(&nic).is_err());
    let accepted = Leftover {
        accepted: true,
        ..nic
    };
    assert_eq!(*settled(&accepted).unwrap().because(), Because::Accepted);
}

#[test]
fn a_removed_function_is_reset_by_its_bridge_where_it_was_alone() {
    let tree = Tree::new();
    let nic = tree.nic();
    tree.remove(NIC);
    assert_eq!(method(tree.settle(&nic)), "bus");
    assert_eq!(tree.read(PORT, "reset_subordinate"), "1");
    tree.add(&format!("devices/pci0000:00/{PORT}"), "0000:01:00.1");
    let text = tree.settle(&nic).unwrap_err().to_string();
    assert!(text.contains("would also reset 0000:01:00.1"), "{text}");
    let on_root_bus = Leftover {
        parent: None,
        ..nic.clone()
    };
    assert!(tree.settle(&on_root_bus).is_err());
    tree.remove(PORT);
    assert!(tree.settle(&nic).is_err());
}

#[test]
fn a_kernel_that_resets_no_bridges_leaves_no_evidence_of_what_needs_that() {
    let tree = Tree::new();
    let nic = tree.nic();
    fs::remove_file(tree.directory(PORT).join("reset_subordinate")).unwrap();
    assert_eq!(method(tree.settle(&nic)), "bus", "its own list has that");
    tree.write(NIC, "reset_method", "pm\n");
    let is_told = || {
        let error = tree.settle(&nic).unwrap_err();
        !is_passing(&error) && error.to_string().contains("reset_subordinate")
    };
    assert!(is_told());
    tree.remove(NIC);
    assert!(is_told());
}

#[test]
fn only_an_empty_slot_is_evidence_that_a_device_is_gone() {
    let tree = Tree::new();
    let nic = tree.nic();
    let silent = [0xff; 0x80];
    fs::write(tree.directory(NIC).join("config"), silent).unwrap();
    // All ones alone are not.
    assert!(tree.settle(&nic).is_err());
    fs::write(tree.directory(PORT).join("config"), silent).unwrap();
    assert!(tree.settle(&nic).is_err());
    fs::write(tree.directory(PORT).join("config"), config(false)).unwrap();
    assert_eq!(*tree.settle(&nic).unwrap().because(), Because::Gone);
    tree.remove(NIC);
    assert_eq!(*tree.settle(&nic).unwrap().because(), Because::Gone);
    assert_eq!(tree.read(PORT, "reset_subordinate"), "");
    // A port that has never reported a card, not even when there was one.
    let unseen = Leftover {
        seen_in_slot: false,
        ..nic.clone()
    };
    assert!(nic.seen_in_slot);
    assert_eq!(method(tree.settle(&unseen)), "bus");
    // A port without a slot.
    let mut without = config(false);
    without[0x43] = 0;
    fs::write(tree.directory(PORT).join("config"), without).unwrap();
    assert_eq!(method(tree.settle(&nic)), "bus");
}

#[test]
fn a_device_is_left_alone_until_its_group_opens() {
    let tree = Tree::new();
    let nic = Leftover {
        through_group: true,
        ..tree.nic()
    };
    tree.drive(NIC, "vfio-pci");
    let group = tree.root.path().join("sys/kernel/iommu_groups/4");
    fs::create_dir_all(&group).unwrap();
    fs::write(group.join("name"), "vfio-noiommu\n").unwrap();
    symlink(&group, tree.directory(NIC).join("iommu_group")).unwrap();
    let busy = tree.settle(&nic).unwrap_err();
    assert!(matches!(busy, Error::OpenGroup { .. }), "{busy:?}");
    assert!(tree.is_master());
    assert_eq!(tree.read(NIC, "reset"), "");
    let nodes = tree.root.path().join("dev/vfio");
    fs::create_dir_all(&nodes).unwrap();
    fs::write(nodes.join("noiommu-4"), "").unwrap();
    assert_eq!(method(tree.settle(&nic)), "bus");
    assert!(!tree.is_master());
}

#[test]
fn a_device_that_vfio_no_longer_has_needs_no_group() {
    let tree = Tree::new();
    let nic = Leftover {
        through_group: true,
        ..tree.nic()
    };
    assert_eq!(method(tree.settle(&nic)), "bus");
    tree.remove(NIC);
    assert_eq!(method(tree.settle(&nic)), "bus");
}
