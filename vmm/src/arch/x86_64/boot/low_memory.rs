// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How the first MiB is described to a guest, so that it gives none of it to a device.
//!
//! In the identity layout this is the only memory that is not at its host-physical addresses
//! ([`low`](crate::arch::x86_64::low)): a device that gets some of it for DMA uses the host's memory there.
//! Linux keeps all of it from its page allocator since 5.13. Before, it gives 64 KiB to 640 KiB away,
//! and `reservelow=640K` on its command line keeps these: `trim_low_memory_range` in
//! arch/x86/kernel/setup.c reserves them, after `reserve_real_mode` has taken what the start of further
//! CPUs needs. Of other programs nothing is known, so the memory map does not call it RAM.

use std::borrow::Cow;

use crate::arch::x86_64::e820::Kind;
use crate::boot::command_line;
use crate::boot::release::Release;
use crate::config::LowMemory;

/// The first release that keeps all of its first MiB from its page allocator
/// (arch/x86/realmode/init.c, `reserve_real_mode`, since commit f1d4d47c5851).
const KEEPS_FIRST_MIB: Release = Release {
    major: 5,
    minor: 13,
};
/// With what Linux before 5.13 keeps low memory that is RAM.
const OPTION: &str = "reservelow";
/// All of it, and the most that the option takes (arch/x86/kernel/setup.c, `parse_reservelow`).
const ALL: &str = "640K";

/// The description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LowMemoryUse {
    /// What the memory map calls it.
    pub kind: Kind,
    /// Whether the kernel has to be asked to keep it.
    asks_kernel: bool,
}

impl LowMemoryUse {
    /// For a guest whose devices do not use physical addresses.
    pub fn conventional(wanted: LowMemory) -> Self {
        Self {
            kind: match wanted {
                LowMemory::Auto | LowMemory::Ram => Kind::Ram,
                LowMemory::Reserved => Kind::Reserved,
            },
            asks_kernel: false,
        }
    }

    /// For a guest in the identity layout whose kernel is this release of Linux, or of unknown
    /// release.
    pub fn identity(wanted: LowMemory, release: Option<Release>) -> Self {
        let is_old = release.is_some_and(|release| release < KEEPS_FIRST_MIB);
        let kind = match (wanted, release) {
            (LowMemory::Reserved, _) | (LowMemory::Auto, None) => Kind::Reserved,
            (LowMemory::Ram, _) | (LowMemory::Auto, Some(_)) => Kind::Ram,
        };
        let told = Self {
            kind,
            asks_kernel: is_old && kind == Kind::Ram,
        };
        told.log(wanted, release);
        told
    }

    fn log(self, wanted: LowMemory, release: Option<Release>) {
        let kernel = match release {
            Some(release) => format!("the kernel is Linux {release}"),
            None => "the kernel is not known to be Linux".to_owned(),
        };
        match (self.kind, self.asks_kernel) {
            (Kind::Ram, true) => log::info!(
                "low memory: {kernel}, older than {KEEPS_FIRST_MIB}: {OPTION}={ALL} is added to its command line, \
                 so that drivers get none of it for DMA",
            ),
            (Kind::Ram, false) if release.is_some() => {
                log::info!("low memory: {kernel}, which does not give it to drivers");
            }
            (Kind::Ram, false) => log::info!("low memory: RAM, as requested; {kernel}"),
            (Kind::Reserved, _) if wanted == LowMemory::Reserved => {
                log::info!("low memory: reserved, as requested");
            }
            (Kind::Reserved, _) => log::info!(
                "low memory: {kernel}: reserved in its memory map, because devices cannot access \
                 it (--low-memory ram makes it RAM)"
            ),
        }
    }

    /// The kernel's command line.
    pub fn command_line(self, given: &str) -> Cow<'_, str> {
        if self.asks_kernel {
            command_line::with_option(given, OPTION, ALL)
        } else {
            given.into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn release(major: u16, minor: u16) -> Option<Release> {
        Some(Release { major, minor })
    }

    #[test]
    fn only_known_kernels_have_low_ram() {
        use LowMemory::{Auto, Ram, Reserved};
        for (wanted, release, kind, asks) in [
            (Auto, release(5, 10), Kind::Ram, true),
            (Auto, release(5, 12), Kind::Ram, true),
            (Auto, release(5, 13), Kind::Ram, false),
            (Auto, release(6, 1), Kind::Ram, false),
            (Auto, None, Kind::Reserved, false),
            (Ram, release(4, 19), Kind::Ram, true),
            (Ram, release(6, 1), Kind::Ram, false),
            (Ram, None, Kind::Ram, false),
            (Reserved, release(4, 19), Kind::Reserved, false),
            (Reserved, None, Kind::Reserved, false),
        ] {
            let found = LowMemoryUse::identity(wanted, release);
            let expected = LowMemoryUse {
                kind,
                asks_kernel: asks,
            };
            assert_eq!(found, expected, "{wanted:?} {release:?}");
        }
    }

    #[test]
    fn a_conventional_guest_has_low_ram_unless_asked() {
        let kind = |wanted| LowMemoryUse::conventional(wanted).kind;
        assert_eq!(kind(LowMemory::Auto), Kind::Ram);
        assert_eq!(kind(LowMemory::Reserved), Kind::Reserved);
        let told = LowMemoryUse::conventional(LowMemory::Ram);
        assert_eq!(told.command_line("quiet"), "quiet");
    }
}
