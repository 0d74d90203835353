// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Pages in one growing piece of memory, followed at the cost of a pointer.

use alloc::collections::TryReserveError;
use alloc::vec::Vec;

use super::{TABLE_BYTES, TableAddress};
use crate::level::{ENTRIES, Level};
use crate::pte::{Entry, Item};

/// A table, in its own page so that it shares no cache line or TLB entry.
#[derive(Clone, Debug)]
#[repr(C, align(4096))]
struct Page([u64; ENTRIES]);

impl Page {
    const EMPTY: Self = Self([0; ENTRIES]);
}

const _: () = assert!(size_of::<Page>() as u64 == TABLE_BYTES);

/// Pages by their byte offset.
///
/// The first one stays empty and is not a table: it replaces missing ones. Pages are never taken
/// away again.
#[derive(Clone, Debug, Default)]
pub(super) struct Arena {
    pages: Vec<Page>,
    /// What a table of 512 pointers and leaves holds, taken apart: byte offsets of pages, …
    tables: Vec<usize>,
    /// … and addresses of leaves, or [`NO_LEAF`]. Both have 512 items if there are pages, otherwise
    /// none.
    leaves: Vec<u64>,
}

const NO_LEAF: u64 = u64::MAX;

impl Arena {
    pub(super) const fn new() -> Self {
        Self {
            pages: Vec::new(),
            tables: Vec::new(),
            leaves: Vec::new(),
        }
    }

    /// Pages that can be tables.
    pub(super) const fn len(&self) -> usize {
        self.pages.len().saturating_sub(1)
    }

    pub(super) fn try_reserve(&mut self, pages: usize) -> Result<(), TryReserveError> {
        if self.pages.is_empty() {
            self.tables.try_reserve(ENTRIES)?;
            self.leaves.try_reserve(ENTRIES)?;
        }
        self.pages.try_reserve(pages.saturating_add(1))
    }

    /// An empty page at the end. Returns its offset.
    pub(super) fn push(&mut self) -> u64 {
        if self.pages.is_empty() {
            self.pages.push(Page::EMPTY);
            self.tables.resize(ENTRIES, 0);
            self.leaves.resize(ENTRIES, NO_LEAF);
        }
        self.pages.push(Page::EMPTY);
        self.len() as u64 * TABLE_BYTES
    }

    pub(super) fn page(&self, at: TableAddress) -> Option<&[u64; ENTRIES]> {
        let nth = usize::try_from(at.get() / TABLE_BYTES).ok()?;
        Some(&self.pages.get(nth)?.0)
    }

    /// The page at `at`, unless it is the first.
    pub(super) fn page_mut(&mut self, at: TableAddress) -> Option<&mut [u64; ENTRIES]> {
        let nth = usize::try_from(at.get() / TABLE_BYTES).ok()?;
        let tables = self.pages.get_mut(1..)?;
        Some(&mut tables.get_mut(nth.checked_sub(1)?)?.0)
    }

    /// Makes `entry`, from a table of level 2, what [`through`](Self::through) and
    /// [`leaf`](Self::leaf) find at `nth`: a page, a leaf of one item, or neither.
    pub(super) fn set_shortcut(&mut self, nth: usize, entry: Entry) {
        let page = if entry.is_table(Level::L2) {
            usize::try_from(entry.pointee().get() / TABLE_BYTES).ok()
        } else {
            None
        };
        let page = page.filter(|page| *page < self.pages.len());
        let leaf = match entry.decode(Level::L2) {
            Ok(Item::Leaf { hpa, size, .. }) if size.items() == 1 => hpa.0,
            _ => NO_LEAF,
        };
        if let (Some(to_page), Some(to_leaf)) = (self.tables.get_mut(nth), self.leaves.get_mut(nth))
        {
            *to_page = page.unwrap_or(0) * size_of::<Page>();
            *to_leaf = leaf;
        }
    }

    /// The word `index`, modulo 512, of the page that was last set for `nth`, or of the empty one;
    /// `None` from 512 on, and if there are no pages.
    // No check on the way from one load to the next, and only the address of the second page
    // waits for the first load.
    #[inline(always)]
    #[expect(unsafe_code, reason = "a third of the instructions of a lookup")]
    pub(super) fn through(&self, nth: usize, index: usize) -> Option<u64> {
        // Only `push` and `set_shortcut` write `tables`: the former 0 when it has made the first page,
        // the latter the offset of a page which there is. Pages are never taken away.
        let page = *self.tables.get(nth)?;
        let start = self.pages.as_ptr().cast::<u64>();
        let word = start.wrapping_add(index % ENTRIES);
        // SAFETY: `page` is the byte offset of one of the pages, all of which are initialized, and
        // `index % ENTRIES` is less than the words of a page.
        Some(unsafe { word.wrapping_byte_add(page).read() })
    }

    /// The address of the leaf that was last set for `nth`.
    #[inline(always)]
    pub(super) fn leaf(&self, nth: usize) -> Option<u64> {
        let leaf = *self.leaves.get(nth)?;
        (leaf != NO_LEAF).then_some(leaf)
    }

