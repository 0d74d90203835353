//! Pages in one growing piece of memory, followed at the cost of a pointer.

use alloc::collections::TryReserveError;
use alloc::vec;
use alloc::vec::Vec;

use super::{TABLE_BYTES, TableAddress};
use crate::level::{ENTRIES, Level};
use crate::pte::Entry;

/// A table, and a page of its own so that it shares no cache line or TLB entry.
#[derive(Clone, Debug)]
#[repr(C, align(4096))]
struct Page([u64; ENTRIES]);

const _: () = assert!(size_of::<Page>() as u64 == TABLE_BYTES);

/// Pages by their byte offset.
#[derive(Clone, Debug, Default)]
pub(super) struct Arena {
    pages: Vec<Page>,
}

impl Arena {
    pub(super) const fn new() -> Self {
        Self { pages: Vec::new() }
    }

    /// One empty page.
    pub(super) fn with_one() -> Self {
        Self {
            pages: vec![Page([0; ENTRIES])],
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.pages.len()
    }

    pub(super) fn try_reserve(&mut self, pages: usize) -> Result<(), TryReserveError> {
        self.pages.try_reserve(pages)
    }

    /// An empty page at the end.
    pub(super) fn push(&mut self) {
        self.pages.push(Page([0; ENTRIES]));
    }

    pub(super) fn page(&self, at: TableAddress) -> Option<&[u64; ENTRIES]> {
        let nth = usize::try_from(at.get() / TABLE_BYTES).ok()?;
        Some(&self.pages.get(nth)?.0)
    }

    pub(super) fn page_mut(&mut self, at: TableAddress) -> Option<&mut [u64; ENTRIES]> {
        let nth = usize::try_from(at.get() / TABLE_BYTES).ok()?;
        Some(&mut self.pages.get_mut(nth)?.0)
    }

    /// The word `index` of the page that `pointer`, from a table of `level`, points to; `None` if
    /// it is no pointer or the page is not here.
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
    use super::*;

    #[test]
    fn pointers_lead_to_what_the_pages_hold_and_nothing_else_does() {
        let level = Level::L2;
        let pointer = |at| Entry::table(TableAddress::new(at).unwrap(), level).unwrap();
        let mut arena = Arena::with_one();
        arena.push();
        arena.push();
        for nth in 0..3 {
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
        let past = pointer(3 * TABLE_BYTES);
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
}
