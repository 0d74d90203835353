// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Unmapping, exactly or by the kernel's rule.

use core::ops::RangeInclusive;

use address::{Hpa, Iova};

use crate::level::{Level, PageSize};
use crate::map::MapError;
use crate::memory::{EntryRun, OutOfTables, TableAddress, TableMemory};
use crate::pte::Entry;
use crate::table::Table;
use crate::walk::{Leaf, Root};

/// Why a range was not unmapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnmapError {
    /// IOVA or length is not a multiple of 4 KiB.
    #[error("Range of {len:#x} bytes at IOVA {iova} to unmap is not aligned to 4 KiB")]
    Misaligned {
        /// First address of the range.
        iova: Iova,
        /// Bytes.
        len: u64,
    },
    /// The range passes the end of the 64-bit space.
    #[error("Range of {len:#x} bytes at IOVA {iova} to unmap exceeds 64 bits")]
    Wraps {
        /// First address of the range.
        iova: Iova,
        /// Bytes.
        len: u64,
    },
    /// A page had to be split and there is no memory for the tables.
    #[error("Page cannot be split to unmap {len:#x} bytes at IOVA {iova}")]
    OutOfTables {
        /// First address of the range.
        iova: Iova,
        /// Bytes.
        len: u64,
        /// What was missing.
        #[source]
        cause: OutOfTables,
    },
}

/// The way from the top to one entry: for each level the table on it.
struct Path {
    tables: [TableAddress; Level::TOP.number() as usize + 1],
    /// Level of the entry.
    level: Level,
    /// The entry, which is not a pointer.
    entry: Entry,
}

impl Path {
    fn table(&self) -> TableAddress {
        self.tables[usize::from(self.level.number())]
    }
}

impl<M: TableMemory> Table<M> {
    /// Unmaps `len` bytes at `iova` and nothing else; holes are allowed. Returns how many bytes
    /// were mapped.
    ///
    /// A page of which only a part goes is split: the rest is mapped again with the largest
    /// pages that fit, and for a moment it is not mapped. Tables that become empty are freed.
    ///
    /// # Errors
    ///
    /// [`UnmapError`]; nothing has changed then. Splitting asks for at most 14 tables, even if
    /// fewer turn out to do.
    pub fn unmap(&mut self, iova: Iova, len: u64) -> Result<u64, UnmapError> {
        if !(iova.0 | len).is_multiple_of(PageSize::MIN.bytes()) {
            return Err(UnmapError::Misaligned { iova, len });
        }
        let Some(rest) = len.checked_sub(1) else {
            return Ok(0);
        };
        let last = iova
            .checked_add(rest)
            .ok_or(UnmapError::Wraps { iova, len })?;
        let out = |cause| UnmapError::OutOfTables { iova, len, cause };
        let after = last.checked_add(1);
        let at_start = self.leaf_split_by(iova);
        let at_end = after.and_then(|after| self.leaf_split_by(after));
        let tables = at_start.map_or(0, |leaf| tables_to_split(leaf, iova))
            + at_end.map_or(0, |leaf| tables_to_split(leaf, Iova(last.0 + 1)));
        self.memory.reserve(tables).map_err(out)?;
        self.split_at(iova).map_err(out)?;
        if let Some(after) = after {
            self.split_at(after).map_err(out)?;
        }
        Ok(self.clear_whole(iova, len))
    }

    /// Unmaps as the kernel does, which never splits: pages from `iova` on, each as a whole,
    /// until `len` bytes are covered or there is a hole. Returns the bytes unmapped: more than
    /// `len` if the last page reaches further, 0 if `iova` is not the start of a page.
    ///
    /// A table below the top is freed only if the range covers all of it.
    pub fn unmap_whole_pages(&mut self, iova: Iova, len: u64) -> u64 {
        let Some(rest) = len.checked_sub(1) else {
            return 0;
        };
        let last = Iova(iova.0.saturating_add(rest));
        let mut unmapped = 0;
        let mut next = Some(iova);
        while let Some(at) = next.filter(|at| *at <= last) {
            let Some(path) = self.path_to(at) else { break };
            let (bytes, end) = self.clear_pages_from(&path, at, last);
            unmapped += bytes;
            if end <= at.0 {
                break;
            }
            let end_iova = Iova(end);
            self.free_covered(&path, &(iova..=last), end_iova);
            next = end_iova.checked_add(1);
        }
        self.find_low(iova, last);
        unmapped
    }

    /// Clears the pages in one table from `at` on, up to the one with `last` in it, a hole, or
    /// a pointer. Returns the bytes cleared and the last address cleared, or 0 and 0.
    fn clear_pages_from(&mut self, path: &Path, at: Iova, last: Iova) -> (u64, u64) {
        let table = path.table();
        let mut index = path.level.index(at);
        let (mut entry, mut pos, mut bytes, mut end) = (path.entry, at, 0, 0);
        loop {
            let Ok(crate::pte::Item::Leaf { size, .. }) = entry.decode(path.level) else {
                return (bytes, end);
            };
            if !pos.is_aligned(size.bytes()) {
                return (bytes, end);
            }
            let nothing = EntryRun {
                first: index,
                count: size.items(),
                entry: Entry::EMPTY,
                step: 0,
            };
            self.memory.store_run(table, nothing);
            bytes += size.bytes();
            end = pos.0 | (size.bytes() - 1);
            index += size.items();
            if end >= last.0 || index >= path.level.entries() {
                return (bytes, end);
            }
            pos = Iova(end + 1);
            entry = self.memory.load(table, index).unwrap_or_default();
        }
    }

