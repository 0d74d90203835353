// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Reading tables that are not trusted.
//!
//! A table that a guest could have scribbled on, or one read from a file, may hold anything.
//! The walk goes down exactly one level at a time, so it ends after at most six entries, and
//! everything that a builder would not have written is a [`WalkError`]. It allocates nothing,
//! does not recurse, and reads through [`ReadEntry`] only, which decides what is inside.

use core::ops::RangeInclusive;

use address::{Hpa, Iova};

use crate::level::{Level, PageSize};
use crate::memory::{TableAddress, TablePage};
use crate::pte::{Attributes, Entry, Item, Malformed};

/// Reads the memory that tables live in.
pub trait ReadEntry {
    /// The entry at `address`, a multiple of 8 in the space of table pointers; `None` if that
    /// is outside of what may be read.
    fn read_entry(&self, address: u64) -> Option<Entry>;
}

impl<R: ReadEntry + ?Sized> ReadEntry for &R {
    fn read_entry(&self, address: u64) -> Option<Entry> {
        (**self).read_entry(address)
    }
}

/// Pages at consecutive addresses, for readers.
#[derive(Clone, Copy, Debug)]
pub struct Window<'a> {
    /// Address of the first page.
    pub base: TableAddress,
    /// The pages.
    pub pages: &'a [TablePage],
}

impl ReadEntry for Window<'_> {
    fn read_entry(&self, address: u64) -> Option<Entry> {
        let word = usize::try_from(address.checked_sub(self.base.get())? / 8).ok()?;
        self.pages.get(word / 512)?.load(word % 512)
    }
}

/// Where a tree begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Root {
    /// The top table.
    pub table: TableAddress,
    /// Its level.
    pub level: Level,
}

/// A page that a table maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// First address that it maps, a multiple of its size.
    pub iova: Iova,
    /// What that address is mapped to, a multiple of the size too.
    pub hpa: Hpa,
    /// Bytes.
    pub size: PageSize,
    /// What the leaf and all pointers to it grant together; FORCE_COHERENT is the leaf's.
    pub attributes: Attributes,
}

impl Leaf {
    /// Where `iova`, an address inside, lies.
    #[must_use]
    pub const fn hpa_of(&self, iova: Iova) -> Hpa {
        Hpa(self.hpa.0 | iova.0 & (self.size.bytes() - 1))
    }

    /// Last address that it maps.
    #[must_use]
    pub const fn last_iova(&self) -> Iova {
        Iova(self.iova.0 | (self.size.bytes() - 1))
    }
}

/// A contiguous translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Run {
    /// Where the byte that was asked for lies.
    pub hpa: Hpa,
    /// Contiguous bytes from there on, at least 1, at most what was asked for.
    pub len: u64,
}

/// What is wrong with a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WalkError {
    /// A pointer leads out of the memory that may be read.
    #[error("Page table entry at {entry:#x} for IOVA {iova} is outside of the tables' memory")]
    Outside {
        /// The address translated.
        iova: Iova,
        /// Where its entry would be.
        entry: u64,
    },
    /// An entry has no meaning.
    #[error("Page table entry {raw:#018x} at {entry:#x}, level {level}, for IOVA {iova}: {cause}")]
    Malformed {
        /// The address translated.
        iova: Iova,
        /// Where the entry is.
        entry: u64,
        /// Its value.
        raw: u64,
        /// Level of its table.
        level: Level,
        /// What is wrong with it.
        cause: Malformed,
    },
    /// A pointer leads back to a table above it.
    #[error("Page table entry at {entry:#x} for IOVA {iova} points back to a table above it")]
    Cycle {
        /// The address translated.
        iova: Iova,
        /// Where the pointer is.
        entry: u64,
    },
    /// A leaf of several items does not have the same value in all of them.
    #[error("Page at IOVA {leaf} in the page table is inconsistent at IOVA {iova}")]
    Torn {
        /// Where a walk finds the leaf.
        iova: Iova,
        /// Where the leaf should begin, but something else is.
        leaf: Iova,
    },
    /// There are more leaves and holes than were allowed.
    #[error("Page table has more than {limit} pages and holes")]
    TooLarge {
        /// How many were allowed.
        limit: u64,
    },
}

/// What one walk found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A page.
    Leaf(Leaf),
    /// Nothing, up to `last`.
    Hole {
        /// Last address that is known to be in the hole.
        last: Iova,
    },
}

/// What the table under `root` has at `iova`. Reads at most six entries.
///
/// # Errors
///
/// [`WalkError`], but neither `Torn` nor `TooLarge`.
pub fn walk(reader: &impl ReadEntry, root: Root, iova: Iova) -> Result<Found, WalkError> {
    if root.level.reaches(iova) {
        Path::new(root).descend(reader, iova)
    } else {
        let last = Iova(u64::MAX);
        Ok(Found::Hole { last })
    }
}

/// Number of levels.
const LEVELS: usize = Level::TOP.number() as usize + 1;

/// The way down a tree to a table: on each level the table, and what the pointers to it grant.
#[derive(Clone, Debug)]
struct Path {
    top: Level,
    level: Level,
    tables: [TableAddress; LEVELS],
    granted: [Attributes; LEVELS],
}

impl Path {
    const fn new(root: Root) -> Self {
        Self {
            top: root.level,
            level: root.level,
            tables: [root.table; LEVELS],
            granted: [Attributes::all(); LEVELS],
        }
    }