    /// The word `index` of the page that `pointer`, from a table of `level`, points to; `None` if
    /// it is not a pointer or the page is not here.
    // What a pointer is made of besides the offset is always the same here, so a subtraction
    // leaves the offset. Rotated, it is the number of the page; any other entry has bits left
    // below or above and makes a larger one. Taking the fields apart and indexing takes three
    // times the instructions, on the path that every level of a lookup waits for.
    #[inline(always)]
    #[expect(unsafe_code, reason = "a third of the time of a lookup")]
    pub(super) fn follow(&self, pointer: Entry, level: Level, index: usize) -> Option<u64> {
        let marks = Entry::pointer_marks(level);
        let offset = pointer.0.wrapping_sub(marks);
        if offset.rotate_right(TABLE_BYTES.trailing_zeros()) >= self.pages.len() as u64
            || index >= ENTRIES
        {
            return None;
        }
        // In this order all but the last addition can be made before the pointer is there.
        #[expect(clippy::cast_possible_truncation, reason = "the difference fits")]
        let (pointer, marks) = (pointer.0 as usize, marks as usize);
        let start = self.pages.as_ptr().cast::<u64>();
        let word = start.wrapping_byte_sub(marks).wrapping_add(index);
        // SAFETY: this is `offset + 8 * index` bytes into the pages. The low 12 bits of `offset`
        // are 0 and the others are less than the number of pages, so a whole page lies there;
        // `index` is less than its words. All pages are initialized.
        Some(unsafe { word.wrapping_byte_add(pointer).read() })
    }
}

#[cfg(test)]
mod tests {
    use address::Hpa;

    use super::*;
    use crate::level::PageSize;
    use crate::pte::Attributes;

    #[test]
    fn pointers_lead_to_what_the_pages_hold_and_nothing_else_does() {
        let level = Level::L2;
        let pointer = |at| Entry::table(TableAddress::new(at).unwrap(), level).unwrap();
        let mut arena = Arena::new();
        assert_eq!(
            [arena.push(), arena.push(), arena.push()],
            [0x1000, 0x2000, 0x3000]
        );
        for nth in 1..4 {
            let at = TableAddress::new(nth * TABLE_BYTES).unwrap();
            for (word, index) in arena.page_mut(at).unwrap().iter_mut().zip(0_u64..) {
                *word = nth << 32 | index;
            }
            let follow = |index| arena.follow(pointer(at.get()), level, index);
            assert_eq!(follow(0), Some(nth << 32));
            assert_eq!(follow(511), Some(nth << 32 | 511));
            assert_eq!(follow(512), None);
            assert_eq!(follow(usize::MAX), None);
        }
        assert_eq!(arena.follow(pointer(0), level, 511), Some(0));
        let past = pointer(4 * TABLE_BYTES);
        let far = pointer((1 << 52) - TABLE_BYTES);
        let leaf = Entry(0x7000_0000_0000_0001);
        for entry in [past, far, leaf, Entry::EMPTY, Entry(u64::MAX)] {
            assert_eq!(arena.follow(entry, level, 0), None);
        }
        assert_eq!(arena.follow(pointer(0), Level::L1, 0), None);
        assert_eq!(Arena::new().follow(pointer(0), level, 0), None);
        // Near misses: low bits, and a leaf that differs from a pointer in these alone.
        let first = pointer(0).0;
        for entry in [
            first + 1,
            first - 1,
            first + 8,
            first | 1 << 52,
            first & !(7 << 9),
        ] {
            assert_eq!(arena.follow(Entry(entry), level, 0), None);
        }
    }
    #[test]
    fn shortcuts_lead_to_what_was_set() {
        let at = |at| TableAddress::new(at).unwrap();
        let pointer = |page| Entry::table(at(page), Level::L2).unwrap();
        let mut arena = Arena::new();
        arena.set_shortcut(0, pointer(0));
        assert_eq!((arena.through(0, 0), arena.leaf(0)), (None, None));
        for page in [arena.push(), arena.push()] {
            arena.page_mut(at(page)).unwrap().fill(page);
        }
        assert_eq!((arena.through(0, 0), arena.leaf(0)), (Some(0), None));
        arena.set_shortcut(511, pointer(0x2000));
        arena.set_shortcut(3, pointer(0x1000));
        assert_eq!(
            (arena.through(511, 511), arena.leaf(511)),
            (Some(0x2000), None)
        );
        assert_eq!(arena.through(3, 512), Some(0x1000));
        let page = |lg2| PageSize::new(lg2).unwrap();
        let leaf = |lg2| Entry::leaf(Hpa(0x80_0000_0000), page(lg2), Attributes::READ).unwrap();
        arena.set_shortcut(3, leaf(30));
        assert_eq!(
            (arena.through(3, 0), arena.leaf(3)),
            (Some(0), Some(0x80_0000_0000))
        );
        arena.set_shortcut(3, leaf(31));
        assert_eq!((arena.through(3, 0), arena.leaf(3)), (Some(0), None));
        // Beyond the pages, and beyond the shortcuts.
        for beyond in [0x3000, (1 << 52) - TABLE_BYTES] {
            arena.set_shortcut(511, pointer(beyond));
            assert_eq!(arena.through(511, 511), Some(0));
        }
        arena.set_shortcut(512, pointer(0x1000));
        for nth in [512, usize::MAX] {
            assert_eq!((arena.through(nth, 0), arena.leaf(nth)), (None, None));
        }
        // The placeholder of a table is never written.
        assert!(arena.page_mut(at(0)).is_none());
        // They stay right when the pages move.
        arena.set_shortcut(7, pointer(0x2000));
        for _ in 0..100 {
            arena.push();
        }
        assert_eq!(arena.clone().through(7, 1), Some(0x2000));
    }
}