    /// Frees the tables of `path` that end at `end` and lie inside of `range`.
    fn free_covered(&mut self, path: &Path, range: &RangeInclusive<Iova>, end: Iova) {
        let mut level = path.level;
        while let Some(above) = level.above().filter(|_| level < self.root.level) {
            let span = level.last_offset();
            if end.0 & span != span || end.0 & !span < range.start().0 || end > *range.end() {
                return;
            }
            self.free_table(path, level, above, end);
            level = above;
        }
    }

    /// Takes the table of `path` at `level` out of the one above it.
    fn free_table(&mut self, path: &Path, level: Level, above: Level, iova: Iova) {
        let parent = path.tables[usize::from(above.number())];
        self.memory.store(parent, above.index(iova), Entry::EMPTY);
        self.memory.free(path.tables[usize::from(level.number())]);
    }

    /// Unmaps the pages from `iova` on for `len` bytes, none of which reaches over an end, and
    /// frees the tables that become empty. Returns how many bytes were mapped.
    pub(crate) fn clear_whole(&mut self, iova: Iova, len: u64) -> u64 {
        let Some(rest) = len.checked_sub(1) else {
            return 0;
        };
        let last = Iova(iova.0 + rest);
        let mut unmapped = 0;
        let mut next = Some(iova);
        while let Some(at) = next.filter(|at| *at <= last) {
            let Some(path) = self.path_to(at) else { break };
            let level = path.level;
            let table_last = Iova(at.0 | level.last_offset());
            let first = level.index(at);
            let end = level.index(last.min(table_last)) + 1;
            let (items, stop) = self.memory.clear_leaves(path.table(), first..end, level);
            unmapped += items as u64 * level.item_bytes();
            let done = if stop < end {
                // A pointer: on with what is below it.
                Iova(
                    at.align_down(level.item_bytes()).0
                        + (stop - first) as u64 * level.item_bytes()
                        - 1,
                )
            } else {
                self.free_empty(&path, last.min(table_last), last);
                last.min(table_last)
            };
            next = done.checked_add(1);
        }
        self.find_low(iova, last);
        unmapped
    }

    /// Frees the empty tables of `path` that are done with: those that end at `done`, and all
    /// of them if the range ends there.
    fn free_empty(&mut self, path: &Path, done: Iova, last: Iova) {
        let mut level = path.level;
        while let Some(above) = level.above().filter(|_| level < self.root.level) {
            let table = path.tables[usize::from(level.number())];
            let span = level.last_offset();
            let finished = done == last || done.0 & span == span;
            if !finished || !self.is_empty(table, level, level.index(done)) {
                return;
            }
            self.free_table(path, level, above, done);
            level = above;
        }
    }

    /// Whether a table of `level` has no entry. Looks first at both sides of `index`, where the
    /// others are when pages go one by one.
    fn is_empty(&self, table: TableAddress, level: Level, index: usize) -> bool {
        let before = index.saturating_sub(1);
        let parts = [before..index, index..level.entries(), 0..before];
        parts
            .into_iter()
            .all(|part| self.memory.first_present(table, part).is_none())
    }

    /// The way to the entry for `iova`; `None` if the tree does not reach it.
    fn path_to(&self, iova: Iova) -> Option<Path> {
        let Root {
            mut table,
            mut level,
        } = self.root;
        if !level.reaches(iova) {
            return None;
        }
        let mut tables = [table; Level::TOP.number() as usize + 1];
        loop {
            tables[usize::from(level.number())] = table;
            let entry = self.memory.load(table, level.index(iova))?;
            match level.below().filter(|_| entry.is_table(level)) {
                Some(below) => (table, level) = (entry.pointee(), below),
                None => {
                    return Some(Path {
                        tables,
                        level,
                        entry,
                    });
                }
            }
        }
    }

    /// The page that begins before `at` and continues there.
    fn leaf_split_by(&self, at: Iova) -> Option<Leaf> {
        self.lookup(at).filter(|leaf| leaf.iova != at)
    }

    /// Makes a page border at `at`, which takes no more tables than [`tables_to_split`] returns.
    fn split_at(&mut self, at: Iova) -> Result<(), OutOfTables> {
        let Some(leaf) = self.leaf_split_by(at) else {
            return Ok(());
        };
        let Some(path) = self.path_to(at) else {
            return Ok(());
        };
        let nothing = EntryRun {
            first: path.level.index(leaf.iova),
            count: leaf.size.items(),
            entry: Entry::EMPTY,
            step: 0,
        };
        self.memory.store_run(path.table(), nothing);
        let before = at - leaf.iova;
        let hpa = Hpa(leaf.hpa.0 + before);
        self.map_prefix(leaf.iova, leaf.hpa, before, leaf.attributes)
            .and_then(|()| self.map_prefix(at, hpa, leaf.size.bytes() - before, leaf.attributes))
            .or_else(|error| match error {
                MapError::OutOfTables { cause, .. } => Err(cause),
                // The two parts of a page that was mapped have nothing wrong with them.
                _ => Ok(()),
            })
    }
}

/// How many tables splitting `leaf` at `at` needs at most.
fn tables_to_split(leaf: Leaf, at: Iova) -> usize {
    let level = leaf.size.level().number();
    // One on each level down to the one where `at` is the border of an item.
    let chain = (1..=level)
        .filter_map(Level::new)
        .filter(|level| !at.is_aligned(level.item_bytes()))
        .count();
    // A part of 512 GiB has no single leaf: two of 256 GiB in a table, before and after.
    chain + if level >= 3 { 2 } else { 0 }
}
