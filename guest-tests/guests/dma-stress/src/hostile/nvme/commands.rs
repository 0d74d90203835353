// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Commands of every kind, right and wrong.

use super::places::{PAGE, Places, choose};

/// The eight words of a command.
pub type Words = [u64; 8];

/// First block that commands may clear: what is read is never cleared, as zero could be the address of a page.
pub const CLEARED: u64 = 1 << 14;
/// Blocks that are read and written.
pub const BLOCKS: u64 = 256;

const IO: [u8; 7] = [0x00, 0x01, 0x02, 0x05, 0x08, 0x09, 0x0c];
const ADMIN: [u8; 13] = [
    0x00, 0x01, 0x02, 0x04, 0x05, 0x06, 0x08, 0x09, 0x0a, 0x0c, 0x18, 0x7c, 0x45,
];
/// Numbers of blocks, 0's based: of one page, of two, around usual limits, and all.
const COUNTS: [u64; 12] = [0, 7, 8, 15, 31, 127, 255, 256, 1023, 1024, 4095, 0xffff];
const STRUCTURES: [u64; 12] = [0, 1, 2, 3, 5, 6, 7, 8, 0x10, 0x13, 0x16, 0x1c];
const LOGS: [u64; 14] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0xd, 0x12, 0x16, 0xc0];
const FEATURES: [u64; 24] = [
    1, 2, 3, 4, 5, 6, 7, 8, 9, 0xa, 0xb, 0xc, 0xd, 0xe, 0xf, 0x10, 0x11, 0x13, 0x16, 0x17, 0x80,
    0x81, 0x84, 0xc0,
];
/// Numbers of dwords of a log page, 0's based.
const DWORDS: [u64; 8] = [0, 127, 1023, 1024, 2047, 0x7fff, 0x8000, 0xffff_ffff];
/// Sizes of queues, 0's based.
const SIZES: [u64; 8] = [0, 1, 7, 31, 63, 255, 256, 0xffff];
const NAMESPACES: [u64; 5] = [0, 2, 3, 0xffff_fffe, 0xffff_ffff];

/// Pages that commands of a kind name.
struct Kind<'a> {
    pages: &'a [u64],
    lists: &'a [u64],
    /// The first slot of a page where a list begins.
    first_slot: u64,
}

/// Makes commands from random numbers.
#[derive(Debug)]
pub struct Commands<'a> {
    /// Addresses.
    pub places: &'a Places,
    /// A block has 2 to the power of this bytes.
    pub block_shift: u32,
}

