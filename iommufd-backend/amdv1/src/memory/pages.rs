// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tables in pages that others may read.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use address::Iova;

use super::{OutOfTables, TABLE_BYTES, TableAddress, TableMemory};
use crate::level::{ENTRIES, Level, OUTPUT_BITS};
use crate::pte::Entry;

/// A page for a table that others may read at the same time, for instance a guest.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct TablePage([AtomicU64; ENTRIES]);

impl Default for TablePage {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; ENTRIES])
    }
}

impl TablePage {
    /// The entry `index`, or `None` from 512 on.
    #[must_use]
    pub fn load(&self, index: usize) -> Option<Entry> {
        let raw = self.0.get(index)?.load(Ordering::Acquire);
        Some(Entry(u64::from_le(raw)))
    }

    fn store(&self, index: usize, entry: Entry) {
        if let Some(raw) = self.0.get(index) {
            // Release: a reader that follows a pointer sees the table that it points to.
            raw.store(entry.0.to_le(), Ordering::Release);
        }
    }
}

/// Tables in pages with addresses of their own: page n of `pages` is at `base + n * 4096`.
///
/// For tables that others walk: `pages` is what they see, a boxed slice, an
/// `Arc<[TablePage]>`, or memory mapped from elsewhere, and `base` is where they see it.
#[derive(Debug)]
pub struct PageTables<P> {
    base: TableAddress,
    pages: P,
    free: Vec<TableAddress>,
    /// Pages from here on were never used.
    fresh: usize,
    /// For each of the first 512 GiB the number of the page that is its table of level 1, from 1 on; 0 if it has none.
    notes: Box<[usize]>,
}

impl<P: AsRef<[TablePage]>> PageTables<P> {
    /// Tables in `pages`, which others see from address `base` on; `None` if their last address
    /// does not fit a table pointer.
    pub fn new(base: TableAddress, pages: P) -> Option<Self> {
        let bytes = TABLE_BYTES.checked_mul(pages.as_ref().len() as u64)?;
        let end = base.get().checked_add(bytes)?;
        (end <= 1 << OUTPUT_BITS).then(|| Self {
            base,
            pages,
            free: Vec::new(),
            fresh: 0,
            notes: vec![0; ENTRIES].into(),
        })
    }

    /// The pages, for sharing them.
    pub fn pages(&self) -> &P {
        &self.pages
    }

    fn page(&self, table: TableAddress) -> Option<&TablePage> {
        self.pages.as_ref().get(self.number(table)?)
    }

    fn number(&self, table: TableAddress) -> Option<usize> {
        let offset = table.get().checked_sub(self.base.get())?;
        usize::try_from(offset / TABLE_BYTES).ok()
    }

    fn left(&self) -> usize {
        self.pages.as_ref().len() - self.fresh + self.free.len()
    }

    fn out_of_tables(&self, tables: usize) -> OutOfTables {
        OutOfTables {
            tables,
            in_use: self.in_use(),
        }
    }
}

impl<P: AsRef<[TablePage]>> TableMemory for PageTables<P> {
    fn reserve(&mut self, tables: usize) -> Result<(), OutOfTables> {
        if self.left() < tables {
            return Err(self.out_of_tables(tables));
        }
        // Freeing never allocates.
        self.free
            .try_reserve(self.pages.as_ref().len() - self.free.len())
            .map_err(|_| self.out_of_tables(tables))
    }

    fn alloc(&mut self) -> Result<TableAddress, OutOfTables> {
        self.reserve(1)?;
        let table = self.free.pop().unwrap_or_else(|| {
            self.fresh += 1;
            TableAddress::from_masked(self.base.get() + (self.fresh as u64 - 1) * TABLE_BYTES)
        });
        for index in 0..ENTRIES {
            self.store(table, index, Entry::EMPTY);
        }
        Ok(table)
    }

    fn free(&mut self, table: TableAddress) {
        if self.page(table).is_some() {
            self.free.push(table);
        }
    }

    fn in_use(&self) -> usize {
        self.fresh - self.free.len()
    }

    fn load(&self, table: TableAddress, index: usize) -> Option<Entry> {
        self.page(table)?.load(index)
    }

    fn note(&mut self, gib: usize, entry: Entry) {
        let table = entry
            .is_table(Level::L2)
            .then(|| self.number(entry.pointee()));
        if let Some(note) = self.notes.get_mut(gib) {
            *note = table.flatten().map_or(0, |number| number + 1);
        }
    }

    #[inline(always)]
    fn noted_entry(&self, iova: Iova) -> Option<Entry> {
        let gib = usize::try_from(iova.0 >> Level::L2.item_lg2()).ok()?;
        let number = self.notes.get(gib)?.wrapping_sub(1);
        match self.pages.as_ref().get(number) {
            Some(page) => page.load(Level::L1.index(iova)),
            None => Some(Entry::EMPTY),
        }
    }

    fn store(&mut self, table: TableAddress, index: usize, entry: Entry) {
        if let Some(page) = self.page(table) {
            page.store(index, entry);
        }
    }
}
