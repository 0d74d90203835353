// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Tables on the heap.

use alloc::vec::Vec;
use core::ops::Range;

use address::{Hpa, Iova};

use super::arena::Arena;
use super::{EntryRun, OutOfTables, TableAddress, TableMemory};
use crate::level::Level;
use crate::pte::Entry;

/// Tables on the heap, addressed by their place in one growing arena.
///
/// A lookup costs no more than through pointers: a table's address is its byte offset from the
/// arena's start. No table is at address 0.
#[derive(Clone, Debug, Default)]
pub struct HeapTables {
    arena: Arena,
    free: Vec<TableAddress>,
}

impl HeapTables {
    /// No tables yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            arena: Arena::new(),
            free: Vec::new(),
        }
    }

    /// One empty table.
    pub(crate) fn with_one() -> (Self, TableAddress) {
        let mut memory = Self::new();
        memory.free.reserve(1);
        let table = TableAddress::from_masked(memory.arena.push());
        (memory, table)
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
        self.arena
            .try_reserve(more)
            .and_then(|()| {
                self.free
                    .try_reserve(self.arena.len() + more - self.free.len())
            })
            .map_err(|_| self.out_of_tables(tables))
    }

    fn alloc(&mut self) -> Result<TableAddress, OutOfTables> {
        if let Some(table) = self.free.pop() {
            return Ok(table);
        }
        self.reserve(1)?;
        TableAddress::new(self.arena.push()).ok_or_else(|| self.out_of_tables(1))
    }

    fn free(&mut self, table: TableAddress) {
        if let Some(page) = self.arena.page_mut(table) {
            page.fill(0);
            self.free.push(table);
        }
    }

    fn in_use(&self) -> usize {
        self.arena.len() - self.free.len()
    }

    #[inline(always)]
    fn load(&self, table: TableAddress, index: usize) -> Option<Entry> {
        self.arena.page(table)?.get(index).map(|raw| Entry(*raw))
    }

    #[inline(always)]
    fn follow(&self, pointer: Entry, level: Level, index: usize) -> Option<Entry> {
        self.arena.follow(pointer, level, index).map(Entry)
    }

    fn note(&mut self, gib: usize, entry: Entry) {
        self.arena.set_shortcut(gib, entry);
    }

    #[inline(always)]
    fn noted_entry(&self, iova: Iova) -> Option<Entry> {
        let gib = usize::try_from(iova.0 >> Level::L2.item_lg2()).ok()?;
        self.arena.through(gib, Level::L1.index(iova)).map(Entry)
    }

    #[inline(always)]
    fn noted_leaf(&self, iova: Iova) -> Option<Hpa> {
        let gib = usize::try_from(iova.0 >> Level::L2.item_lg2()).ok()?;
        self.arena.leaf(gib).map(Hpa)
    }

    fn store(&mut self, table: TableAddress, index: usize, entry: Entry) {
        if let Some(raw) = self
            .arena
            .page_mut(table)
            .and_then(|page| page.get_mut(index))
        {
            *raw = entry.0;
        }
    }

    fn store_run(&mut self, table: TableAddress, run: EntryRun) {
        let entries = run.first..run.first + run.count;
        let Some(raw) = self
            .arena
            .page_mut(table)
            .and_then(|page| page.get_mut(entries))
        else {
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
        self.arena
            .page(table)?
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
        let Some(raw) = self
            .arena
            .page_mut(table)
            .and_then(|page| page.get_mut(range))
        else {
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