impl Commands<'_> {
    /// An I/O command.
    pub fn io(&self, random: &mut fastrand::Rng) -> Words {
        let opcode = opcode(&IO, random);
        let count = one_of(&COUNTS, random);
        let bytes = match opcode {
            0x09 => (count % 256 + 1) * 16,
            _ => (count + 1) << self.block_shift,
        };
        let places = self.places;
        let kind = Kind {
            pages: &places.data,
            lists: &places.lists,
            first_slot: 0,
        };
        let mut words = [0; 8].map(|word: u64| word | noise(random));
        words[0] = head(opcode, random);
        words[3] = address(kind.pages, places, random);
        words[4] = self.second(words[3], bytes, &kind, random);
        words[5] = match opcode {
            0x09 => (count % 256) | noise(random) << 32,
            0x01 | 0x02 | 0x05 if random.u64(..32) > 0 => random.u64(..BLOCKS),
            0x01 | 0x02 | 0x05 => random.u64(..) | 1 << 40,
            _ => CLEARED + random.u64(..BLOCKS),
        };
        words[6] = words[6] & !0xffff | count;
        words
    }

    /// An admin command.
    pub fn admin(&self, random: &mut fastrand::Rng) -> Words {
        let opcode = opcode(&ADMIN, random);
        let places = self.places;
        let mut words = [0; 8].map(|word: u64| word | noise(random));
        words[0] = head(opcode, random);
        let kind = Kind {
            pages: &places.answers,
            lists: &places.answer_lists,
            // A device without long log pages takes fewer bytes, and what is meant as a list for a page.
            first_slot: 1,
        };
        let (bytes, dwords) = match opcode {
            0x02 => log_page(&mut words, random),
            0x06 => (PAGE, one_of(&STRUCTURES, random)),
            0x09 | 0x0a => (512, one_of(&FEATURES, random) | save(random)),
            0x00 | 0x04 => (0, queue(random)),
            0x08 => (0, random.u64(..4) | random.u64(..64) << 16),
            _ => (PAGE, noise(random)),
        };
        words[5] = words[5] & !0xffff_ffff | dwords & 0xffff_ffff;
        words[3] = address(kind.pages, places, random);
        words[4] = self.second(words[3], bytes, &kind, random);
        if matches!(opcode, 0x01 | 0x05) {
            self.create(opcode, &mut words, random);
        }
        if random.bool() {
            words[6] = 0;
            words[7] = 0;
        }
        words
    }

    /// The second entry of `bytes` bytes at `first`: a page if there are two, and if there are more a list, never the other
    /// way round.
    fn second(&self, first: u64, bytes: u64, kind: &Kind<'_>, random: &mut fastrand::Rng) -> u64 {
        let places = self.places;
        if (first % PAGE + bytes).div_ceil(PAGE) <= 2 {
            return address(kind.pages, places, random);
        }
        let list = choose(kind.lists, random);
        match random.u64(..16) {
            0 => choose(&places.wrong, random),
            1 => choose(&places.wrong, random) | 0xff8,
            2 => list | random.u64(1..8),
            // The last qword of a page.
            3 => list | 0xff8,
            4 => list | 0xff0,
            _ => list + random.u64(kind.first_slot..32) * 8,
        }
    }

    fn create(&self, opcode: u8, words: &mut Words, random: &mut fastrand::Rng) {
        let pages = match opcode {
            0x01 => &self.places.submissions,
            _ => &self.places.completions,
        };
        words[3] = address(pages, self.places, random);
        let size = one_of(&SIZES, random);
        let contiguous = u64::from(random.u64(..8) > 0);
        let high = match opcode {
            0x01 => queue(random),
            _ => one_of(&[0, 1, 2, 3, 0x7ff, 0xffff], random),
        };
        let interrupts = random.u64(..2) << 1;
        words[5] =
            queue(random) | size << 16 | (contiguous | interrupts) << 32 | (high & 0xffff) << 48;
    }
}

/// NUMD and an offset. Returns the bytes, and dword 10.
fn log_page(words: &mut Words, random: &mut fastrand::Rng) -> (u64, u64) {
    let dwords = one_of(&DWORDS, random);
    words[5] = words[5] & !(0xffff << 32) | (dwords >> 16) << 32;
    words[6] = one_of(&[0, 0, 0, 0, 4, 512, 2, !3, 1 << 32], random);
    words[7] = 0;
    let first = one_of(&LOGS, random) | random.u64(..2) << 15 | (dwords & 0xffff) << 16;
    ((dwords + 1) * 4, first)
}

/// The bit that saves a feature, now and then.
fn save(random: &mut fastrand::Rng) -> u64 {
    u64::from(random.u64(..16) == 0) << 31
}

fn queue(random: &mut fastrand::Rng) -> u64 {
    one_of(&[0, 1, 2, 2, 2, 3, 4, 5, 127, 128, 0xffff], random)
}

fn one_of(from: &[u64], random: &mut fastrand::Rng) -> u64 {
    choose(from, random)
}

/// Nothing, or anything.
fn noise(random: &mut fastrand::Rng) -> u64 {
    if random.bool() { random.u64(..) } else { 0 }
}

/// A known opcode, or any.
fn opcode(known: &[u8], random: &mut fastrand::Rng) -> u8 {
    match random.u64(..8) {
        0 => random.u8(..),
        _ => known[random.usize(..known.len())],
    }
}

