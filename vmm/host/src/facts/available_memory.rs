// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The amount of ordinary memory available to a guest without hugepages.

use std::path::{Path, PathBuf};

use crate::facts::memory::Meminfo;
use crate::sys_root::SysRoot;

/// What ends the memory that is available.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemoryLimit {
    /// All of the machine's memory, swap for others' memory included.
    Machine,
    /// `memory.max` of a control group.
    ControlGroup(PathBuf),
    /// The kernel promises no more than it has (`vm.overcommit_memory=2`).
    Overcommit,
}

/// Ordinary memory that can be taken and pinned, at most: to take more is certain to fail, or to make the
/// kernel kill something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AvailableMemory {
    /// Bytes.
    pub bytes: u64,
    /// Why there are no more.
    pub limit: MemoryLimit,
}

/// How much there is; `None` if the kernel does not show it.
#[must_use]
pub fn available_memory(root: &SysRoot) -> Option<AvailableMemory> {
    let all = [machine(root), control_groups(root), overcommit(root)];
    all.into_iter().flatten().min_by_key(|found| found.bytes)
}

fn machine(root: &SysRoot) -> Option<AvailableMemory> {
    let meminfo = Meminfo::read(root)?;
    let kib = |name| meminfo.kib(name);
    // Anonymous memory of others can be swapped out.
    let swap = kib("SwapFree")
        .unwrap_or(0)
        .min(kib("AnonPages").unwrap_or(0));
    Some(AvailableMemory {
        bytes: kib("MemAvailable")?
            .saturating_add(swap)
            .saturating_mul(1024),
        limit: MemoryLimit::Machine,
    })
}

/// Whether the kernel promises no more memory than it has (`vm.overcommit_memory=2`).
#[must_use]
pub fn refuses_overcommit(root: &SysRoot) -> bool {
    root.word("proc/sys/vm/overcommit_memory") == "2"
}

fn overcommit(root: &SysRoot) -> Option<AvailableMemory> {
    if !refuses_overcommit(root) {
        return None;
    }
    let meminfo = Meminfo::read(root)?;
    let left = meminfo
        .kib("CommitLimit")?
        .saturating_sub(meminfo.kib("Committed_AS")?);
    Some(AvailableMemory {
        bytes: left.saturating_mul(1024),
        limit: MemoryLimit::Overcommit,
    })
}

/// The tightest limit of the caller's control group and those above it (cgroup v2; Linux
/// Documentation/admin-guide/cgroup-v2.rst). A namespace may hide those above.
fn control_groups(root: &SysRoot) -> Option<AvailableMemory> {
    let groups = root.text("proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let ancestors = Path::new(path).ancestors();
    let limits = ancestors.filter_map(|group| group_limit(root, group));
    limits.min_by_key(|found| found.bytes)
}

fn group_limit(root: &SysRoot, group: &Path) -> Option<AvailableMemory> {
    let directory = Path::new("sys/fs/cgroup").join(group);
    let most: u64 = root.word(directory.join("memory.max")).parse().ok()?;
    let current: u64 = root.word(directory.join("memory.current")).parse().ok()?;
    // The page cache goes where there is need; shared memory is not in these lists.
    let statistics = root.text(directory.join("memory.stat")).unwrap_or_default();
    let cache: u64 = statistics
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(name, _)| matches!(*name, "inactive_file" | "active_file"))
        .filter_map(|(_, bytes)| bytes.parse::<u64>().ok())
        .fold(0, u64::saturating_add);
    Some(AvailableMemory {
        bytes: most.saturating_sub(current.saturating_sub(cache)),
        limit: MemoryLimit::ControlGroup(Path::new("/").join(directory)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys_root::tests::Fake;

    fn meminfo_of(fake: &Fake, lines: &[(&str, u64)]) {
        let lines: Vec<_> = lines
            .iter()
            .map(|(name, mib)| format!("{name}:   {} kB\n", mib << 10))
            .collect();
        fake.write("proc/meminfo", &lines.concat());
    }

    fn mib(root: &SysRoot) -> Option<u64> {
        available_memory(root).map(|found| found.bytes >> 20)
    }

    #[test]
    fn others_memory_counts_as_far_as_swap_has_room() {
        let fake = Fake::new();
        assert_eq!(mib(&fake.root), None);
        meminfo_of(&fake, &[("MemAvailable", 100)]);
        assert_eq!(mib(&fake.root), Some(100));
        meminfo_of(
            &fake,
            &[("MemAvailable", 100), ("SwapFree", 30), ("AnonPages", 20)],
        );
        assert_eq!(mib(&fake.root), Some(120));
        meminfo_of(
            &fake,
            &[("MemAvailable", 100), ("SwapFree", 10), ("AnonPages", 20)],
        );
        assert_eq!(mib(&fake.root), Some(110));
    }

    #[test]
    fn a_kernel_that_promises_no_more_than_it_has_is_asked_for_its_limit() {
        let fake = Fake::new();
        meminfo_of(
            &fake,
            &[
                ("MemAvailable", 100),
                ("CommitLimit", 70),
                ("Committed_AS", 30),
            ],
        );
        fake.write("proc/sys/vm/overcommit_memory", "0\n");
        assert_eq!(mib(&fake.root), Some(100));
        fake.write("proc/sys/vm/overcommit_memory", "2\n");
        let found = available_memory(&fake.root).unwrap();
        assert_eq!(
            (found.bytes, &found.limit),
            (40 << 20, &MemoryLimit::Overcommit)
        );
    }

    #[test]
    fn the_tightest_control_group_counts_without_its_page_cache() {
        let fake = Fake::new();
        meminfo_of(&fake, &[("MemAvailable", 1000)]);
        fake.write("proc/self/cgroup", "0::/a/b\n");
        let group = |name: &str, most: &str, current: u64| {
            let directory = format!("sys/fs/cgroup/{name}");
            fake.write(&format!("{directory}/memory.max"), &format!("{most}\n"));
            let text = format!("{}\n", current << 20);
            fake.write(&format!("{directory}/memory.current"), &text);
        };
        group("a/b", "max", 50);
        assert_eq!(mib(&fake.root), Some(1000));
        group("a", &(100_u64 << 20).to_string(), 50);
        assert_eq!(mib(&fake.root), Some(50));
        let cache = format!(
            "file {}\ninactive_file {}\nactive_file {}\n",
            90 << 20,
            10 << 20,
            5 << 20
        );
        fake.write("sys/fs/cgroup/a/memory.stat", &cache);
        let found = available_memory(&fake.root).unwrap();
        assert_eq!(found.bytes >> 20, 65);
        let group = MemoryLimit::ControlGroup("/sys/fs/cgroup/a".into());
        assert_eq!(found.limit, group);
    }

    proptest::proptest! {
        // A tree of files is made for each.
        #![proptest_config(proptest::test_runner::Config::with_cases(32))]

        #[test]
        fn no_text_makes_it_panic(text in "\\PC*", number in "[0-9]{1,24}") {
            let fake = Fake::new();
            fake.write("proc/sys/vm/overcommit_memory", "2");
            fake.write("proc/meminfo", &format!(
                "MemAvailable: {number} kB\nCommitLimit: {number}\nCommitted_AS: {text}\n{text}"
            ));
            fake.write("proc/self/cgroup", &format!("{text}\n0::/a\n"));
            fake.write("sys/fs/cgroup/a/memory.max", &number);
            fake.write("sys/fs/cgroup/a/memory.current", &text);
            fake.write("sys/fs/cgroup/a/memory.stat", &format!("{text}\nactive_file {number}"));
            let _ = available_memory(&fake.root);
        }
    }
}
