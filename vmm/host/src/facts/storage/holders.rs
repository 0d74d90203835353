// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Other holders of a block device, from the kernel's files. The device is never opened: an
//! exclusive open would make a concurrent `mount` or `mkfs` fail, and any open may start what
//! listens for the close.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::blocks::{block_of_path, number_of};
use super::mounts::{mount_of, mounts_in};
use crate::facts::uses::{Holder, Use};
use crate::sys_root::SysRoot;

/// Targets that export block devices to other machines, below configfs: the directories of their
/// objects, and the file that holds the device's path (Linux Documentation/target,
/// drivers/target/target_core_configfs.c; drivers/nvme/target/configfs.c).
const EXPORTS: [(&str, &str); 2] = [
    ("sys/kernel/config/target/core", "udev_path"),
    ("sys/kernel/config/nvmet/subsystems", "device_path"),
];

/// How deep the files of [`EXPORTS`] are at most.
const EXPORT_DEPTH: usize = 3;

/// Uses of `blocks` that neither this process's mounts nor the list of swap shows.
pub(super) fn uses(root: &SysRoot, blocks: &BTreeSet<String>) -> Vec<Use> {
    let mut held = Vec::new();
    for block in blocks {
        let stacked = root.names(format!("sys/class/block/{block}/holders"));
        held.extend(
            stacked
                .into_iter()
                .map(|by| (block.clone(), Holder::Block(by))),
        );
    }
    held.extend(loops(root, blocks));
    held.extend(several_devices(root, blocks));
    held.extend(zfs(root, blocks));
    held.extend(exports(root, blocks));
    let mut uses: Vec<Use> = held
        .into_iter()
        .map(|(block, by)| Use::Held { block, by })
        .collect();
    uses.extend(elsewhere(root, blocks));
    uses.extend(programs(root, blocks));
    uses
}

/// Loop devices over one of `blocks`.
fn loops(root: &SysRoot, blocks: &BTreeSet<String>) -> Vec<(String, Holder)> {
    let names = root.names("sys/class/block").into_iter();
    names
        .filter_map(|name| {
            let file = root.word(format!("sys/class/block/{name}/loop/backing_file"));
            let block = block_of_path(root, &file);
            blocks
                .contains(&block)
                .then_some((block, Holder::Block(name)))
        })
        .collect()
}

/// File systems over several devices, of which a list of mounts names one
/// (fs/btrfs/sysfs.c, fs/bcachefs/sysfs.c).
fn several_devices(root: &SysRoot, blocks: &BTreeSet<String>) -> Vec<(String, Holder)> {
    let mut found = Vec::new();
    for id in root.names("sys/fs/btrfs") {
        let members = root.names(format!("sys/fs/btrfs/{id}/devices")).into_iter();
        let ours = members.filter(|block| blocks.contains(block));
        found.extend(ours.map(|block| (block, Holder::Btrfs(id.clone()))));
    }
    for id in root.names("sys/fs/bcachefs") {
        for member in root.names(format!("sys/fs/bcachefs/{id}")) {
            let link = root.real(format!("sys/fs/bcachefs/{id}/{member}/block"));
            let block = link.as_deref().map_or_else(String::new, last_name);
            if blocks.contains(&block) {
                found.push((block, Holder::Bcachefs(id.clone())));
            }
        }
    }
    found
}

fn last_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Members of ZFS pools, as udev lists them, while pools are imported. The kernel shows no list of
/// a pool's devices.
fn zfs(root: &SysRoot, blocks: &BTreeSet<String>) -> Vec<(String, Holder)> {
    let pools = root.names("proc/spl/kstat/zfs").into_iter();
    let is_pool = |name: &String| root.exists(&format!("proc/spl/kstat/zfs/{name}/state"));
    let pools: Vec<String> = pools.filter(is_pool).collect();
    if pools.is_empty() {
        return Vec::new();
    }
    let by = Holder::Zfs(pools);
    let is_member = |block: &&String| {
        let number = number_of(root, block);
        let known = root.text(format!("run/udev/data/b{number}"));
        let known = known.unwrap_or_default();
        known.lines().any(|line| line == "E:ID_FS_TYPE=zfs_member")
    };
    let members = blocks.iter().filter(is_member);
    members.map(|block| (block.clone(), by.clone())).collect()
}

