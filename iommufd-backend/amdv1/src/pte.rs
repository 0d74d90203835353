// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Single entries: 64 bits, little-endian in memory.
//!
//! | Bits  | Meaning                                                                        |
//! |-------|--------------------------------------------------------------------------------|
//! | 0     | present; if 0, nothing else counts                                             |
//! | 11:9  | 0: leaf of one item; 1..6: table, of the level below; 7: leaf of several items |
//! | 51:12 | address; the low bits of a leaf of several items encode its size               |
//! | 60    | leaf: force coherent                                                           |
//! | 61    | read permission                                                                |
//! | 62    | write permission                                                               |
//!
//! The other bits are written as 0 and not looked at, as in the kernel's `fmt/amdv1.h`. A leaf
//! of 2^n bytes that takes several items has the same value in all of them: address bits
//! 12..n-2 are 1, bit n-1 is 0, and the bits from n on are the output address.

use address::Hpa;

use crate::level::{Level, OUTPUT_BITS, PageSize};
use crate::table_address::TableAddress;

bitflags::bitflags! {
    /// What a leaf grants. The bits are those of the entry.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Attributes: u64 {
        /// Accesses ignore the No-Snoop hint. Set in every leaf of a noiommu table.
        const FORCE_COHERENT = 1 << 60;
        /// Devices may read.
        const READ = 1 << 61;
        /// Devices may write.
        const WRITE = 1 << 62;
    }
}

const PRESENT: u64 = 1;
const NEXT_SHIFT: u32 = 9;
const NEXT_MASK: u64 = 7 << NEXT_SHIFT;
const SEVERAL_ITEMS: u64 = 7 << NEXT_SHIFT;
const SEVERAL: u64 = SEVERAL_ITEMS | PRESENT;
const ADDRESS_MASK: u64 = ((1 << OUTPUT_BITS) - 1) & !0xfff;

/// An entry as stored in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Entry(pub u64);

/// What an entry means in a table of a given level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// Not present.
    Empty,
    /// Points to a table of the level below.
    Table {
        /// Where that table is.
        table: TableAddress,
        /// The permissions that everything below is cut down to.
        permissions: Attributes,
    },
    /// Maps a page.
    Leaf {
        /// First address of the page, a multiple of its size.
        hpa: Hpa,
        /// Size of the page.
        size: PageSize,
        /// What the leaf grants.
        attributes: Attributes,
    },
}

/// Why an entry has no meaning at its level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It points to a table, but not to one of the level below.
    #[error("it points to a table for next level {next}")]
    WrongLevel {
        /// Its NextLevel field, 1 to 6.
        next: u8,
    },
    /// It is a leaf of a size that does not exist at its level.
    #[error("it is a leaf of 2^{lg2} bytes")]
    WrongSize {
        /// log2 of the size that it encodes.
        lg2: u32,
    },
    /// It is a leaf of one item whose address is not a multiple of its size.
    #[error("it is a leaf for the misaligned address {hpa}")]
    Misaligned {
        /// The address it holds.
        hpa: Hpa,
    },
}

impl Entry {
    /// The entry that maps nothing.
    pub const EMPTY: Self = Self(0);

    /// The leaf of `size` for `hpa`, to be stored in all of its items; `None` unless `hpa` is a
    /// multiple of the size and below 2^52.
    #[must_use]
    pub const fn leaf(hpa: Hpa, size: PageSize, attributes: Attributes) -> Option<Self> {
        if hpa.0 & (size.bytes() - 1) != 0 || hpa.0 >> OUTPUT_BITS != 0 {
            return None;
        }
        let code = if size.items() == 1 {
            0
        } else {
            // Ones from bit 12 up to bit n-2.
            SEVERAL_ITEMS | ((size.bytes() >> 1) - 1) & ADDRESS_MASK
        };
        Some(Self(hpa.0 | code | attributes.bits() | PRESENT))
    }

    /// The pointer from a table of level `level` to one of the level below; `None` at the
    /// bottom. It grants everything: permissions are up to the leaves.
    #[must_use]
    pub const fn table(table: TableAddress, level: Level) -> Option<Self> {
        if level.number() == 0 {
            return None;
        }
        Some(Self(table.get() | Self::pointer_marks(level)))
    }

    /// Everything in a pointer from a table of `level` but the address.
    #[inline(always)]
    pub(crate) const fn pointer_marks(level: Level) -> u64 {
        let permissions = Attributes::READ.bits() | Attributes::WRITE.bits();
        permissions | (level.number() as u64) << NEXT_SHIFT | PRESENT
    }

    /// Whether it maps or points to anything.
    #[must_use]
    #[inline]
    pub const fn is_present(self) -> bool {
        self.0 & PRESENT != 0
    }

