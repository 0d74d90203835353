// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Geometry: levels of the tree and sizes of pages.

use core::fmt;

use address::Iova;

/// Entries of a table. Level 5 uses the first 128 only.
pub const ENTRIES: usize = 512;

/// Bits of an output address.
pub const OUTPUT_BITS: u32 = 52;

/// Height of a table in the tree: 0 for tables of 4 KiB items, 5 for the highest.
///
/// The hardware's paging mode is one more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Level(u8);

impl Level {
    /// Tables of 4 KiB items.
    pub const BOTTOM: Self = Self(0);
    /// Tables of 2 MiB items.
    pub const L1: Self = Self(1);
    /// Tables of 1 GiB items.
    pub const L2: Self = Self(2);
    /// Tables of 512 GiB items.
    pub const L3: Self = Self(3);
    /// Where a new tree starts: 512 GiB in all.
    pub const START: Self = Self::L2;
    /// Tables of 128 PiB items, which cover all 64 bits.
    pub const TOP: Self = Self(5);

    /// Level `level`, or `None` above 5.
    #[must_use]
    pub const fn new(level: u8) -> Option<Self> {
        if level <= Self::TOP.0 {
            Some(Self(level))
        } else {
            None
        }
    }

    /// The number, 0 to 5.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// The next level down, or `None` at the bottom.
    #[must_use]
    pub const fn below(self) -> Option<Self> {
        match self.0.checked_sub(1) {
            Some(level) => Some(Self(level)),
            None => None,
        }
    }

    /// The next level up, or `None` at the top.
    #[must_use]
    pub const fn above(self) -> Option<Self> {
        Self::new(self.0 + 1)
    }

    /// log2 of the bytes that one item covers.
    #[must_use]
    pub const fn item_lg2(self) -> u32 {
        12 + 9 * self.0 as u32
    }

    /// Bytes that one item covers.
    #[must_use]
    pub const fn item_bytes(self) -> u64 {
        1 << self.item_lg2()
    }

    /// Entries that a table of this level uses: 512, or 128 at the top.
    #[must_use]
    pub const fn entries(self) -> usize {
        if self.0 == Self::TOP.0 { 128 } else { ENTRIES }
    }

    /// Index of the entry for `iova` in a table of this level.
    #[must_use]
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "nine bits")]
    pub const fn index(self, iova: Iova) -> usize {
        (iova.0 >> self.item_lg2() & (ENTRIES as u64 - 1)) as usize
    }

    /// Last offset into the space that a table of this level covers.
    #[must_use]
    pub const fn last_offset(self) -> u64 {
        if self.0 == Self::TOP.0 {
            u64::MAX
        } else {
            (1 << (self.item_lg2() + 9)) - 1
        }
    }

    /// Whether a tree whose top is at this level has a place for `iova`.
    #[must_use]
    pub const fn reaches(self, iova: Iova) -> bool {
        iova.0 <= self.last_offset()
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Level({})", self.0)
    }
}

/// A page size of the format: a power of two from 2^12 to 2^51, but not 2^39, which some hardware
/// gets wrong and which nothing may write.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageSize(u8);

impl PageSize {
    /// 4 KiB.
    pub const MIN: Self = Self(12);
    /// 2 PiB.
    pub const MAX: Self = Self(51);
    /// Bit n is set for every page size 2^n.
    pub const SUPPORTED: u64 = 0x000f_ff7f_ffff_f000;

    /// The size 2^`lg2`, or `None` if the format has none such.
    #[must_use]
    pub const fn new(lg2: u32) -> Option<Self> {
        if lg2 < u64::BITS && Self::SUPPORTED >> lg2 & 1 == 1 {
            #[expect(clippy::cast_possible_truncation, reason = "less than 64")]
            Some(Self(lg2 as u8))
        } else {
            None
        }
    }

    /// The largest page that can be at `iova` for `hpa` and is no longer than `len`; `None` if even
    /// 4 KiB does not fit.
    #[must_use]
    pub const fn best(iova: u64, hpa: u64, len: u64) -> Option<Self> {
        let Some(longest) = len.checked_ilog2() else {
            return None;
        };
        let fits = (iova | hpa | 1 << longest).trailing_zeros();
        // All sizes up to 2^fits.
        let sizes = Self::SUPPORTED & (u64::MAX >> (u64::BITS - 1 - fits));
        match sizes.checked_ilog2() {
            Some(lg2) => Self::new(lg2),
            None => None,
        }
    }

    /// The next larger size.
    #[must_use]
    pub const fn larger(self) -> Option<Self> {
        match Self::new(self.lg2() + 1) {
            Some(size) => Some(size),
            // Over the one gap in the sizes; past the largest there is none either way.
            None => Self::new(self.lg2() + 2),
        }
    }

    /// log2 of the size.
    #[must_use]
    pub const fn lg2(self) -> u32 {
        self.0 as u32
    }

    /// Bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        1 << self.0
    }

    /// The level whose tables hold leaves of this size.
    #[must_use]
    pub const fn level(self) -> Level {
        Level((self.0 - 12) / 9)
    }

    /// Entries that a leaf of this size takes: 1 at the natural size of its level, up to 256.
    #[must_use]
    pub const fn items(self) -> usize {
        1 << ((self.0 - 12) % 9)
    }
}

impl fmt::Debug for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PageSize(2^{})", self.0)
    }
}
