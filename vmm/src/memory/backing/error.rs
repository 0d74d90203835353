// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Why guest memory cannot be allocated or pinned.

use std::error::Error;

use address::units::Memory;
use host::{AvailableMemory, Id};
use iommufd_backend::hugepages::HugepageSize;
use iommufd_backend::{Error as Backend, locked_memory_hint};
use strum::{EnumDiscriminants, EnumIter, IntoEnumIterator, IntoStaticStr};

use crate::error::explain::{ExitCode, Explain, Limits, ProcessError};

/// Guest memory cannot be taken or pinned.
#[derive(Debug, thiserror::Error, EnumDiscriminants)]
#[strum_discriminants(
    name(PinErrorKind),
    derive(EnumIter, IntoStaticStr),
    strum(serialize_all = "kebab-case"),
    doc = "The kinds of [`PinError`]; their names stay."
)]
pub enum PinError {
    /// Too few hugepages in the pool; or enough, and the kernel gives this process no more of them.
    #[error(
        "Guest memory needs {need} hugepages of {size}, of which {}",
        if *need > got.saturating_add(*free) {
            format!(
                "{} are available ({total} in the host's pool, the rest in use or reserved)",
                got.saturating_add(*free)
            )
        } else {
            format!(
                "this process got {got}: the host's pool has {free} more free pages ({total} in \
                 all), but the host kernel refuses them to this process"
            )
        }
    )]
    TooFewHugepages {
        /// Size of the pages.
        size: HugepageSize,
        /// Pages that the guest needs in all.
        need: u64,
        /// Those of them that it got before the kernel refused more.
        got: u64,
        /// Pages of the pool that are free and not reserved.
        free: u64,
        /// Pages in the pool.
        total: u64,
    },
    /// Too few of the pool's hugepages are where devices reach them.
    #[error(
        "Guest memory needs {need} hugepages that the PCI host bridge reaches; of the {pinned} that the pool gave, it \
         reaches {reached}"
    )]
    OutOfReach {
        /// Pages that the guest needs.
        need: usize,
        /// Pages that devices reach.
        reached: usize,
        /// Pages that were taken in all.
        pinned: usize,
    },
    /// Less ordinary memory than the guest is to have.
    #[error("Guest memory needs {} MiB of ordinary host memory, but only {available}", bytes >> 20)]
    TooLittleMemory {
        /// Bytes needed.
        bytes: u64,
        /// What there is at most.
        available: AvailableMemory,
    },
    /// A limit on locked memory that is lower than what is to be pinned.
    #[error(
        "Guest memory needs {} of locked memory, but the limit of this process is {}",
        Memory(*bytes), Memory(*limit)
    )]
    LockedMemory {
        /// Bytes needed.
        bytes: u64,
        /// The limit, in bytes.
        limit: u64,
    },
    /// Synthetic physical memory, which has no room.
    #[error(transparent)]
    Software(Box<dyn Error + Send + Sync>),
    /// The kernel refuses to pin memory.
    #[error(transparent)]
    Backend(#[from] Backend),
    /// This process cannot have memory.
    #[error(transparent)]
    Process(#[from] ProcessError),
}

impl PinError {
    /// The same, for all `bytes` of guest memory: the limit on locked memory has to hold them all,
    /// however few were to be pinned at once.
    pub fn of_all(self, bytes: u64) -> Self {
        match self {
            Self::Backend(error) => Self::Backend(of_all(bytes)(error)),
            error => error,
        }
    }
}

/// As [`PinError::of_all`].
pub fn of_all(bytes: u64) -> impl Fn(Backend) -> Backend {
    move |error| match error {
        Backend::Pin { source, .. } => Backend::Pin { len: bytes, source },
        error => error,
    }
}

impl Explain for PinError {
    fn ids() -> Vec<&'static str> {
        let own = PinErrorKind::iter()
            .filter(|kind| !matches!(kind, PinErrorKind::Backend | PinErrorKind::Process));
        own.map(Into::into).collect()
    }

    fn id(&self) -> &'static str {
        match self {
            Self::Backend(error) => error.id(),
            Self::Process(error) => error.id(),
            _ => PinErrorKind::from(self).into(),
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::TooFewHugepages { .. }
            | Self::OutOfReach { .. }
            | Self::TooLittleMemory { .. }
            | Self::LockedMemory { .. }
            | Self::Software(_) => ExitCode::Memory,
            Self::Backend(error) => error.exit_code(),
            Self::Process(error) => error.exit_code(),
        }
    }

    fn hint(&self, limits: Limits) -> Option<String> {
        match self {
            Self::TooFewHugepages {
                size,
                need,
                got,
                free,
                total,
            } => {
                let missing = need.saturating_sub(*got);
                Some(match missing <= *free {
                    true => refused_hugepages(*size),
                    false => reserve(*size, total.saturating_add(missing - free)),
                })
            }
            Self::OutOfReach { .. } => Some(
                "reserve more hugepages, and omit spare=, so that the run may look at all of them; or keep the host from \
                 using the memory beyond (mem=SIZE on its kernel's command line)"
                    .to_owned(),
            ),
            Self::TooLittleMemory { available, .. } => Some(available.hint()),
            Self::LockedMemory { bytes, .. } => Some(locked_memory_hint(*bytes)),
            Self::Software(_) => {
                Some("use a smaller --memory: --software has 28 GiB of synthetic memory".to_owned())
            }
            Self::Backend(error) => Explain::hint(error, limits),
            Self::Process(error) => error.hint(limits),
        }
    }

    fn check(&self, limits: Limits) -> Option<Id> {
        match self {
            Self::TooFewHugepages { .. } | Self::OutOfReach { .. } => Some(Id::Hugepages),
            Self::TooLittleMemory { .. } => Some(Id::AvailableMemory),
            Self::LockedMemory { .. } => Some(Id::Memlock),
            Self::Software(_) => None,
            Self::Backend(error) => error.check(limits),
            Self::Process(error) => error.check(limits),
        }
    }
}