    /// Back up to a table that covers both addresses, of which it covers `from`.
    fn ascend(&mut self, from: Iova, to: Iova) {
        while (from.0 ^ to.0) & !self.level.last_offset() != 0 {
            match self.level.above() {
                Some(above) if self.level < self.top => self.level = above,
                _ => return,
            }
        }
    }

    /// Goes down to the entry for `iova`, which the table here covers.
    fn descend(&mut self, reader: &impl ReadEntry, iova: Iova) -> Result<Found, WalkError> {
        loop {
            let (level, at) = (self.level, usize::from(self.level.number()));
            let entry = self.tables[at].entry(level.index(iova));
            let raw = reader
                .read_entry(entry)
                .ok_or(WalkError::Outside { iova, entry })?;
            let item = raw.decode(level).map_err(|cause| WalkError::Malformed {
                iova,
                entry,
                raw: raw.0,
                level,
                cause,
            })?;
            match (item, level.below()) {
                (Item::Table { table, permissions }, Some(below)) => {
                    let top = usize::from(self.top.number());
                    if self.tables[at..=top].contains(&table) {
                        return Err(WalkError::Cycle { iova, entry });
                    }
                    self.level = below;
                    self.tables[at - 1] = table;
                    self.granted[at - 1] =
                        self.granted[at] & (permissions | Attributes::FORCE_COHERENT);
                }
                (
                    Item::Leaf {
                        hpa,
                        size,
                        attributes,
                    },
                    _,
                ) => {
                    return Ok(Found::Leaf(Leaf {
                        iova: iova.align_down(size.bytes()),
                        hpa,
                        size,
                        attributes: attributes & self.granted[at],
                    }));
                }
                // At the bottom a pointer does not decode, so only an empty entry gets here.
                (Item::Empty | Item::Table { .. }, _) => {
                    let last = Iova(iova.0 | (level.item_bytes() - 1));
                    return Ok(Found::Hole { last });
                }
            }
        }
    }
}

/// Where `iova` lies and how many of the `len` bytes from there on are contiguous, whatever
/// leaves they are in; `None` if it is not mapped or `len` is 0.
///
/// Reads at most six entries for each leaf of the answer and for the one behind it, at which a
/// malformed table ends the run without an error. A leaf of several items is taken at the word
/// of the item that is found first.
///
/// # Errors
///
/// [`WalkError`] if the table is malformed at `iova` itself.
pub fn run(
    reader: &impl ReadEntry,
    root: Root,
    iova: Iova,
    len: u64,
) -> Result<Option<Run>, WalkError> {
    let Found::Leaf(first) = walk(reader, root, iova)? else {
        return Ok(None);
    };
    if len == 0 {
        return Ok(None);
    }
    let hpa = first.hpa_of(iova);
    let mut last = first.last_iova();
    while last - iova < len - 1 {
        let Some(next) = last.checked_add(1) else {
            break;
        };
        let expected = hpa.checked_add(next - iova);
        match walk(reader, root, next) {
            Ok(Found::Leaf(leaf)) if leaf.iova == next && Some(leaf.hpa) == expected => {
                last = leaf.last_iova();
            }
            _ => break,
        }
    }
    let have = last - iova;
    let len = if have < len { have + 1 } else { len };
    Ok(Some(Run { hpa, len }))
}

/// The leaves of a table in the order of their addresses. See [`leaves`].
#[derive(Clone, Debug)]
pub struct Leaves<R> {
    reader: R,
    path: Path,
    first: Iova,
    /// Where to continue; `None` at the end.
    next: Option<Iova>,
    last: Iova,
    limit: u64,
    left: u64,
}

/// All leaves under `root` that map anything in `range`.
///
/// Looks for no more than `limit` leaves and holes, because pointers from many places to one
/// table make a small table look endless. After an error there is nothing more.
pub fn leaves<R: ReadEntry>(
    reader: R,
    root: Root,
    range: RangeInclusive<Iova>,
    limit: u64,
) -> Leaves<R> {
    let (first, last) = range.into_inner();
    Leaves {
        reader,
        path: Path::new(root),
        first,
        next: Some(first),
        last: last.min(Iova(root.level.last_offset())),
        limit,
        left: limit,
    }
}

impl<R: ReadEntry> Iterator for Leaves<R> {
    type Item = Result<Leaf, WalkError>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(iova) = self.next.take().filter(|iova| *iova <= self.last) {
            let Some(left) = self.left.checked_sub(1) else {
                return Some(Err(WalkError::TooLarge { limit: self.limit }));
            };
            self.left = left;
            let (found, last) = match self.path.descend(&self.reader, iova) {
                Ok(Found::Leaf(Leaf { iova: leaf, .. })) if leaf != iova && iova != self.first => {
                    return Some(Err(WalkError::Torn { iova, leaf }));
                }
                Ok(Found::Leaf(leaf)) => (Some(leaf), leaf.last_iova()),
                Ok(Found::Hole { last }) => (None, last),
                Err(error) => return Some(Err(error)),
            };
            self.next = last.checked_add(1);
            if let Some(next) = self.next {
                self.path.ascend(iova, next);
            }
            if let Some(leaf) = found {
                return Some(Ok(leaf));
            }
        }
        None
    }
}