/// The first word: an opcode, FUSE and PSDT, one of a few identifiers, and a namespace.
fn head(opcode: u8, random: &mut fastrand::Rng) -> u64 {
    let flags = if random.u64(..16) == 0 {
        random.u64(..256)
    } else {
        0
    };
    let nsid = match random.u64(..16) {
        0 => one_of(&NAMESPACES, random),
        1 => random.u64(..1 << 32),
        _ => 1,
    };
    u64::from(opcode) | flags << 8 | random.u64(..64) << 16 | nsid << 32
}

/// One of `right`, mostly; else one that is not memory, one with low bits, or anything.
fn address(right: &[u64], places: &Places, random: &mut fastrand::Rng) -> u64 {
    match random.u64(..32) {
        0 | 1 => choose(&places.wrong, random),
        2 => choose(&places.wrong, random) | random.u64(..PAGE),
        3 => choose(right, random) | 1 << random.u32(..12),
        4..8 => choose(right, random) | random.u64(..PAGE) & !3,
        // Not low memory.
        8 => random.u64(..) | 1 << 40,
        _ => choose(right, random),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn places() -> Places {
        let pages =
            |first: u64, count: u64| (first..first + count).map(|page| page * PAGE).collect();
        Places {
            data: pages(0x1000, 32),
            lists: pages(0x2000, 8),
            answers: pages(0x3000, 8),
            answer_lists: pages(0x4000, 2),
            submissions: pages(0x5000, 2),
            completions: pages(0x6000, 2),
            wrong: [1 << 52, !0xfff].into(),
        }
    }

    /// Whose page an address is on.
    fn is_in(pages: &[u64], address: u64) -> bool {
        pages.contains(&(address & !0xfff))
    }

    #[test]
    fn answers_and_data_stay_apart_and_lists_are_no_targets() {
        let places = places();
        let commands = Commands {
            places: &places,
            block_shift: 9,
        };
        let mut random = fastrand::Rng::with_seed(3);
        let mut lists = 0;
        for _ in 0..20_000 {
            let words = commands.io(&mut random);
            assert!(!is_in(&places.lists, words[3]) && !is_in(&places.answers, words[3]));
            if is_in(&places.lists, words[4]) {
                let bytes = ((words[6] & 0xffff) + 1) * 512;
                assert!(words[3] % PAGE + bytes > 2 * PAGE, "{words:x?}");
                lists += 1;
            }
            let admin = commands.admin(&mut random);
            let is_of_data =
                |address| is_in(&places.data, address) || is_in(&places.lists, address);
            assert!(!is_of_data(admin[3]) && !is_of_data(admin[4]), "{admin:x?}");
            assert!(!places.answer_lists.contains(&admin[4]), "{admin:x?}");
        }
        assert!(lists > 1000, "{lists}");
    }

    #[test]
    fn what_is_read_is_never_cleared() {
        let places = places();
        let commands = Commands {
            places: &places,
            block_shift: 9,
        };
        let mut random = fastrand::Rng::with_seed(4);
        for _ in 0..20_000 {
            let words = commands.io(&mut random);
            let is_clearing = matches!(words[0] & 0xff, 0x04 | 0x08 | 0x0c);
            assert!(!is_clearing || words[5] >= CLEARED, "{words:x?}");
        }
    }

    #[test]
    fn commands_are_of_every_kind() {
        let places = places();
        let commands = Commands {
            places: &places,
            block_shift: 9,
        };
        let mut random = fastrand::Rng::with_seed(5);
        let (mut io, mut admin, mut flags, mut low) = (
            BTreeSet::new(),
            BTreeSet::new(),
            BTreeSet::new(),
            BTreeSet::new(),
        );
        for _ in 0..40_000 {
            let words = commands.io(&mut random);
            io.insert(words[0] & 0xff);
            flags.insert(words[0] >> 8 & 0xff);
            low.insert(words[3] & 0xfff & (words[3] & 0xfff).wrapping_neg());
            admin.insert(commands.admin(&mut random)[0] & 0xff);
        }
        assert_eq!((io.len(), admin.len(), flags.len()), (256, 256, 256));
        assert_eq!(low.len(), 13, "each low bit, and none");
    }
}