/// Block devices that are exported to other machines.
fn exports(root: &SysRoot, blocks: &BTreeSet<String>) -> Vec<(String, Holder)> {
    let mut found = Vec::new();
    for (directory, file) in EXPORTS {
        let mut left = vec![(directory.to_owned(), 0)];
        while let Some((directory, depth)) = left.pop() {
            let block = block_of_path(root, &root.word(format!("{directory}/{file}")));
            if blocks.contains(&block) {
                found.push((block, Holder::Export(format!("/{directory}"))));
            }
            if depth < EXPORT_DEPTH {
                let names = root.names(&directory).into_iter();
                left.extend(names.map(|name| (format!("{directory}/{name}"), depth + 1)));
            }
        }
    }
    found
}

/// Processes of the machine that the caller may look at, but for itself.
fn processes(root: &SysRoot) -> impl Iterator<Item = u32> {
    let names = root.names("proc").into_iter();
    names
        .filter_map(|name| name.parse().ok())
        .filter(|process| *process != std::process::id())
}

/// Mounts in other mount namespaces, such as those of containers, each once.
fn elsewhere(root: &SysRoot, blocks: &BTreeSet<String>) -> Vec<Use> {
    let namespace = |process: &str| std::fs::read_link(root.path(format!("proc/{process}/ns/mnt")));
    let own = namespace("self").ok();
    let mut others = BTreeMap::new();
    for process in processes(root) {
        match namespace(&process.to_string()) {
            Ok(found) if Some(&found) != own.as_ref() => {
                others.entry(found).or_insert(process);
            }
            _ => {}
        }
    }
    let mut seen = BTreeSet::new();
    let mut uses = Vec::new();
    for process in others.into_values() {
        let text = root.text(format!("proc/{process}/mountinfo"));
        for mount in mounts_in(&text.unwrap_or_default()) {
            let block = mount_of(root, blocks, &mount);
            let new = block.filter(|block| seen.insert(block.clone()));
            uses.extend(new.map(|block| Use::MountedElsewhere {
                block,
                at: mount.at.clone(),
                process,
            }));
        }
    }
    uses
}

