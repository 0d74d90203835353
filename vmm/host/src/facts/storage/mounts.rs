// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Lists of mounts.

use std::collections::BTreeSet;

use super::blocks::{block_of_path, number_of};
use crate::sys_root::SysRoot;

/// The mounts that a list has.
pub(super) fn mounts_in(text: &str) -> impl Iterator<Item = Mount> {
    text.lines().filter_map(mount)
}

/// The one of `blocks` that is mounted there.
pub(super) fn mount_of(root: &SysRoot, blocks: &BTreeSet<String>, mount: &Mount) -> Option<String> {
    let has_number = |block: &&String| {
        let number = number_of(root, block);
        !number.is_empty() && number == mount.number
    };
    // A file system over several devices has its own number.
    blocks.iter().find(has_number).cloned().or_else(|| {
        let block = block_of_path(root, &mount.source);
        blocks.contains(&block).then_some(block)
    })
}

/// A line of `/proc/self/mountinfo` (Linux Documentation/filesystems/proc.rst).
#[derive(Debug)]
pub(super) struct Mount {
    number: String,
    pub at: String,
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

/// Takes back the kernel's `\040` for a space and its like.
pub(super) fn unescape(text: &str) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

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
        #[test]
        fn no_text_makes_it_panic(text in "\\PC*", bytes in "[\\\\0-7 é-]*") {
            mount(&text);
            unescape(&bytes);
        }
    }
}
