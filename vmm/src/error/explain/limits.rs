// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Limits of this process and settings of the kernel that cause an errno.

use std::error::Error as StdError;
use std::io;
use std::sync::OnceLock;

use host::{Privilege, SysRoot, refuses_overcommit};
use rustix::process::{Resource, getrlimit};

/// The limits and settings, as they are now; `None` for a limit that is not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `RLIMIT_AS`, in bytes.
    address_space: Option<u64>,
    /// `RLIMIT_FSIZE`, in bytes.
    file_size: Option<u64>,
    /// `RLIMIT_NOFILE`.
    open_files: Option<u64>,
    /// `vm.overcommit_memory` is 2.
    promises_only_what_there_is: bool,
    /// `RLIMIT_MEMLOCK` in bytes, where it applies.
    locked_memory: Option<u64>,
    /// A seccomp filter looks at system calls.
    is_filtered: bool,
}

/// Those that count from the time that they are kept.
static KEPT: OnceLock<Limits> = OnceLock::new();

impl Limits {
    /// Reads them, or returns those that were [kept](Self::keep).
    pub fn read() -> Self {
        match KEPT.get() {
            Some(kept) => *kept,
            None => Self::look(),
        }
    }

    /// Reads them for the last time: this process is about to have no access to files any more.
    pub fn keep() {
        KEPT.get_or_init(Self::look);
    }

    fn look() -> Self {
        let root = SysRoot::default();
        let caller = Privilege::of_caller(&root);
        Self {
            address_space: getrlimit(Resource::As).current,
            file_size: getrlimit(Resource::Fsize).current,
            open_files: getrlimit(Resource::Nofile).current,
            locked_memory: caller.locked_memory_limit(&root),
            promises_only_what_there_is: refuses_overcommit(&root),
            is_filtered: caller.has_seccomp_filter(),
        }
    }

    /// Whether a limit on locked memory applies.
    pub fn limit_locked_memory(self) -> bool {
        self.locked_memory.is_some()
    }

    /// Whether a seccomp filter looks at system calls.
    pub fn has_filter(self) -> bool {
        self.is_filtered
    }

    /// Which of them explains `errno`, and what to do about it.
    pub fn explain(self, errno: i32) -> Option<String> {
        match errno {
            libc::EMFILE => Some(format!(
                "raise the limit on open files of this process, which is {}: ulimit -n, LimitNOFILE= of a \
                 systemd unit",
                self.open_files.unwrap_or_default()
            )),
            libc::ENFILE => {
                Some("raise the host's limit on open files: sysctl -w fs.file-max=NUMBER".into())
            }
            libc::EFBIG => self.file_size.map(|bytes| {
                format!(
                    "raise the limit on the size of files, which is {} MiB and applies to guest \
                     memory: ulimit -f unlimited, LimitFSIZE=infinity in a systemd unit",
                    bytes >> 20
                )
            }),
            libc::ENOMEM | libc::ENOSPC => self.explain_memory(errno),
            libc::EPERM | libc::ENOSYS => self.is_filtered.then(|| {
                "a seccomp filter applies to this process and may have denied this system call: \
                 allow it, or run without the filter (containers: --security-opt \
                 seccomp=unconfined)"
                    .to_owned()
            }),
            _ => None,
        }
    }

    fn explain_memory(self, errno: i32) -> Option<String> {
        match self.address_space.filter(|_| errno == libc::ENOMEM) {
            Some(bytes) => Some(format!(
                "raise the limit on this process's address space, which is {} MiB: ulimit -v \
                 unlimited, LimitAS=infinity in a systemd unit",
                bytes >> 20
            )),
            None => self.promises_only_what_there_is.then(|| {
                "the host does not overcommit memory: sysctl vm.overcommit_memory=0, or raise \
                 vm.overcommit_ratio"
                    .to_owned()
            }),
        }
    }
}

/// The errno behind `error`.
pub fn errno(error: &(dyn StdError + 'static)) -> Option<i32> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let kvm = error.downcast_ref::<kvm_ioctls::Error>();
        let io = error.downcast_ref::<io::Error>();
        let found = kvm
            .map(|error| error.errno())
            .or_else(|| io.and_then(io::Error::raw_os_error));
        if found.is_some() {
            return found;
        }
        cause = error.source();
    }
    None
}

/// Limits for tests.
#[cfg(test)]
impl Limits {
    /// No limit.
    pub const NONE: Self = Self {
        address_space: None,
        file_size: None,
        open_files: None,
        promises_only_what_there_is: false,
        locked_memory: None,
        is_filtered: false,
    };

    /// The same, and a seccomp filter.
    pub fn with_filter(self) -> Self {
        Self {
            is_filtered: true,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::super::{Explain, process};
    use super::*;

    const NONE: Limits = Limits::NONE;

    #[test]
    fn locked_memory_is_blamed_only_where_it_is_limited() {
        let error = iommufd_backend::Error::Pin {
            len: 2 << 30,
            source: io::Error::from_raw_os_error(libc::ENOMEM),
        };
        let limited = Limits {
            locked_memory: Some(8 << 20),
            ..NONE
        };
        let hint = Explain::hint(&error, limited).unwrap();
        assert!(hint.contains("ulimit -l 2097152 or more"), "{hint}");
        let hint = Explain::hint(&error, NONE).unwrap();
        assert!(hint.contains("out of memory"), "{hint}");
        assert!(!hint.contains("ulimit"), "{hint}");
    }

    #[test]
    fn only_a_limit_that_is_set_is_named() {
        for errno in [libc::EFBIG, libc::ENOMEM, libc::ENOSPC, libc::EPERM] {
            assert_eq!(NONE.explain(errno), None, "{errno}");
        }
        let named = |limits: Limits, errno, name: &str| {
            let text = limits.explain(errno).unwrap();
            assert!(text.contains(name), "{text}");
        };
        let limit = Some(20 << 20);
        let files = Limits {
            file_size: limit,
            ..NONE
        };
        named(files, libc::EFBIG, "20 MiB and applies to guest memory");
        let space = Limits {
            address_space: limit,
            promises_only_what_there_is: true,
            ..NONE
        };
        named(space, libc::ENOMEM, "20 MiB: ulimit -v");
        named(space, libc::ENOSPC, "vm.overcommit_memory=0");
        let open = Limits {
            open_files: Some(20),
            ..NONE
        };
        named(open, libc::EMFILE, "which is 20: ulimit -n");
        let filtered = NONE.with_filter();
        named(filtered, libc::EPERM, "seccomp");
        named(filtered, libc::ENOSYS, "seccomp");
        assert_eq!(filtered.explain(libc::EACCES), None);
    }

    #[test]
    fn the_errno_is_found_behind_the_error() {
        let wrapped = process("size guest memory")(io::Error::from_raw_os_error(libc::EFBIG));
        assert_eq!(errno(&wrapped), Some(libc::EFBIG));
        let kvm = kvm_ioctls::Error::new(libc::EMFILE);
        assert_eq!(errno(&kvm), Some(libc::EMFILE));
        assert_eq!(errno(&fmt::Error), None);
    }
}