    /// What the entry means in a table of `level`.
    ///
    /// # Errors
    ///
    /// [`Malformed`] for what no builder writes: a pointer to another level than the one below
    /// (hardware can skip levels, the kernel never does), a size code that is not one of the
    /// level's, the size 2^39, a misaligned address.
    pub const fn decode(self, level: Level) -> Result<Item, Malformed> {
        if !self.is_present() {
            return Ok(Item::Empty);
        }
        let address = self.0 & ADDRESS_MASK;
        let next = self.next_level();
        let lg2 = match next {
            0 => level.item_lg2(),
            7 => 13 + (address >> 12).trailing_ones(),
            _ if next == level.number() => {
                return Ok(Item::Table {
                    table: TableAddress::from_masked(address),
                    permissions: Attributes::from_bits_truncate(self.0),
                });
            }
            _ => return Err(Malformed::WrongLevel { next }),
        };
        let size = match PageSize::new(lg2) {
            // A leaf of several items has at least two and at most half of the table.
            Some(size) if size.level().number() == level.number() => size,
            _ => return Err(Malformed::WrongSize { lg2 }),
        };
        if (size.items() == 1) != (next == 0) {
            return Err(Malformed::WrongSize { lg2 });
        }
        let code = (size.bytes() >> 1) - 1;
        let hpa = if next == 0 { address } else { address & !code };
        if hpa & (size.bytes() - 1) != 0 {
            return Err(Malformed::Misaligned { hpa: Hpa(hpa) });
        }
        Ok(Item::Leaf {
            hpa: Hpa(hpa),
            size,
            attributes: Attributes::from_bits_truncate(self.0),
        })
    }

    const fn next_level(self) -> u8 {
        ((self.0 & NEXT_MASK) >> NEXT_SHIFT) as u8
    }

    /// Where `iova` lies, if this is a leaf of one item, of 2^`lg2` bytes, with all attributes, as
    /// those of guest memory are.
    // The address is all that is left after the subtraction, or there are bits left above or,
    // rotated, from below. A use of the result waits for one addition.
    #[inline(always)]
    pub(crate) const fn usual_hpa(self, iova: u64, lg2: u32) -> Option<u64> {
        const MARKS: u64 = Attributes::all().bits() | PRESENT;
        if self.0.wrapping_sub(MARKS).rotate_right(12) >> (OUTPUT_BITS - 12) != 0 {
            return None;
        }
        let offset = iova & ((1 << lg2) - 1);
        Some(offset.wrapping_sub(MARKS).wrapping_add(self.0))
    }

    /// Where `iova` lies, if this is a leaf of 2 MiB.
    // The low bits of its address are 0, so one comparison of 16 bits distinguishes it from all
    // else. A use of the result waits for one step more than with `usual_hpa`, but it is fewer in
    // all.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the low bits only")]
    pub(crate) const fn hpa_in_2mib(self, iova: u64) -> Option<u64> {
        const OFFSET: u64 = Level::L1.item_bytes() - 1;
        if self.0 as u16 != PRESENT as u16 {
            return None;
        }
        Some((self.0 & ADDRESS_MASK & !OFFSET) + (iova & OFFSET))
    }

    /// Whether it is a pointer in a table of `level`.
    #[inline(always)]
    pub(crate) const fn is_table(self, level: Level) -> bool {
        let pointer = (level.number() as u64) << NEXT_SHIFT | PRESENT;
        level.number() != 0 && self.0 & (NEXT_MASK | PRESENT) == pointer
    }

    /// Address of the table that a pointer points to.
    #[inline(always)]
    pub(crate) const fn pointee(self) -> TableAddress {
        TableAddress::from_masked(self.0 & ADDRESS_MASK)
    }

    /// Where `iova` lies under a well-formed leaf of a table of `level`; `NOWHERE` for anything
    /// else.
    pub(crate) const fn place(self, level: Level, iova: u64) -> Place {
        let address = self.0 & ADDRESS_MASK;
        let within = match self.0 & (NEXT_MASK | PRESENT) {
            PRESENT => level.item_bytes() - 1,
            // x ^ (x + 1) covers the ones of the code and the zero above them.
            SEVERAL => (address | 0xfff) ^ ((address | 0xfff) + 1),
            _ => return Place::NOWHERE,
        };
        Place {
            hpa: address & !within | iova & within,
            within,
        }
    }
}

/// Where an address lies.
// Two numbers fit two registers on the way out of a function; an `Option` of them does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) hpa: u64,
    /// Mask of the offsets within its page; 0 if it is not mapped.
    pub(crate) within: u64,
}

impl Place {
    pub(crate) const NOWHERE: Self = Self { hpa: 0, within: 0 };

    #[inline(always)]
    pub(crate) const fn is_mapped(self) -> bool {
        self.within != 0
    }
}

#[cfg(test)]
mod tests;
