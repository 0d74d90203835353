// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Block devices of a PCI function, and what uses them. None of them is opened.

mod blocks;
mod holders;
mod mounts;

use std::collections::BTreeSet;
use std::path::Path;

use self::blocks::{block_of_path, blocks};
use self::mounts::{mount_of, mounts_in, unescape};
use crate::facts::uses::Use;
use crate::sys_root::SysRoot;

/// Uses of the block devices of the function whose directory is `function`.
pub(crate) fn uses(root: &SysRoot, function: &Path) -> Vec<Use> {
    let blocks = blocks(root, function);
    if blocks.is_empty() {
        return Vec::new();
    }
    let mut uses = mounts(root, &blocks);
    let swaps = root.text("proc/swaps").unwrap_or_default();
    uses.extend(swap_files(&swaps).into_iter().filter_map(|path| {
        let block = block_of_path(root, &path);
        blocks.contains(&block).then_some(Use::Swap { block })
    }));
    // What neither list shows; where one does, the rest mostly follows from it.
    if uses.is_empty() {
        uses = holders::uses(root, &blocks);
    }
    uses
}

fn mounts(root: &SysRoot, blocks: &BTreeSet<String>) -> Vec<Use> {
    let text = root.text("proc/self/mountinfo").unwrap_or_default();
    mounts_in(&text)
        .filter_map(|mount| {
            let block = mount_of(root, blocks, &mount)?;
            Some(Use::Mounted {
                block,
                at: mount.at,
            })
        })
        .collect()
}

fn swap_files(text: &str) -> Vec<String> {
    let lines = text.lines().skip(1);
    lines
        .filter_map(|line| line.split_whitespace().next())
        .map(unescape)
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::sys_root::tests::Fake;

    const FUNCTION: &str = "sys/devices/pci0000:00/0000:00:08.0/0000:01:00.0";

    pub fn block(fake: &Fake, name: &str, real: &str, number: &str) {
        fake.write(&format!("{real}/dev"), number);
        fake.link(&format!("sys/class/block/{name}"), real);
    }

    pub fn with_partition() -> (Fake, std::path::PathBuf) {
        let fake = Fake::new();
        fake.disk();
        let disk = format!("{FUNCTION}/nvme/nvme0/nvme0n1");
        block(&fake, "nvme0n1", &disk, "259:0\n");
        block(&fake, "nvme0n1p1", &format!("{disk}/nvme0n1p1"), "259:1\n");
        block(&fake, "sda", "sys/devices/other/sda", "8:0\n");
        let function = fake.root.real(FUNCTION).unwrap();
        (fake, function)
    }

    #[test]
    fn a_mounted_partition_is_found_by_number() {
        let (fake, function) = with_partition();
        assert_eq!(uses(&fake.root, &function), []);
        fake.write(
            "proc/self/mountinfo",
            "22 1 8:0 / / rw - ext4 /dev/sda rw\n\
             36 22 259:1 / /mnt/my\\040disk rw,noatime master:1 - ext2 /dev/nvme0n1p1 rw\n",
        );
        assert_eq!(
            uses(&fake.root, &function),
            [Use::Mounted {
                block: "nvme0n1p1".into(),
                at: "/mnt/my disk".into()
            }]
        );
    }

    #[test]
    fn a_mapped_device_is_found_through_its_holder() {
        let (fake, function) = with_partition();
        block(&fake, "dm-0", "sys/devices/virtual/block/dm-0", "253:0\n");
        fake.directory(&format!(
            "{FUNCTION}/nvme/nvme0/nvme0n1/nvme0n1p1/holders/dm-0"
        ));
        fake.write(
            "proc/self/mountinfo",
            "36 22 253:0 / /x rw - xfs /dev/mapper/x rw\n",
        );
        assert!(matches!(
            &uses(&fake.root, &function)[..],
            [Use::Mounted { block, .. }] if block == "dm-0"
        ));
    }

    #[test]
    fn a_file_system_over_several_devices_is_found_by_its_source() {
        let (fake, function) = with_partition();
        fake.write("dev/nvme0n1", "");
        fake.link("dev/disk/by-id/x", "dev/nvme0n1");
        fake.write(
            "proc/self/mountinfo",
            "36 22 0:40 / /x rw - btrfs /dev/disk/by-id/x rw\n",
        );
        assert_eq!(uses(&fake.root, &function).len(), 1);
    }

    #[test]
    fn swap_is_found() {
        let (fake, function) = with_partition();
        fake.write(
            "proc/swaps",
            "Filename Type Size Used Priority\n/dev/nvme0n1p1 partition 1 0 -2\n/dev/sda file 1 0 -3\n",
        );
        assert_eq!(
            uses(&fake.root, &function),
            [Use::Swap {
                block: "nvme0n1p1".into()
            }]
        );
    }

    proptest::proptest! {
        // A tree of files is made for each.
        #![proptest_config(proptest::test_runner::Config::with_cases(32))]

        #[test]
        fn no_text_makes_it_panic(text in "\\PC*", bytes in "[\\\\0-7 é-]*") {
            let (fake, function) = with_partition();
            fake.write("proc/self/mountinfo", &format!("{text}\n{bytes} - {text}"));
            fake.write("proc/swaps", &format!("\n{text}\n{bytes}"));
            uses(&fake.root, &function);
        }
    }
}
