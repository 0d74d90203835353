// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Options that name addresses, or take memory below 4 GiB, where the layout may have none.

use std::ops::Range;

use address::Gpa;
use address::units::Memory;

use super::{KernelOption, options};
use crate::arch::low;

const FOUR_GIB: Gpa = Gpa(1 << 32);
/// What Linux takes below 4 GiB for a crash kernel that is above (arch/x86/include/asm/crash_reserve.h).
const CRASH_LOW: u64 = 256 << 20;
/// Linux's bounce buffers unless `swiotlb=` changes it, and what that counts in
/// (include/linux/swiotlb.h, `IO_TLB_DEFAULT_SIZE` and `IO_TLB_SHIFT`).
const BOUNCE_BUFFERS: u64 = 64 << 20;
const BOUNCE_SLAB: u64 = 2 << 10;

/// Where a guest has memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout<'a> {
    /// RAM above the first MiB: pieces that ascend and do not touch.
    pub ranges: &'a [Range<Gpa>],
    /// Whether devices use these addresses for the host's.
    pub is_identity: bool,
}

/// What options in `line` do that their user may not have meant.
pub(crate) fn warnings(line: &str, layout: Layout<'_>) -> Vec<String> {
    let mut warnings = Vec::new();
    let low = options(line)
        .filter(|option| option.name == "crashkernel")
        .filter_map(|option| parse(option.value?.strip_suffix(",low")?))
        .map(|(size, _)| size)
        .last();
    for option in options(line) {
        let Some(value) = option.value else { continue };
        match option.name.as_str() {
            "mem" => {
                let cut = parse(value).and_then(|(limit, _)| layout.cut(&option, limit));
                warnings.extend(cut);
            }
            "memmap" => {
                let parts = value.split(',');
                warnings.extend(parts.filter_map(|part| layout.remapped(&option, part)));
            }
            "crashkernel" => warnings.extend(layout.crash_kernel(&option, value, low)),
            _ => {}
        }
    }
    warnings
}

/// Bounce buffers of Linux that have no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoBounceBuffers {
    /// Bytes that Linux requires in one piece below 4 GiB.
    pub need: u64,
    /// Bytes of the largest piece there of which nothing is taken.
    pub largest: u64,
}

/// Whether Linux's bounce buffers have no room in RAM at `ranges` beside what is `taken`. A guest whose
/// memory ends below 4 GiB has none.
pub(crate) fn bounce_buffers(
    line: &str,
    ranges: &[Range<Gpa>],
    taken: &[Range<Gpa>],
) -> Option<NoBounceBuffers> {
    if !ranges.iter().any(|range| range.end > FOUR_GIB) {
        return None;
    }
    let mut need = BOUNCE_BUFFERS;
    for option in options(line).filter(|option| option.name == "swiotlb") {
        let value = option.value.unwrap_or_default();
        if value.split(',').any(|word| word == "noforce") {
            return None;
        }
        // Linux reads a number only, without a unit.
        if let Some((slabs, _)) = number(value) {
            need = slabs.saturating_mul(BOUNCE_SLAB);
        }
    }
    let mut free = below_4g(ranges);
    for taken in taken {
        free = free
            .into_iter()
            .flat_map(|range| {
                let before = range.start..range.end.min(taken.start);
                let after = range.start.max(taken.end)..range.end;
                [before, after]
            })
            .filter(|range| range.start < range.end)
            .collect();
    }
    let largest = largest(&free);
    (largest < need).then_some(NoBounceBuffers { need, largest })
}

