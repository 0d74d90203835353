// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What became of data that is not where it should be.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use address::Gpa;
use stress_format::FindingKind;

use crate::memory::Memory;
use crate::ram::Ram;

const PAGE: u64 = 4096;
/// Sizes of the pieces that memory is made of and that may be confused: the large ones first,
/// which are few.
pub const SIZES: [u64; 2] = [2 << 20, PAGE];
/// How far away data counts as shifted.
pub const NEAR: u64 = 64 << 10;
/// Bytes of the data that are looked for.
const NEEDLE: usize = 24;
/// Data shorter than this is found by chance.
const MIN_NEEDLE: usize = WORD;
const WORD: usize = 8;
/// More flipped bits than this are other data.
const FLIPPED: u32 = 2;

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    /// What.
    pub kind: FindingKind,
    /// First address concerned.
    pub gpa: Gpa,
    /// In words.
    pub text: String,
}

/// A buffer that a device wrote, and what should be in it.
#[derive(Clone, Debug)]
pub struct Wrong<'a> {
    /// The buffer.
    pub gpa: Gpa,
    /// Offset of the first byte that is wrong.
    pub first: usize,
    /// What should be there.
    pub expected: &'a [u8],
    /// What is there.
    pub actual: &'a [u8],
    /// Where the data came from, which is no surprise to find it at.
    pub source: Range<Gpa>,
}

impl Wrong<'_> {
    /// Single bits that differ; `None` if more does.
    #[must_use]
    pub fn flipped(&self) -> Option<Diagnosis> {
        let pairs = || self.expected.iter().zip(self.actual);
        let bits: u32 = pairs()
            .map(|(left, right)| (left ^ right).count_ones())
            .sum();
        let alone = bits == 1 || self.expected.len() >= MIN_NEEDLE;
        if bits > FLIPPED || !alone {
            return None;
        }
        let (expected, actual) = pairs().nth(self.first)?;
        Some(Diagnosis {
            kind: FindingKind::BitFlip,
            gpa: self.gpa + self.first as u64,
            text: format!(
                "{bits} flipped, the first is bit {} of byte {:#x}: {actual:#04x} instead of {expected:#04x}",
                (expected ^ actual).trailing_zeros(),
                self.first,
            ),
        })
    }

    /// The place in RAM where the data is instead; `None` if it is nowhere.
    #[must_use]
    pub fn strayed(&self, memory: &impl Memory, ram: &Ram) -> Option<Diagnosis> {
        let rest = self.expected.get(self.first..)?;
        let needle = &rest[..rest.len().min(NEEDLE)];
        if needle.len() < MIN_NEEDLE {
            return None;
        }
        let should = self.gpa + self.first as u64;
        let word = needle.first_chunk().map(|word| u64::from_le_bytes(*word))?;
        let found = near(ram, should)
            .chain(SIZES.into_iter().flat_map(|size| alike(ram, should, size)))
            .find(|place| {
                let mut bytes = [0; NEEDLE];
                let bytes = &mut bytes[..needle.len()];
                memory.read_word(*place) == Ok(word)
                    && self.is_news(*place)
                    && memory.read(*place, bytes).is_ok()
                    && bytes == needle
            })?;
        Some(moved("the data was written", should, found))
    }

    fn is_news(&self, place: Gpa) -> bool {
        let own = self.gpa..self.gpa + self.expected.len() as u64;
        !self.source.contains(&place) && !own.contains(&place)
    }

    /// The last resort: that it differs, and how.
    #[must_use]
    pub fn differs(&self) -> Diagnosis {
        let word =
            |bytes: &[u8]| -> Vec<u8> { bytes.iter().skip(self.first).take(8).copied().collect() };
        Diagnosis {
            kind: FindingKind::Mismatch,
            gpa: self.gpa + self.first as u64,
            text: format!(
                "byte {:#x} and on: {:02x?} instead of {:02x?}",
                self.first,
                word(self.actual),
                word(self.expected)
            ),
        }
    }
}

/// `what` at `found` and not where it should be.
#[must_use]
pub fn moved(what: &str, should: Gpa, found: Gpa) -> Diagnosis {
    let distance = found.0.wrapping_sub(should.0);
    let (sign, far) = match found > should {
        true => ('+', distance),
        false => ('-', distance.wrapping_neg()),
    };
    let kind = match far <= NEAR {
        true => FindingKind::Shifted,
        false => FindingKind::WrongExtent,
    };
    Diagnosis {
        kind,
        gpa: should,
        text: format!("{what} at {found} instead of {should} ({sign}{far:#x})"),
    }
}

/// Places in the extent of `gpa` that are before or behind it: all that are very near, then those
/// that are words away, then blocks.
pub fn near(ram: &Ram, gpa: Gpa) -> impl Iterator<Item = Gpa> {
    const VERY_NEAR: u64 = 64;
    const BLOCK: usize = 512;
    let extent = ram.extents().iter().find(|extent| extent.contains(&gpa));
    let extent = extent.cloned().unwrap_or(gpa..gpa);
    let words = (VERY_NEAR..PAGE).step_by(WORD);
    let blocks = (PAGE..=NEAR).step_by(BLOCK);
    let bytes = (1..VERY_NEAR).chain(words).chain(blocks);
    bytes
        .flat_map(move |far| [gpa.0.wrapping_sub(far), gpa.0.wrapping_add(far)])
        .map(Gpa)
        .filter(move |place| extent.contains(place))
}

/// Every place in RAM at the offset that `gpa` has in its piece of `size` bytes.
pub fn alike(ram: &Ram, gpa: Gpa, size: u64) -> impl Iterator<Item = Gpa> {
    let offset = gpa.0 % size;
    ram.extents().iter().flat_map(move |extent| {
        let first = extent.start.align_down(size);
        let count = (extent.end - first).div_ceil(size);
        let extent = extent.clone();
        (0..count)
            .map(move |piece| first + (piece * size + offset))
            .filter(move |place| extent.contains(place))
    })
}
