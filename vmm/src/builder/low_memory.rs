//! What a guest is told of its first MiB, so that it gives none of it to a device.
//!
//! In the identity layout this is the only memory that is not at its host-physical addresses
//! ([`low`](crate::memory::low)): a device that gets some of it for DMA uses the host's memory there.
//! Linux keeps all of it from its page allocator since 5.13. Before, it gives 64 KiB to 640 KiB away,
//! and `reservelow=640K` on its command line keeps these: `trim_low_memory_range` in
//! arch/x86/kernel/setup.c reserves them, after `reserve_real_mode` has taken what the start of further
//! CPUs needs. Of other programs nothing is known, so the memory map does not call it RAM.

use std::borrow::Cow;

use crate::boot::release::Release;
use crate::config::LowMemory;
use crate::memory::e820::Kind;

/// What makes Linux before 5.13 keep all low memory that is RAM; 640 KiB are the most that it takes
/// (arch/x86/kernel/setup.c, `parse_reservelow`).
const OPTION: &str = "reservelow=640K";
const OPTION_NAME: &str = "reservelow=";

/// What is told.
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

    /// For a guest in the identity layout whose kernel is this release of Linux, or does not say so.
    pub fn identity(wanted: LowMemory, release: Option<Release>) -> Self {
        let is_old = release.is_some_and(|release| release < Release::KEEPS_FIRST_MIB);
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
                "low memory: {kernel}, older than {}: {OPTION} is on its command line, so that no \
                 driver gets any for DMA",
                Release::KEEPS_FIRST_MIB
            ),
            (Kind::Ram, false) if release.is_some() => {
                log::info!("low memory: {kernel}, which gives none of it to drivers");
            }
            (Kind::Ram, false) => log::info!("low memory: RAM, as --low-memory says; {kernel}"),
            (Kind::Reserved, _) if wanted == LowMemory::Reserved => {
                log::info!("low memory: reserved, as --low-memory says");
            }
            (Kind::Reserved, _) => log::info!(
                "low memory: {kernel}: reserved in its memory map, since it is not for DMA \
                 (--low-memory ram makes it RAM)"
            ),
        }
    }

    /// The kernel's command line.
    pub fn command_line(self, given: &str) -> Cow<'_, str> {
        if self.asks_kernel {
            with_option(given)
        } else {
            given.into()
        }
    }
}

/// `line` with [`OPTION`] as the last of its name: the last one wins. It stands before what is not
/// the kernel's: words behind `--` are init's (lib/cmdline.c, `next_arg`, and kernel/params.c,
/// `parse_args`). A quote that does not end takes all that follows into its word.
fn with_option(line: &str) -> Cow<'_, str> {
    let words = words(line);
    let end = words
        .iter()
        .position(|word| word.text.trim_matches('"') == "--" || !word.ends)
        .unwrap_or(words.len());
    let mut kernels = words[..end].iter().rev().map(|word| word.text);
    if kernels.find(|word| word.starts_with(OPTION_NAME)) == Some(OPTION) {
        return line.into();
    }
    match words.get(end) {
        Some(word) => {
            let (before, after) = line.split_at(word.start);
            format!("{before}{OPTION} {after}").into()
        }
        None if line.is_empty() => OPTION.into(),
        None => format!("{line} {OPTION}").into(),
    }
}

/// A word of a command line.
struct Word<'a> {
    start: usize,
    text: &'a str,
    /// Its quotes, if it has any, end.
    ends: bool,
}

/// The words of a command line, which quotes may hold together.
fn words(line: &str) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    let mut start = None;
    let mut quoted = false;
    for (at, byte) in line.bytes().enumerate() {
        // What Linux's isspace() calls space; the vertical tab is not in the standard library's.
        let is_space = byte.is_ascii_whitespace() || byte == 0x0b;
        match start {
            None if !is_space => start = Some(at),
            Some(first) if is_space && !quoted => {
                words.push(Word {
                    start: first,
                    text: &line[first..at],
                    ends: true,
                });
                start = None;
            }
            _ => {}
        }
        quoted ^= byte == b'"';
    }
    words.extend(start.map(|start| Word {
        start,
        text: &line[start..],
        ends: !quoted,
    }));
    words
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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

    #[test]
    fn the_option_is_the_last_of_the_kernels() {
        for (line, expected) in [
            ("", "reservelow=640K"),
            ("quiet", "quiet reservelow=640K"),
            ("reservelow=640K quiet", "reservelow=640K quiet"),
            (
                "reservelow=640K reservelow=64K",
                "reservelow=640K reservelow=64K reservelow=640K",
            ),
            ("quiet -- a", "quiet reservelow=640K -- a"),
            ("-- reservelow=640K", "reservelow=640K -- reservelow=640K"),
            (
                "a=\"b -- c\" \"--\" d",
                "a=\"b -- c\" reservelow=640K \"--\" d",
            ),
            ("quiet a=\"b -- c", "quiet reservelow=640K a=\"b -- c"),
            ("quiet\x0b--\x0ba", "quiet\x0breservelow=640K --\x0ba"),
        ] {
            assert_eq!(with_option(line), expected, "{line}");
        }
    }

    proptest! {
        /// What was there stays, in its order, and the option comes before `--`.
        #[test]
        fn nothing_else_changes(line in "([a-z]{0,3}|--|\"|=| |é|reservelow=(4K|640K)){0,12}") {
            let found = with_option(&line).into_owned();
            let own: Vec<_> = words(&line).iter().map(|word| word.text).collect();
            let mut more: Vec<_> = words(&found).iter().map(|word| word.text).collect();
            if let Some(at) = (found != line).then(|| {
                let is_new = |at: &usize| own.get(*at) != more.get(*at);
                (0..more.len()).find(is_new)
            }).flatten() {
                prop_assert_eq!(more.remove(at), OPTION);
            }
            prop_assert_eq!(more, own);
        }
    }
}
