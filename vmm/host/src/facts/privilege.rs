// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The caller's privileges: capabilities, limits, system calls.

use std::fs;
use std::path::Path;

use crate::sys_root::SysRoot;

/// Numbers of capabilities (include/uapi/linux/capability.h).
pub(crate) const SYS_RAWIO: u32 = 17;
pub(crate) const IPC_LOCK: u32 = 14;
pub(crate) const SYS_ADMIN: u32 = 21;

/// `/proc/self/ns/user` in the first user namespace (include/linux/proc_ns.h PROC_USER_INIT_INO).
const FIRST_NAMESPACE: &str = "user:[4026531837]";

/// `/proc/self/uid_map` in the first user namespace. Another one can have the same.
const EVERY_ID: [&str; 3] = ["0", "0", "4294967295"];

/// The mode of system calls in `/proc/self/status` that is a filter (include/uapi/linux/seccomp.h SECCOMP_MODE_FILTER).
const FILTER: &str = "2";

/// What the kernel allows the caller.
#[derive(Clone, Copy, Debug)]
pub struct Privilege {
    effective: u64,
    /// The kernel asks for capabilities in the first user namespace, whatever they are elsewhere.
    pub(crate) is_first_namespace: bool,
    is_filtered: bool,
}

impl Privilege {
    /// As it is now.
    #[must_use]
    pub fn of_caller(root: &SysRoot) -> Self {
        // A kernel without user namespaces has neither file, and every process is in the first.
        let is_first_namespace = match fs::read_link(root.path("proc/self/ns/user")) {
            Ok(name) => name == Path::new(FIRST_NAMESPACE),
            Err(_) => {
                let map = root.word("proc/self/uid_map");
                map.is_empty() || map.split_whitespace().eq(EVERY_ID)
            }
        };
        let status = root.word("proc/self/status");
        Self {
            effective: effective(&status),
            is_first_namespace,
            is_filtered: value_of(&status, "Seccomp:") == Some(FILTER),
        }
    }

    pub(crate) fn has(self, capability: u32) -> bool {
        self.is_first_namespace && self.effective & (1 << capability) != 0
    }

    /// Whether a seccomp filter looks at the caller's system calls.
    #[must_use]
    pub fn has_seccomp_filter(self) -> bool {
        self.is_filtered
    }

    /// The limit on locked memory in bytes; `None` where there is none, or the caller is not subject to it.
    #[must_use]
    pub fn locked_memory_limit(self, root: &SysRoot) -> Option<u64> {
        match self.has(IPC_LOCK) {
            true => None,
            false => memlock(root).flatten(),
        }
    }
}

pub(crate) fn effective(status: &str) -> u64 {
    value_of(status, "CapEff:")
        .and_then(|mask| u64::from_str_radix(mask, 16).ok())
        .unwrap_or(0)
}

/// What a line of `/proc/self/status` has after its name.
fn value_of<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.map(str::trim)
}

/// A limit of this process: `None` for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    /// The one that applies.
    pub soft: Option<u64>,
    /// The one to which the caller may raise it.
    pub hard: Option<u64>,
}

pub(crate) fn limit_in(limits: &str, name: &str) -> Option<Limit> {
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    let number = |text: &str| match text {
        "unlimited" => Some(None),
        number => number.parse().ok().map(Some),
    };
    let mut columns = line.split_whitespace();
    Some(Limit {
        soft: number(columns.next()?)?,
        hard: number(columns.next()?)?,
    })
}

/// The limit of this process that has this name in `/proc/self/limits`; `None` if it cannot be read.
pub(crate) fn limit(root: &SysRoot, name: &str) -> Option<Limit> {
    limit_in(&root.word("proc/self/limits"), name)
}

/// Soft limit on locked memory in bytes, `None` for none.
pub(crate) fn memlock(root: &SysRoot) -> Option<Option<u64>> {
    limit(root, "Max locked memory").map(|limit| limit.soft)
}
