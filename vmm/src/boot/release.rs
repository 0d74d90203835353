// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The release of Linux, from the kernel's version text.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use memchr::memmem::Finder;

/// A release of Linux: the first two numbers of what `uname -r` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    /// The first number.
    pub major: u16,
    /// The second number.
    pub minor: u16,
}

/// Start of the banner (init/version-timestamp.c, `linux_banner`); the release follows, then a
/// space and who compiled it, in parentheses.
const BANNER: &[u8] = b"Linux version ";
/// Longest release (include/uapi/linux/utsname.h, __NEW_UTS_LEN).
const MAX_LEN: usize = 64;
/// Bytes of a banner that are looked at.
const BANNER_LENGTH: usize = BANNER.len() + MAX_LEN + 2;

/// Bytes that are searched at once.
const STEP: usize = 1 << 20;
/// Bytes that are searched in all, so that a file whose headers name the same bytes many times
/// costs no more time than a large kernel.
const MAX_SEARCHED: u64 = 512 << 20;

/// Read-only data of Linux on x86 begin at a multiple of this in the first segment (arch/x86/kernel/vmlinux.lds.S
/// `X86_ALIGN_RODATA_BEGIN`).
const DATA_STEP: usize = 2 << 20;
/// Bytes of them that are likely to have the banner: init/version.o is one of the first objects of a kernel.
const DATA_START: u64 = 4096;

impl Release {
    /// The release that `text` begins with.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (major, rest) = number(text)?;
        let (minor, _) = number(rest.strip_prefix(b".")?)?;
        Some(Self { major, minor })
    }

    /// The release in the banner that `text` begins with.
    fn in_banner(text: &[u8]) -> Option<Self> {
        let text = text.strip_prefix(BANNER)?;
        let length = text.iter().position(|byte| *byte == b' ')?;
        let is_banner = length <= MAX_LEN && text.get(length + 1) == Some(&b'(');
        is_banner.then(|| Self::parse(text)).flatten()
    }

    /// The release in the banner where Linux has it; failing that, in the banners that are in `parts` of `file`, the
    /// oldest if they differ, as a kernel may hold another one. `None` without a banner, and if there are more than
    /// 512 MiB to search.
    ///
    /// # Errors
    /// The errno of reading the file.
    pub fn find(file: &File, parts: &[Range<u64>]) -> io::Result<Option<Self>> {
        let first = parts.first().cloned().unwrap_or_default();
        let first = first.start..first.end.min(first.start.saturating_add(MAX_SEARCHED));
        for start in first.clone().step_by(DATA_STEP) {
            let start_of_data = start..first.end.min(start + DATA_START);
            if let Some(release) = Self::search(file, &[start_of_data])? {
                return Ok(Some(release));
            }
        }
        Self::search(file, parts)
    }

    /// The oldest release in the banners that are in `parts` of `file`.
    fn search(file: &File, parts: &[Range<u64>]) -> io::Result<Option<Self>> {
        let finder = Finder::new(BANNER);
        let mut found: Option<Self> = None;
        let mut left = MAX_SEARCHED;
        // Each step begins with the end of the one before, where a banner may have begun.
        let longest = parts.iter().map(|part| part.end - part.start).max();
        let step = usize::try_from(longest.unwrap_or(0)).map_or(STEP, |longest| longest.min(STEP));
        let mut bytes = vec![0; BANNER_LENGTH + step];
        for part in parts {
            let length = part.end - part.start;
            let Some(rest) = left.checked_sub(length) else {
                return Ok(None);
            };
            left = rest;
            let (mut kept, mut done) = (0, 0);
            while done < length {
                let count = usize::try_from(length - done).unwrap_or(STEP).min(STEP);
                file.read_exact_at(&mut bytes[kept..kept + count], part.start + done)?;
                let searched = &bytes[..kept + count];
                let banners = finder
                    .find_iter(searched)
                    .filter_map(|at| Self::in_banner(&searched[at..]));
                found = found.into_iter().chain(banners).min();
                done += count as u64;
                let end = kept + count;
                let keep = BANNER_LENGTH.min(end);
                bytes.copy_within(end - keep..end, 0);
                kept = keep;
            }
        }
        Ok(found)
    }
}