impl Layout<'_> {
    /// What comes of memory from the address `limit` on that is not used.
    fn cut(&self, option: &KernelOption<'_>, limit: u64) -> Option<String> {
        // Linux takes 0 for a mistake.
        if !self.is_identity || limit == 0 {
            return None;
        }
        let length = |range: &Range<Gpa>| range.end - range.start;
        let total: u64 = self.ranges.iter().map(length).sum();
        let left: u64 = cut(self.ranges, Gpa(limit)).iter().map(length).sum();
        (left < total.min(limit)).then(|| {
            let (left, total) = (Memory(left), Memory(total));
            format!(
                "{} on the kernel's command line limits addresses, not the amount of memory: Linux \
                 will use {left} of the guest's {total}, because these are at host addresses. Set \
                 the amount with --memory",
                option.text
            )
        })
    }

    /// What comes of one part of `memmap=`
    /// (arch/x86/kernel/e820.c, `parse_memmap_one`).
    fn remapped(&self, option: &KernelOption<'_>, part: &str) -> Option<String> {
        let text = option.text;
        if part == "exactmap" {
            return Some(format!(
                "{text} on the kernel's command line discards the memory map, which alone \
                 describes the guest's memory"
            ));
        }
        let (size, rest) = parse(part)?;
        if rest.is_empty() {
            return self.cut(option, size);
        }
        let kind = rest.chars().next()?;
        let (start, _) = parse(&rest[kind.len_utf8()..])?;
        let range = Gpa(start)..Gpa(start.checked_add(size)?);
        let none = format!(
            "{text} on the kernel's command line names addresses from {} to {}, where the guest",
            range.start, range.end
        );
        match kind {
            '@' if !self.has_all(&range) => Some(match self.is_identity {
                true => format!(
                    "{none} does not have memory everywhere: a device that uses it reads and \
                     writes HOST memory there"
                ),
                false => format!("{none} does not have memory everywhere"),
            }),
            '#' | '$' | '!' if !self.has_any(&range) => Some(format!("{none} has no memory")),
            _ => None,
        }
    }

    /// What comes of `crashkernel=` with this value, `low` being that of another one, of the form
    /// `SIZE,low` (kernel/crash_reserve.c, `__parse_crashkernel`).
    fn crash_kernel(
        &self,
        option: &KernelOption<'_>,
        value: &str,
        low: Option<u64>,
    ) -> Option<String> {
        if value.ends_with(",low") || value.ends_with(",cma") {
            return None;
        }
        let (size, rest) = if value.contains(':') {
            self.for_this_size(value)?
        } else {
            parse(value)?
        };
        if size == 0 {
            return None;
        }
        let text = option.text;
        if let Some(offset) = rest.strip_prefix('@') {
            let (start, _) = parse(offset)?;
            let range = Gpa(start)..Gpa(start.checked_add(size)?);
            return (start > 0 && !self.has_all(&range)).then(|| {
                format!(
                    "{text} on the kernel's command line names addresses from {} to {}, where the guest \
                     does not have memory everywhere: nothing will be reserved",
                    range.start, range.end
                )
            });
        }
        let below = largest(&below_4g(self.ranges));
        let above = largest(self.ranges);
        let fits = below >= size || (above >= size && below >= low.unwrap_or(CRASH_LOW));
        (!fits).then(|| {
            format!(
                "{text} on the kernel's command line requires {} in one piece below 4 GiB, or \
                 above and {} below: the largest pieces are {} below and {} overall, so nothing \
                 will be reserved",
                Memory(size),
                Memory(low.unwrap_or(CRASH_LOW)),
                Memory(below),
                Memory(above)
            )
        })
    }

    /// The size that a list of `START-[END]:SIZE` has for a guest of this size, and what is behind the list.
    fn for_this_size<'t>(&self, value: &'t str) -> Option<(u64, &'t str)> {
        let (list, offset) = value.split_at(value.find('@').unwrap_or(value.len()));
        let total: u64 = self
            .ranges
            .iter()
            .map(|range| range.end - range.start)
            .sum();
        let of = |part: &str| {
            let (start, rest) = parse(part)?;
            let rest = rest.strip_prefix('-')?;
            let (end, rest) = parse(rest).unwrap_or((u64::MAX, rest));
            let (size, _) = parse(rest.strip_prefix(':')?)?;
            (start <= total && total < end).then_some(size)
        };
        Some((list.split(',').find_map(of)?, offset))
    }

    /// Pieces of memory, the first of which is low.
    fn pieces(&self) -> impl Iterator<Item = Range<Gpa>> {
        [Gpa(0)..Gpa(low::SIZE)]
            .into_iter()
            .chain(self.ranges.iter().cloned())
    }

    fn has_all(&self, range: &Range<Gpa>) -> bool {
        self.pieces()
            .any(|piece| piece.start <= range.start && range.end <= piece.end)
    }

    fn has_any(&self, range: &Range<Gpa>) -> bool {
        self.pieces()
            .any(|piece| piece.start < range.end && range.start < piece.end)
    }
}

