// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Checks whether enough ordinary memory is available for a guest that needs no hugepages.

use std::fmt;

use crate::checks::id::Id;
use crate::checks::line::Line;
use crate::facts::available_memory::{AvailableMemory, MemoryLimit, available_memory};
use crate::sys_root::SysRoot;
use crate::wanted::WantedMemory;

impl fmt::Display for AvailableMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB are available", self.bytes >> 20)?;
        match &self.limit {
            MemoryLimit::Machine => Ok(()),
            MemoryLimit::ControlGroup(group) => {
                write!(f, " (memory.max of control group {})", group.display())
            }
            MemoryLimit::Overcommit => {
                write!(f, " (vm.overcommit_memory=2: CommitLimit of /proc/meminfo)")
            }
        }
    }
}

impl AvailableMemory {
    /// What makes more of it available.
    #[must_use]
    pub fn hint(&self) -> String {
        match &self.limit {
            MemoryLimit::Machine => {
                "end other programs on the host, or use a smaller --memory; free -m".to_owned()
            }
            MemoryLimit::ControlGroup(group) => format!(
                "raise memory.max of {}, which is MemoryMax= of a systemd unit and --memory of a container",
                group.display()
            ),
            MemoryLimit::Overcommit => {
                "sysctl vm.overcommit_memory=0, or raise vm.overcommit_ratio".to_owned()
            }
        }
    }
}

/// [`Id::AvailableMemory`]
pub(crate) fn check(root: &SysRoot, memory: Option<&WantedMemory>, of_hugepages: bool) -> Line {
    let id = Id::AvailableMemory;
    if of_hugepages {
        return Line::ok(id, "Not needed: guest memory uses hugepages");
    }
    let Some(available) = available_memory(root) else {
        return Line::warn(
            id,
            "Cannot read the amount of available memory from /proc/meminfo",
            "free -m",
        );
    };
    match memory {
        Some(memory) if memory.bytes > available.bytes => Line::fail(
            id,
            format!(
                "{} MiB are required, but only {available}",
                memory.bytes >> 20
            ),
            available.hint(),
        ),
        Some(memory) => Line::ok(
            id,
            format!("{} MiB are required, and {available}", memory.bytes >> 20),
        ),
        None => Line::ok(id, available.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::line::Verdict;
    use crate::sys_root::tests::Fake;

    fn meminfo_of(fake: &Fake, lines: &[(&str, u64)]) {
        let lines: Vec<_> = lines
            .iter()
            .map(|(name, mib)| format!("{name}:   {} kB\n", mib << 10))
            .collect();
        fake.write("proc/meminfo", &lines.concat());
    }

    #[test]
    fn each_limit_has_a_hint() {
        for (limit, text, hint) in [
            (
                MemoryLimit::Machine,
                "1 MiB are available",
                "end other programs",
            ),
            (
                MemoryLimit::ControlGroup("/sys/fs/cgroup/a".into()),
                "memory.max of control group /sys/fs/cgroup/a",
                "raise memory.max of /sys/fs/cgroup/a,",
            ),
            (
                MemoryLimit::Overcommit,
                "vm.overcommit_memory=2",
                "sysctl vm.overcommit_memory=0",
            ),
        ] {
            let available = AvailableMemory {
                bytes: 1 << 20,
                limit,
            };
            assert!(available.to_string().contains(text), "{available}");
            assert!(available.hint().starts_with(hint), "{available}");
        }
    }

    #[test]
    fn memory_that_is_needed_is_compared_with_what_there_is() {
        let fake = Fake::new();
        let wanted = |bytes| WantedMemory {
            bytes,
            hugepage_size: None,
        };
        let judge =
            |bytes, of_hugepages| check(&fake.root, Some(&wanted(bytes)), of_hugepages).verdict;
        assert_eq!(judge(1, false), Verdict::Warn);
        meminfo_of(&fake, &[("MemAvailable", 64)]);
        assert_eq!(judge(64 << 20, false), Verdict::Ok);
        assert_eq!(judge((64 << 20) + 1, false), Verdict::Fail);
        assert_eq!(judge((64 << 20) + 1, true), Verdict::Ok);
        assert_eq!(check(&fake.root, None, false).verdict, Verdict::Ok);
    }
}