/// What to do where the pool has free hugepages, and the kernel refuses them.
fn refused_hugepages(size: HugepageSize) -> String {
    format!(
        "raise hugetlb.{size}B.max or hugetlb.{size}B.rsvd.max of the control group (hugepages limit \
         of a container), or allow this process memory of all NUMA nodes (numactl --membind=all, \
         cpuset.mems)"
    )
}

/// How a pool comes to have `total` hugepages.
fn reserve(size: HugepageSize, total: u64) -> String {
    let pool = size.pool_name();
    format!(
        "echo {total} > /sys/kernel/mm/hugepages/{pool}/nr_hugepages; if that file then reads \
         lower, host memory is too fragmented: echo 1 > /proc/sys/vm/compact_memory and repeat, or \
         reserve them at boot (hugepagesz={size} hugepages={total} on the host kernel's command \
         line)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_on_locked_memory_is_reported_for_all_of_it() {
        let page = PinError::from(Backend::Pin {
            len: 2 << 20,
            source: std::io::Error::from_raw_os_error(libc::ENOMEM),
        });
        let error = page.of_all(2 << 30);
        assert!(error.to_string().contains("2048 MiB"), "{error}");
    }

    #[test]
    fn missing_pages_are_distinguished_from_those_that_are_refused() {
        let report = |got, free| {
            let error = PinError::TooFewHugepages {
                size: HugepageSize::Mib2,
                need: 300,
                got,
                free,
                total: 900,
            };
            (error.to_string(), error.hint(Limits::NONE).unwrap())
        };
        for (got, free) in [(0, 100), (40, 60)] {
            let (text, hint) = report(got, free);
            assert!(
                text.contains("needs 300 hugepages of 2M, of which 100 are available"),
                "{text}"
            );
            assert!(text.ends_with("in use or reserved)"), "{text}");
            assert!(hint.contains("echo 1100 >"), "{hint}");
            assert!(hint.contains("compact_memory"), "{hint}");
        }
        let (text, hint) = report(32, 700);
        assert!(
            text.contains("needs 300 hugepages of 2M, of which this process got 32"),
            "{text}"
        );
        assert!(text.contains("700 more free pages"), "{text}");
        assert!(
            hint.contains("hugetlb.2MB.max or hugetlb.2MB.rsvd.max")
                && hint.contains("cpuset.mems"),
            "{hint}"
        );
        assert!(!hint.contains("echo"), "{hint}");
    }
}