impl std::fmt::Display for Release {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The decimal number that `text` begins with, and what follows it.
fn number(text: &[u8]) -> Option<(u16, &[u8])> {
    let length = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = text.split_at(length);
    let number = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some((number, rest))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    const fn release(major: u16, minor: u16) -> Option<Release> {
        Some(Release { major, minor })
    }

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn search(bytes: &[u8]) -> Option<Release> {
        Release::search(&file(bytes), &[0..bytes.len() as u64]).unwrap()
    }

    #[test]
    fn releases_are_read_and_compared() {
        for (text, expected) in [
            (
                "5.10.0-32-amd64 (debian-kernel@lists.debian.org)",
                release(5, 10),
            ),
            ("6.1-rc1", release(6, 1)),
            ("5.13", release(5, 13)),
            ("4.4.302+", release(4, 4)),
            ("5", None),
            ("5.", None),
            (".13", None),
            ("Memtest86+ 6.20", None),
            ("99999.1", None),
            ("", None),
        ] {
            assert_eq!(Release::parse(text.as_bytes()), expected, "{text}");
        }
        assert!(release(5, 9) < release(5, 13));
        assert!(release(4, 19) < release(5, 13));
        assert!(release(6, 1) > release(5, 13));
    }

    #[test]
    fn only_a_whole_banner_counts() {
        let banner = "Linux version 5.10.0-32-amd64 (debian-kernel@lists.debian.org) (gcc-10";
        assert_eq!(search(format!("x\0{banner}").as_bytes()), release(5, 10));
        for other in [
            "Linux version %s (%s)".to_owned(),
            "needs Linux version 5.10 or later (see docs)".into(),
            "Linux version 5.10.0-32-amd64".into(),
            format!("Linux version 5.10{} (x", "a".repeat(MAX_LEN)),
            banner.replace('L', "l"),
        ] {
            assert_eq!(search(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn the_oldest_of_several_counts() {
        let both = b"Linux version 6.1.0 (a@b)\nLinux version 5.4.0 (a@b)\nLinux version 6.6.1 (a";
        assert_eq!(search(both), release(5, 4));
    }

    #[test]
    fn what_is_named_too_often_is_not_searched() {
        let bytes = b"Linux version 6.1.0 (a@b)";
        let file = file(bytes);
        let part = 0..bytes.len() as u64;
        let parts = [part.clone(), part.clone()];
        assert_eq!(Release::search(&file, &parts).unwrap(), release(6, 1));
        file.set_len(MAX_SEARCHED).unwrap();
        let parts = [part, 0..MAX_SEARCHED];
        assert_eq!(Release::find(&file, &parts).unwrap(), release(6, 1));
        file.write_all_at(&[0], 0).unwrap();
        assert_eq!(Release::find(&file, &parts).unwrap(), None);
        let beyond = [MAX_SEARCHED - 1..MAX_SEARCHED + 1];
        assert!(Release::find(&file, &beyond).is_err());
    }

    #[test]
    fn the_banner_at_the_start_of_the_data_is_the_kernels() {
        let file = file(b"Linux version 5.4.0 (an older one");
        let data = DATA_STEP as u64 + 4096;
        file.write_all_at(b"Linux version 6.1.0 (its own", data + 416)
            .unwrap();
        file.set_len(2 * data).unwrap();
        let find = |part| Release::find(&file, &[part]).unwrap();
        assert_eq!(find(4096..2 * data), release(6, 1));
        assert_eq!(find(0..2 * data), release(5, 4));
        assert_eq!(find(1..2 * data), release(6, 1));
        assert_eq!(find(0..0), None);
    }

    proptest! {
        /// A banner is found wherever it is, across the borders of steps too.
        #[test]
        fn a_banner_is_found_anywhere(before in prop_oneof![
            0..4_usize, STEP - 2 * BANNER_LENGTH..STEP + BANNER_LENGTH,
        ]) {
            let mut bytes = vec![b'L'; before];
            bytes.extend(b"Linux version 4.19.0-26-amd64 (x@y)");
            bytes.resize(STEP + 3 * BANNER_LENGTH, b'L');
            prop_assert_eq!(search(&bytes), release(4, 19));
        }
    }
}
