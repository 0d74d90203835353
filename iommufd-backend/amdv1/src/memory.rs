// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Storage of tables.

mod arena;
mod heap;
mod pages;

use core::ops::Range;

use address::{Hpa, Iova};

use crate::level::Level;
use crate::pte::Entry;

pub use heap::HeapTables;
pub use pages::{PageTables, TablePage};

pub use crate::table_address::{TABLE_BYTES, TableAddress};

/// No memory for another table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("No memory for {tables} more page tables; {in_use} are in use")]
pub struct OutOfTables {
    /// How many were asked for.
    pub tables: usize,
    /// How many there are already.
    pub in_use: usize,
}

/// Values for consecutive entries of a table: `entry`, `entry + step`, `entry + 2 * step`, …
#[derive(Clone, Copy, Debug)]
pub struct EntryRun {
    /// Index of the first one.
    pub first: usize,
    /// How many; they stay inside the table.
    pub count: usize,
    /// Value of the first one.
    pub entry: Entry,
    /// Difference from each to the next: the page size, or 0 for the items of one leaf.
    pub step: u64,
}

impl EntryRun {
    /// Value of the entry `nth` of the run.
    #[must_use]
    pub const fn value(&self, nth: usize) -> Entry {
        Entry(
            self.entry
                .0
                .wrapping_add(self.step.wrapping_mul(nth as u64)),
        )
    }
}

/// Memory for tables: 4 KiB pages, each with an address that fits a table pointer.
///
/// Only [`Table`](crate::Table) calls the methods that change anything, with addresses that
/// [`alloc`](Self::alloc) returned. Everything is bounds-checked nevertheless: for any other
/// address reads find nothing and writes do nothing.
pub trait TableMemory {
    /// Makes sure that the next `tables` calls of [`alloc`](Self::alloc) succeed.
    ///
    /// # Errors
    ///
    /// [`OutOfTables`] if they cannot.
    fn reserve(&mut self, tables: usize) -> Result<(), OutOfTables>;

    /// A table with all entries empty.
    ///
    /// # Errors
    ///
    /// [`OutOfTables`] if there is no memory for it.
    fn alloc(&mut self) -> Result<TableAddress, OutOfTables>;

    /// Takes a table back.
    fn free(&mut self, table: TableAddress);

    /// How many tables are allocated.
    fn in_use(&self) -> usize;

    /// The entry `index` of `table`, or `None` if there is no such entry.
    fn load(&self, table: TableAddress, index: usize) -> Option<Entry>;

    /// The entry `index` of the table that `pointer`, from a table of `level`, points to; `None` if
    /// it is not a pointer or there is no such entry.
    #[inline(always)]
    fn follow(&self, pointer: Entry, level: Level, index: usize) -> Option<Entry> {
        if pointer.is_table(level) {
            self.load(pointer.pointee(), index)
        } else {
            None
        }
    }

    /// Notes what the table of level 2 at IOVA 0 has for the `gib`-th GiB, for memory that can
    /// make a shortcut of it; the provided one forgets it.
    fn note(&mut self, gib: usize, entry: Entry) {
        let _ = (gib, entry);
    }

    /// The entry for `iova` in the table of level 1 that was noted for its GiB, an empty one if
    /// none was; `None` from 512 GiB on, and from memory that keeps no notes.
    #[inline(always)]
    fn noted_entry(&self, iova: Iova) -> Option<Entry> {
        let _ = iova;
        None
    }

    /// The address of the leaf of 1 GiB that was noted for the GiB of `iova`.
    #[inline(always)]
    fn noted_leaf(&self, iova: Iova) -> Option<Hpa> {
        let _ = iova;
        None
    }

    /// Sets the entry `index` of `table`.
    ///
    /// A walk of the tables at the same moment sees the old value or the new one, and with
    /// the new one everything stored before it.
    fn store(&mut self, table: TableAddress, index: usize, entry: Entry);

    /// Sets consecutive entries.
    fn store_run(&mut self, table: TableAddress, run: EntryRun) {
        for nth in 0..run.count {
            self.store(table, run.first + nth, run.value(nth));
        }
    }

    /// Index of the first of the entries `range` that is present.
    fn first_present(&self, table: TableAddress, mut range: Range<usize>) -> Option<usize> {
        range.find(|index| {
            self.load(table, *index)
                .is_some_and(|entry| entry.is_present())
        })
    }

    /// Empties the entries `range` of a table of `level` up to the first pointer to a table.
    /// Returns how many were present, and the index of the pointer or the end of the range.
    fn clear_leaves(
        &mut self,
        table: TableAddress,
        range: Range<usize>,
        level: Level,
    ) -> (usize, usize) {
        let (end, mut cleared) = (range.end, 0);
        for index in range {
            let entry = self.load(table, index).unwrap_or_default();
            if entry.is_table(level) {
                return (cleared, index);
            }
            cleared += usize::from(entry.is_present());
            self.store(table, index, Entry::EMPTY);
        }
        (cleared, end)
    }
}
