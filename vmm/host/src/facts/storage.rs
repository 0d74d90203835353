// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Block devices of a PCI function, and what uses them. None of them is opened.

mod holders;

use std::collections::BTreeSet;
use std::path::Path;

use crate::facts::in_use::Use;
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

/// Names of the block devices that stand below `function`, their partitions, and all that was
/// made of them.
fn blocks(root: &SysRoot, function: &Path) -> BTreeSet<String> {
    let all: Vec<(String, _)> = root
        .names("sys/class/block")
        .into_iter()
        .filter_map(|name| {
            let real = root.real(format!("sys/class/block/{name}"))?;
            Some((name, real))
        })
        .collect();
    let below = |directory: &Path| -> Vec<String> {
        let inside = all.iter().filter(|(_, real)| real.starts_with(directory));
        inside.map(|(name, _)| name.clone()).collect()
    };
    let mut found = BTreeSet::new();
    let mut new = below(function);
    while let Some(name) = new.pop() {
        if !found.insert(name.clone()) {
            continue;
        }
        new.extend(root.names(format!("sys/class/block/{name}/holders")));
        new.extend(multipath_head(&name));
        let real = all.iter().find(|(other, _)| *other == name);
        new.extend(real.map(|(_, real)| below(real)).unwrap_or_default());
    }
    found
}

/// Several paths to one NVMe namespace are hidden devices `nvmeXcYnZ` below their controllers;
/// what is mounted is `nvmeXnZ`, which stands below none (drivers/nvme/host/multipath.c).
fn multipath_head(name: &str) -> Option<String> {
    let (subsystem, rest) = name.strip_prefix("nvme")?.split_once('c')?;
    let (controller, namespace) = rest.split_once('n')?;
    let numbers = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    [subsystem, controller, namespace]
        .into_iter()
        .all(numbers)
        .then(|| format!("nvme{subsystem}n{namespace}"))
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

fn mounts_in(text: &str) -> impl Iterator<Item = Mount> {
    text.lines().filter_map(mount)
}

/// The one of `blocks` that is mounted there.
fn mount_of(root: &SysRoot, blocks: &BTreeSet<String>, mount: &Mount) -> Option<String> {
    let has_number = |block: &&String| {
        let number = number_of(root, block);
        !number.is_empty() && number == mount.number
    };
    // A file system over several devices has a number of its own.
    blocks.iter().find(has_number).cloned().or_else(|| {
        let block = block_of_path(root, &mount.source);
        blocks.contains(&block).then_some(block)
    })
}

/// Major and minor number of a block device; empty if unknown.
fn number_of(root: &SysRoot, block: &str) -> String {
    root.word(format!("sys/class/block/{block}/dev"))
}

/// A line of `/proc/self/mountinfo` (Linux Documentation/filesystems/proc.rst).
#[derive(Debug)]
struct Mount {
    number: String,
    at: String,
    source: String,
}

fn mount(line: &str) -> Option<Mount> {
    let (place, kind) = line.split_once(" - ")?;
    let mut place = place.split_whitespace().skip(2);
    Some(Mount {
        number: place.next()?.to_owned(),
        at: unescape(place.nth(1)?),
        source: unescape(kind.split_whitespace().nth(1)?),
    })
}

fn swap_files(text: &str) -> Vec<String> {
    let lines = text.lines().skip(1);
    lines
        .filter_map(|line| line.split_whitespace().next())
        .map(unescape)
        .collect()
}

/// Takes back the kernel's `\040` for a space and its like.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let code = tail
            .get(..3)
            .filter(|_| *first == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                bytes.push(code);
                rest = &tail[3..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The block device behind a path of `/dev`, links followed; empty where there is none.
fn block_of_path(root: &SysRoot, path: &str) -> String {
    let path = Path::new(path);
    let Ok(relative) = path.strip_prefix("/") else {
        return String::new();
    };
    let real = root.real(relative).unwrap_or_else(|| path.to_owned());
    real.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
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

    #[test]
    fn the_head_of_several_paths_has_their_namespace() {
        assert_eq!(multipath_head("nvme1c2n3").as_deref(), Some("nvme1n3"));
        for name in ["nvme1n3", "nvme1c2", "nvmecn", "nvme1c2n3p1", "sda"] {
            assert_eq!(multipath_head(name), None, "{name}");
        }
    }

    #[test]
    fn escapes_are_taken_back() {
        for (escaped, plain) in [
            ("a\\040b", "a b"),
            ("\\", "\\"),
            ("\\0", "\\0"),
            ("\\999", "\\999"),
        ] {
            assert_eq!(unescape(escaped), plain);
        }
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
            multipath_head(&text);
            unescape(&bytes);
        }
    }
}