/// What of `ranges` is below `limit`.
fn cut(ranges: &[Range<Gpa>], limit: Gpa) -> Vec<Range<Gpa>> {
    let ranges = ranges.iter().map(|range| range.start..range.end.min(limit));
    ranges.filter(|range| range.start < range.end).collect()
}

fn below_4g(ranges: &[Range<Gpa>]) -> Vec<Range<Gpa>> {
    cut(ranges, FOUR_GIB)
}

fn largest(ranges: &[Range<Gpa>]) -> u64 {
    let lengths = ranges.iter().map(|range| range.end - range.start);
    lengths.max().unwrap_or(0)
}

/// The number of bytes that `text` begins with, and what follows it (lib/cmdline.c, `memparse`).
fn parse(text: &str) -> Option<(u64, &str)> {
    let (number, rest) = number(text)?;
    let shift = match rest.bytes().next().map(|unit| unit.to_ascii_uppercase()) {
        Some(b'K') => 10,
        Some(b'M') => 20,
        Some(b'G') => 30,
        Some(b'T') => 40,
        Some(b'P') => 50,
        Some(b'E') => 60,
        _ => return Some((number, rest)),
    };
    Some((number.checked_mul(1 << shift)?, &rest[1..]))
}

/// The number that `text` begins with, and what follows it: hexadecimal behind `0x`, octal behind `0`.
fn number(text: &str) -> Option<(u64, &str)> {
    let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let (digits, radix) = match hex {
        Some(hex) => (hex, 16),
        None if text.starts_with('0') => (text, 8),
        None => (text, 10),
    };
    let length = digits
        .bytes()
        .take_while(|byte| char::from(*byte).is_digit(radix))
        .count();
    let (digits, rest) = digits.split_at(length);
    Some((u64::from_str_radix(digits, radix).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    fn range(start: u64, length: u64) -> Range<Gpa> {
        Gpa(start)..Gpa(start + length)
    }

    /// As on a host whose pool is above 4 GiB.
    fn high() -> Vec<Range<Gpa>> {
        vec![range(4 * GIB, 256 * MIB), range(5 * GIB, 256 * MIB)]
    }

    fn told(line: &str, ranges: &[Range<Gpa>], is_identity: bool) -> Vec<String> {
        let layout = Layout {
            ranges,
            is_identity,
        };
        warnings(line, layout)
    }

    #[test]
    fn numbers_are_read_as_linux_reads_them() {
        for (text, expected) in [
            ("512M", Some((512 * MIB, ""))),
            ("0x10000@1g", Some((0x1_0000, "@1g"))),
            ("010K$x", Some((8 << 10, "$x"))),
            ("4294967296", Some((4 * GIB, ""))),
            ("16E", None),
            ("", None),
            ("M", None),
            ("é", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[test]
    fn mem_that_cuts_by_address_is_reported_in_the_identity_layout() {
        let cut = |line| told(line, &high(), true);
        assert!(cut("mem=512M")[0].contains("Linux will use 0 B"));
        assert!(cut("quiet \"mem=4352M\"")[0].contains("of the guest's 512 MiB"));
        assert!(cut("mem=4352M")[0].contains("Linux will use 256 MiB"));
        assert!(cut("memmap=512M")[0].contains("Linux will use 0 B"));
        for fine in [
            "mem=8G",
            "mem=nopentium",
            "mem=0",
            "-- mem=512M",
            "xmem=512M",
        ] {
            assert_eq!(cut(fine), [""; 0], "{fine}");
        }
        // Where memory begins at 2 MiB, what is left is what was meant.
        assert_eq!(told("mem=512M", &[range(2 * MIB, GIB)], false), [""; 0]);
    }

    #[test]
    fn memmap_that_names_no_memory_is_reported() {
        let told = |line| told(line, &high(), true);
        assert!(told("memmap=64M@1G")[0].contains("HOST"));
        assert!(told("memmap=512M@4G")[0].contains("HOST"));
        assert!(told("memmap=1M$3G")[0].contains("has no memory"));
        assert!(told("memmap=exactmap,64M@4G")[0].contains("discards"));
        assert_eq!(told("memmap=1M$3G,1M!2G,1M#1G").len(), 3);
        for fine in [
            "memmap=64M@4G",
            "memmap=64M$5G,4K$0x9f000",
            "memmap=1M%0-1+2",
            "memmap=x",
        ] {
            assert_eq!(told(fine), [""; 0], "{fine}");
        }
        let conventional = self::told("memmap=64M@8G", &[range(2 * MIB, GIB)], false);
        assert!(!conventional[0].contains("HOST"));
    }

    #[test]
    fn a_crash_kernel_without_a_place_is_reported() {
        let told = |line| told(line, &high(), true);
        for line in [
            "crashkernel=128M",
            "crashkernel=128M,high",
            "crashkernel=1G-2G:64M,256M-:128M",
            "crashkernel=64M,high crashkernel=16M,low",
        ] {
            assert!(told(line)[0].contains("below 4 GiB"), "{line}");
        }
        assert!(told("crashkernel=64M@16M")[0].contains("names addresses"));
        for fine in [
            "crashkernel=128M crashkernel=0,low",
            "crashkernel=2G-:64M",
            "crashkernel=64M@4G",
            "crashkernel=64M@0 crashkernel=0,low",
            "crashkernel=auto",
        ] {
            assert_eq!(told(fine), [""; 0], "{fine}");
        }
        let low = [range(16 * MIB, 512 * MIB), range(4 * GIB, GIB)];
        assert_eq!(self::told("crashkernel=256M", &low, true), [""; 0]);
        assert_eq!(self::told("crashkernel=768M", &low, true), [""; 0]);
        assert_eq!(self::told("crashkernel=2G", &low, true).len(), 1);
    }

    #[test]
    fn bounce_buffers_need_a_piece_below_4g() {
        let both = [range(16 * MIB, 96 * MIB), range(4 * GIB, GIB)];
        let kernel = [range(16 * MIB, 64 * MIB)];
        let no_room = |need, largest| Some(NoBounceBuffers { need, largest });
        assert_eq!(bounce_buffers("", &both, &[]), None);
        assert_eq!(
            bounce_buffers("", &both, &kernel),
            no_room(64 * MIB, 32 * MIB)
        );
        assert_eq!(bounce_buffers("swiotlb=16384", &both, &kernel), None);
        assert_eq!(bounce_buffers("swiotlb=noforce", &both, &kernel), None);
        assert_eq!(
            bounce_buffers("swiotlb=65536,force", &both, &[]),
            no_room(128 * MIB, 96 * MIB)
        );
        assert_eq!(bounce_buffers("", &both[..1], &kernel), None);
        assert_eq!(bounce_buffers("", &both[1..], &[]), no_room(64 * MIB, 0));
        let split = [range(80 * MIB, 4 * MIB)];
        assert_eq!(
            bounce_buffers("", &both, &split),
            None,
            "64 MiB before what is taken"
        );
    }

    proptest! {
        #[test]
        fn no_command_line_makes_this_panic(
            line in "((mem|memmap|crashkernel|swiotlb)=[0-9xMGE@#$!%,:highlow+é-]{0,24} ?){0,4}",
            is_identity: bool,
        ) {
            told(&line, &high(), is_identity);
            bounce_buffers(&line, &high(), &[range(4 * GIB, MIB)]);
        }
    }
}
