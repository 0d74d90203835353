// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Block devices, by their names in sysfs.

use std::collections::BTreeSet;
use std::path::Path;

use crate::sys_root::SysRoot;

/// Names of the block devices below `function`, their partitions, and all that was made of them.
pub(super) fn blocks(root: &SysRoot, function: &Path) -> BTreeSet<String> {
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

/// Several paths to one NVMe namespace are hidden devices `nvmeXcYnZ` below their controllers; what
/// is mounted is `nvmeXnZ`, which is below none (drivers/nvme/host/multipath.c).
fn multipath_head(name: &str) -> Option<String> {
    let (subsystem, rest) = name.strip_prefix("nvme")?.split_once('c')?;
    let (controller, namespace) = rest.split_once('n')?;
    let numbers = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    [subsystem, controller, namespace]
        .into_iter()
        .all(numbers)
        .then(|| format!("nvme{subsystem}n{namespace}"))
}

/// Major and minor number of a block device; empty if unknown.
pub(super) fn number_of(root: &SysRoot, block: &str) -> String {
    root.word(format!("sys/class/block/{block}/dev"))
}

/// The block device behind a path of `/dev`, links followed; empty where there is none.
pub(super) fn block_of_path(root: &SysRoot, path: &str) -> String {
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
mod tests {
    use super::*;

    #[test]
    fn the_head_of_several_paths_has_their_namespace() {
        assert_eq!(multipath_head("nvme1c2n3").as_deref(), Some("nvme1n3"));
        for name in ["nvme1n3", "nvme1c2", "nvmecn", "nvme1c2n3p1", "sda"] {
            assert_eq!(multipath_head(name), None, "{name}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_name_makes_it_panic(text in "\\PC*") {
            multipath_head(&text);
        }
    }
}
