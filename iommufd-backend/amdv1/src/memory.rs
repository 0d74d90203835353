//! Where tables live.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::level::{ENTRIES, Level, OUTPUT_BITS};
use crate::pte::Entry;

/// Bytes of a table.
pub const TABLE_BYTES: u64 = 4096;

/// What a table pointer holds: a multiple of 4 KiB below 2^52.
///
/// In which space is up to the memory that the tables live in: an offset into the heap's
/// arena, a guest-physical address, a host-physical address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableAddress(u64);

impl TableAddress {
    /// The table at `address`; `None` unless that is a multiple of 4 KiB below 2^52.
    #[must_use]
    pub const fn new(address: u64) -> Option<Self> {
        if address.is_multiple_of(TABLE_BYTES) && address >> OUTPUT_BITS == 0 {
            Some(Self(address))
        } else {
            None
        }
    }

    /// The address.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Address of the table's entry `index`, which is below 512.
    #[must_use]
    pub const fn entry(self, index: usize) -> u64 {
        self.0 + 8 * (index as u64)
    }

    /// `address` has only bits 51:12.
    pub(crate) const fn from_masked(address: u64) -> Self {
        Self(address)
    }
}

/// No memory for another table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("No memory for {tables} more page tables, {in_use} are in use")]
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

    /// Sets the entry `index` of `table`.
    ///
    /// Whoever walks the tables at the same moment sees the old value or the new one, and with
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

/// A table on the heap, and a page of its own so that it shares no cache line or TLB entry.
#[derive(Clone, Debug)]
#[repr(C, align(4096))]
struct HeapPage([u64; ENTRIES]);

/// Tables on the heap, addressed by their place in one growing arena.
///
/// The first table is at address 0. A lookup costs no more than through pointers: a table's
/// address is its byte offset from the arena's start.
#[derive(Clone, Debug, Default)]
pub struct HeapTables {
    pages: Vec<HeapPage>,
    free: Vec<TableAddress>,
}

impl HeapTables {
    /// No tables yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            pages: Vec::new(),
            free: Vec::new(),
        }
    }

    /// One empty table.
    pub(crate) fn with_one() -> (Self, TableAddress) {
        let memory = Self {
            pages: vec![HeapPage([0; ENTRIES])],
            free: Vec::with_capacity(1),
        };
        (memory, TableAddress(0))
    }

    #[inline(always)]
    fn page(&self, table: TableAddress) -> Option<&[u64; ENTRIES]> {
        let nth = usize::try_from(table.0 / TABLE_BYTES).ok()?;
        Some(&self.pages.get(nth)?.0)
    }

    fn page_mut(&mut self, table: TableAddress) -> Option<&mut [u64; ENTRIES]> {
        let nth = usize::try_from(table.0 / TABLE_BYTES).ok()?;
        Some(&mut self.pages.get_mut(nth)?.0)
    }

    fn out_of_tables(&self, tables: usize) -> OutOfTables {
        OutOfTables {
            tables,
            in_use: self.in_use(),
        }
    }
}

impl TableMemory for HeapTables {
    fn reserve(&mut self, tables: usize) -> Result<(), OutOfTables> {
        let more = tables.saturating_sub(self.free.len());
        // The list of free tables must be able to hold all of them: freeing never allocates.
        self.pages
            .try_reserve(more)
            .and_then(|()| {
                self.free
                    .try_reserve(self.pages.len() + more - self.free.len())
            })
            .map_err(|_| self.out_of_tables(tables))
    }

    fn alloc(&mut self) -> Result<TableAddress, OutOfTables> {
        if let Some(table) = self.free.pop() {
            return Ok(table);
        }
        self.reserve(1)?;
        let table = TableAddress::new(self.pages.len() as u64 * TABLE_BYTES)
            .ok_or_else(|| self.out_of_tables(1))?;
        self.pages.push(HeapPage([0; ENTRIES]));
        Ok(table)
    }

    fn free(&mut self, table: TableAddress) {
        if let Some(page) = self.page_mut(table) {
            page.fill(0);
            self.free.push(table);
        }
    }

    fn in_use(&self) -> usize {
        self.pages.len() - self.free.len()
    }

    #[inline(always)]
    fn load(&self, table: TableAddress, index: usize) -> Option<Entry> {
        self.page(table)?.get(index).map(|raw| Entry(*raw))
    }

    fn store(&mut self, table: TableAddress, index: usize, entry: Entry) {
        if let Some(raw) = self.page_mut(table).and_then(|page| page.get_mut(index)) {
            *raw = entry.0;
        }
    }

    fn store_run(&mut self, table: TableAddress, run: EntryRun) {
        let entries = run.first..run.first + run.count;
        let Some(raw) = self.page_mut(table).and_then(|page| page.get_mut(entries)) else {
            return;
        };
        let mut value = run.entry.0;
        for raw in raw {
            *raw = value;
            value = value.wrapping_add(run.step);
        }
    }

    fn first_present(&self, table: TableAddress, range: Range<usize>) -> Option<usize> {
        let first = range.start;
        self.page(table)?
            .get(range)?
            .iter()
            .position(|raw| Entry(*raw).is_present())
            .map(|nth| first + nth)
    }

    fn clear_leaves(
        &mut self,
        table: TableAddress,
        range: Range<usize>,
        level: Level,
    ) -> (usize, usize) {
        let (first, end) = (range.start, range.end);
        let Some(raw) = self.page_mut(table).and_then(|page| page.get_mut(range)) else {
            return (0, end);
        };
        let stop = if level == Level::BOTTOM {
            None
        } else {
            raw.iter().position(|raw| Entry(*raw).is_table(level))
        };
        let leaves = &mut raw[..stop.unwrap_or(end - first)];
        let cleared = leaves
            .iter()
            .filter(|raw| Entry(**raw).is_present())
            .count();
        leaves.fill(0);
        (cleared, first + leaves.len())
    }
}

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
            // Release: who follows a pointer sees the table that it points to.
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
}

impl<P: AsRef<[TablePage]>> PageTables<P> {
    /// Tables in `pages`, which others see from address `base` on; `None` if their last address
    /// does not fit a table pointer.
    pub fn new(base: TableAddress, pages: P) -> Option<Self> {
        let bytes = TABLE_BYTES.checked_mul(pages.as_ref().len() as u64)?;
        let end = base.0.checked_add(bytes)?;
        (end <= 1 << OUTPUT_BITS).then(|| Self {
            base,
            pages,
            free: Vec::new(),
            fresh: 0,
        })
    }

    /// The pages, for who shows them to others.
    pub fn pages(&self) -> &P {
        &self.pages
    }

    fn page(&self, table: TableAddress) -> Option<&TablePage> {
        let offset = table.0.checked_sub(self.base.0)?;
        let nth = usize::try_from(offset / TABLE_BYTES).ok()?;
        self.pages.as_ref().get(nth)
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
            TableAddress(self.base.0 + (self.fresh as u64 - 1) * TABLE_BYTES)
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

    fn store(&mut self, table: TableAddress, index: usize, entry: Entry) {
        if let Some(page) = self.page(table) {
            page.store(index, entry);
        }
    }
}