/// Programs that have one of `blocks` open, the first one of each.
fn programs(root: &SysRoot, blocks: &BTreeSet<String>) -> Vec<Use> {
    let mut found = BTreeMap::new();
    for process in processes(root) {
        let directory = format!("proc/{process}/fd");
        for fd in root.names(&directory) {
            let target = std::fs::read_link(root.path(format!("{directory}/{fd}")));
            let Ok(target) = target else { continue };
            let name = target.strip_prefix("/dev").map(last_name);
            if let Some(block) = name.ok().filter(|name| blocks.contains(name)) {
                found.entry(block).or_insert(process);
            }
        }
    }
    found
        .into_iter()
        .map(|(block, process)| Use::Open {
            node: format!("/dev/{block}"),
            process,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{block, with_partition};
    use super::super::uses;
    use super::*;
    use crate::sys_root::tests::Fake;

    const DISK: &str = "nvme0n1";

    /// The only use of the disk that [`with_partition`] makes, once `make` has run.
    fn only(make: impl FnOnce(&Fake)) -> Use {
        let (fake, function) = with_partition();
        assert_eq!(uses(&fake.root, &function), []);
        make(&fake);
        let mut found = uses(&fake.root, &function);
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }

    fn held(block: &str, by: Holder) -> Use {
        let block = block.into();
        Use::Held { block, by }
    }

    #[test]
    fn what_is_stacked_on_a_device_holds_it_without_being_mounted() {
        let found = only(|fake| {
            block(fake, "dm-0", "sys/devices/virtual/block/dm-0", "253:0\n");
            fake.directory("sys/class/block/nvme0n1p1/holders/dm-0");
        });
        assert_eq!(found, held("nvme0n1p1", Holder::Block("dm-0".into())));
    }

    #[test]
    fn a_loop_device_holds_what_it_is_over() {
        let found = only(|fake| {
            let real = "sys/devices/virtual/block/loop3";
            block(fake, "loop3", real, "7:3\n");
            fake.write(&format!("{real}/loop/backing_file"), "/dev/nvme0n1p1\n");
        });
        assert_eq!(found, held("nvme0n1p1", Holder::Block("loop3".into())));
    }

    #[test]
    fn members_of_file_systems_over_several_devices_are_held() {
        let found = only(|fake| fake.directory("sys/fs/btrfs/uuid/devices/nvme0n1p1"));
        assert_eq!(found, held("nvme0n1p1", Holder::Btrfs("uuid".into())));
        let found = only(|fake| {
            let real = fake.root.real("sys/class/block/nvme0n1").unwrap();
            let link = fake.dir.path().join("sys/fs/bcachefs/uuid/dev-0/block");
            std::fs::create_dir_all(link.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(real, link).unwrap();
        });
        assert_eq!(found, held(DISK, Holder::Bcachefs("uuid".into())));
    }

    #[test]
    fn a_member_of_a_zfs_pool_is_held_while_pools_are_imported() {
        let (fake, function) = with_partition();
        fake.write("run/udev/data/b259:1", "S:x\nE:ID_FS_TYPE=zfs_member\n");
        fake.write("proc/spl/kstat/zfs/arcstats", "");
        assert_eq!(uses(&fake.root, &function), []);
        fake.write("proc/spl/kstat/zfs/tank/state", "ONLINE\n");
        let found = uses(&fake.root, &function);
        assert_eq!(found, [held("nvme0n1p1", Holder::Zfs(vec!["tank".into()]))]);
    }

    #[test]
    fn exported_devices_are_held() {
        for path in [
            "sys/kernel/config/target/core/iblock_0/disk/udev_path",
            "sys/kernel/config/nvmet/subsystems/s/namespaces/1/device_path",
        ] {
            let found = only(|fake| fake.write(path, "/dev/nvme0n1\n"));
            let (directory, _) = path.rsplit_once('/').unwrap();
            assert_eq!(found, held(DISK, Holder::Export(format!("/{directory}"))));
        }
    }

    /// A process of the machine with a link below its directory.
    fn process(fake: &Fake, name: &str, target: &str) {
        let link = fake.dir.path().join("proc").join(name);
        std::fs::create_dir_all(link.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(target, link).unwrap();
    }

    #[test]
    fn mounts_of_containers_are_found_once_each() {
        const MOUNT: &str = "36 22 259:1 / /data rw - ext4 /dev/x rw\n";
        let found = only(|fake| {
            process(fake, "self/ns/mnt", "mnt:[1]");
            process(fake, "70/ns/mnt", "mnt:[1]");
            fake.write("proc/70/mountinfo", MOUNT);
            for number in [77, 78, 79] {
                fake.write(&format!("proc/{number}/mountinfo"), MOUNT);
                let namespace = format!("mnt:[{}]", number.min(78));
                process(fake, &format!("{number}/ns/mnt"), &namespace);
            }
        });
        assert_eq!(
            found,
            Use::MountedElsewhere {
                block: "nvme0n1p1".into(),
                at: "/data".into(),
                process: 77
            }
        );
    }

    #[test]
    fn a_program_that_has_it_open_is_named() {
        let found = only(|fake| {
            process(fake, "80/fd/3", "/dev/sda");
            process(fake, "81/fd/4", "/dev/nvme0n1p1");
            process(fake, "82/fd/4", "/dev/nvme0n1p1");
        });
        assert_eq!(
            found,
            Use::Open {
                node: "/dev/nvme0n1p1".into(),
                process: 81
            }
        );
    }
}
