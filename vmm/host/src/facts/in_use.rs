// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The host's uses of a PCI function.

use std::fs;

use address::Bdf;

use super::device::cdev;
use super::uses::Use;
use super::{network, storage};
use crate::sys_root::SysRoot;

/// All uses of a function that the host's own drivers make possible.
pub(crate) fn by_host(root: &SysRoot, bdf: Bdf) -> Vec<Use> {
    let Some(function) = root.function(bdf) else {
        return Vec::new();
    };
    let mut uses = storage::uses(root, &function);
    uses.extend(network::uses(root, &function));
    uses.extend(virtual_functions(root, bdf));
    uses
}

/// The virtual functions of a function that are on, if there are any. vfio-pci takes no device with
/// such (drivers/vfio/pci/vfio_pci_core.c vfio_pci_core_register_device), but may turn them on.
pub(crate) fn virtual_functions(root: &SysRoot, bdf: Bdf) -> Option<Use> {
    let text = root.word(format!("sys/bus/pci/devices/{bdf}/sriov_numvfs"));
    let count: u16 = text.parse().ok()?;
    (count > 0).then_some(Use::VirtualFunctions { bdf, count })
}

/// The process that has the function's VFIO device open, if the caller may see it.
pub(crate) fn by_user(root: &SysRoot, bdf: Bdf) -> Option<Use> {
    let mut nodes = Vec::new();
    if let Some(node) = cdev(root, bdf) {
        nodes.push(node.to_string());
    }
    if let Ok(Some(group)) = root.pci().iommu_group(bdf) {
        let kind = if group.is_made_up { "noiommu-" } else { "" };
        nodes.push(format!("/dev/vfio/{kind}{}", group.number));
    }
    if nodes.is_empty() {
        return None;
    }
    let processes = root.names("proc").into_iter();
    processes
        .filter_map(|name| name.parse::<u32>().ok())
        .filter(|process| *process != std::process::id())
        .find_map(|process| {
            let directory = format!("proc/{process}/fd");
            root.names(&directory).into_iter().find_map(|fd| {
                let target = fs::read_link(root.path(&directory).join(fd)).ok()?;
                let node = nodes
                    .iter()
                    .find(|node| target.as_os_str() == node.as_str())?;
                Some(Use::Open {
                    node: node.clone(),
                    process,
                })
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys_root::tests::Fake;

    #[test]
    fn an_open_node_names_the_process() {
        let fake = Fake::new();
        let disk = fake.disk();
        fake.directory("proc/77/fd");
        let fd = fake.dir.path().join("proc/77/fd/3");
        std::os::unix::fs::symlink("/dev/vfio/devices/noiommu-vfio0", fd).unwrap();
        assert_eq!(by_user(&fake.root, disk), None);
        fake.directory("sys/bus/pci/devices/0000:01:00.0/vfio-dev/noiommu-vfio0");
        let found = by_user(&fake.root, disk).unwrap();
        assert!(matches!(found, Use::Open { process: 77, .. }), "{found:?}");
        assert_eq!(by_host(&fake.root, disk), []);
        assert_eq!(by_host(&fake.root, "09:00.0".parse().unwrap()), []);
    }

    #[test]
    fn virtual_functions_that_are_on_are_a_use() {
        let fake = Fake::new();
        let bdf = fake.disk();
        for (text, count) in [
            ("2\n", Some(2)),
            ("0\n", None),
            ("-1\n", None),
            ("", None),
            ("70000\n", None),
        ] {
            fake.write("sys/bus/pci/devices/0000:01:00.0/sriov_numvfs", text);
            let wanted = count.map(|count| Use::VirtualFunctions { bdf, count });
            assert_eq!(virtual_functions(&fake.root, bdf), wanted, "{text:?}");
            assert_eq!(by_host(&fake.root, bdf), Vec::from_iter(wanted));
        }
    }
}
