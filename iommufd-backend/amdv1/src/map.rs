// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Mapping.

use address::{Hpa, Iova};

use crate::level::{ENTRIES, Level, OUTPUT_BITS, PageSize};
use crate::memory::{EntryRun, OutOfTables, TableAddress, TableMemory};
use crate::pte::{Attributes, Entry};
use crate::table::Table;
use crate::walk::Root;

/// Why a range was not mapped. In brackets the kernel's errno for the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// No bytes (`EINVAL`).
    #[error("Empty mapping at IOVA {iova}")]
    NoBytes {
        /// First address of the range.
        iova: Iova,
    },
    /// Neither READ nor WRITE (`EINVAL`).
    #[error("Mapping at IOVA {iova} is neither readable nor writable")]
    NoAccess {
        /// First address of the range.
        iova: Iova,
    },
    /// IOVA, HPA or length is not a multiple of 4 KiB (`ENXIO`).
    #[error("Mapping of {len:#x} bytes at IOVA {iova} to HPA {hpa} is not aligned to 4 KiB")]
    Misaligned {
        /// First address of the range.
        iova: Iova,
        /// Where it would lie.
        hpa: Hpa,
        /// Bytes.
        len: u64,
    },
    /// The last host-physical address is not below 2^52 (`ERANGE`).
    #[error("Mapping of {len:#x} bytes to HPA {hpa} does not end below 2^52")]
    OutOfRange {
        /// Where it would lie.
        hpa: Hpa,
        /// Bytes.
        len: u64,
    },
    /// The range passes the end of the 64-bit space (`EOVERFLOW`).
    #[error("Mapping of {len:#x} bytes at IOVA {iova} exceeds 64 bits")]
    Wraps {
        /// First address of the range.
        iova: Iova,
        /// Bytes.
        len: u64,
    },
    /// Part of the range is mapped already (`EADDRINUSE`).
    #[error("Mapping overlaps another in the page at IOVA {at}")]
    InUse {
        /// First address of the page that could not be mapped.
        at: Iova,
    },
    /// There is no memory for another table (`ENOMEM`).
    #[error("Mapping stops at IOVA {at}")]
    OutOfTables {
        /// First address that could not be mapped.
        at: Iova,
        /// What was missing.
        #[source]
        cause: OutOfTables,
    },
}

/// What is left of a range to map.
#[derive(Clone, Copy)]
struct Rest {
    iova: Iova,
    hpa: Hpa,
    len: u64,
    attributes: Attributes,
}

/// Pages of one size, next to each other in one table.
#[derive(Clone, Copy)]
struct Pages {
    size: PageSize,
    count: usize,
    entry: Entry,
}

impl<M: TableMemory> Table<M> {
    /// Maps `len` bytes at `iova` to `hpa`, all or nothing, with the largest pages that the
    /// alignment of both permits.
    ///
    /// # Errors
    ///
    /// [`MapError`]. Nothing is mapped then that was not before; the tree may have become
    /// higher.
    pub fn map(
        &mut self,
        iova: Iova,
        hpa: Hpa,
        len: u64,
        attributes: Attributes,
    ) -> Result<(), MapError> {
        let result = self.map_prefix(iova, hpa, len, attributes);
        if let Err(MapError::InUse { at } | MapError::OutOfTables { at, .. }) = result {
            // Whole pages, just made: nothing has to be split, so nothing can fail.
            self.clear_whole(iova, at - iova);
        }
        result
    }

    /// [`map`](Self::map) as the kernel's table code does it, which leaves mapped what comes
    /// before a collision: from `iova` to the error's `at`.
    ///
    /// # Errors
    ///
    /// [`MapError`].
    pub fn map_prefix(
        &mut self,
        iova: Iova,
        hpa: Hpa,
        len: u64,
        attributes: Attributes,
    ) -> Result<(), MapError> {
        check(iova, hpa, len, attributes)?;
        let rest = Rest {
            iova,
            hpa,
            len,
            attributes,
        };
        let result = self.map_all(rest);
        self.find_low(iova, Iova(iova.0 + (len - 1)));
        result
    }

    fn map_all(&mut self, mut rest: Rest) -> Result<(), MapError> {
        // A page of 256 TiB fills all that a lower top reaches, but has no entry there.
        let lowest = rest.next_pages().map_or(Level::START, |p| p.size.level());
        self.grow(lowest, Iova(rest.iova.0 + (rest.len - 1)), rest.iova)?;
        // Aligned to 4 KiB, so some page size always fits and the loop ends at length 0.
        while let Some(pages) = rest.next_pages() {
            self.map_pages(rest.iova, pages)?;
            rest = rest.after(pages);
        }
        Ok(())
    }

    /// Stacks tables on the top until it is at `lowest` or above and reaches `last`.
    fn grow(&mut self, lowest: Level, last: Iova, at: Iova) -> Result<(), MapError> {
        while self.root.level < lowest || !self.root.level.reaches(last) {
            let Some(level) = self.root.level.above() else {
                return Ok(());
            };
            let out = |cause| MapError::OutOfTables { at, cause };
            let table = self.memory.alloc().map_err(out)?;
            if let Some(pointer) = Entry::table(self.root.table, level) {
                self.memory.store(table, 0, pointer);
            }
            self.root = Root { table, level };
        }
        Ok(())
    }

    /// Maps pages of one size in one table, from `iova` on.
    fn map_pages(&mut self, iova: Iova, pages: Pages) -> Result<(), MapError> {
        let level = pages.size.level();
        let table = self.table_for(iova, level)?;
        let first = level.index(iova);
        let end = first + pages.count * pages.size.items();
        let Some(used) = self.memory.first_present(table, first..end) else {
            self.store_pages(table, first, pages);
            return Ok(());
        };
        // Something is there: what comes before is mapped at once, the rest page by page.
        let free = (used - first) / pages.size.items();
        self.store_pages(
            table,
            first,
            Pages {
                count: free,
                ..pages
            },
        );
        for nth in free..pages.count {
            let at = iova + nth as u64 * pages.size.bytes();
            self.make_room(table, at, pages.size)?;
            let page = Pages {
                count: 1,
                entry: Entry(pages.entry.0 + nth as u64 * pages.size.bytes()),
                ..pages
            };
            self.store_pages(table, level.index(at), page);
        }
        Ok(())
    }

    /// The table of `level` for `iova`, made if it is not there.
    fn table_for(&mut self, iova: Iova, level: Level) -> Result<TableAddress, MapError> {
        let Root {
            mut table,
            level: mut at,
        } = self.root;
        let mut reserved = false;
        while let Some(below) = at.below().filter(|_| at > level) {
            let index = at.index(iova);
            let entry = self.memory.load(table, index).unwrap_or_default();
            if entry.is_table(at) {
                table = entry.pointee();
            } else if entry.is_present() {
                return Err(MapError::InUse { at: iova });
            } else {
                let out = |cause| MapError::OutOfTables { at: iova, cause };
                if !reserved {
                    // All or none: a table without entries is never left behind.
                    let missing = usize::from(at.number() - level.number());
                    self.memory.reserve(missing).map_err(out)?;
                    reserved = true;
                }
                let new = self.memory.alloc().map_err(out)?;
                if let Some(pointer) = Entry::table(new, at) {
                    self.memory.store(table, index, pointer);
                }
                table = new;
            }
            at = below;
        }
        Ok(table)
    }

    /// Frees the tables in the place of the page at `iova`, if they map nothing.
    fn make_room(
        &mut self,
        table: TableAddress,
        iova: Iova,
        size: PageSize,
    ) -> Result<(), MapError> {
        let last = Iova(iova.0 | (size.bytes() - 1));
        if self.leaves(iova, last).next().is_some() {
            return Err(MapError::InUse { at: iova });
        }
        let level = size.level();
        for index in (level.index(iova)..).take(size.items()) {
            let entry = self.memory.load(table, index).unwrap_or_default();
            if let Some(below) = level.below().filter(|_| entry.is_table(level)) {
                self.memory.store(table, index, Entry::EMPTY);
                self.free_below(entry.pointee(), below);
                self.memory.free(entry.pointee());
            }
        }
        Ok(())
    }

    fn store_pages(&mut self, table: TableAddress, first: usize, pages: Pages) {
        let Pages { size, count, entry } = pages;
        if size.items() == 1 {
            let run = EntryRun {
                first,
                count,
                entry,
                step: size.bytes(),
            };
            self.memory.store_run(table, run);
            return;
        }
        for nth in 0..count {
            let run = EntryRun {
                first: first + nth * size.items(),
                count: size.items(),
                entry: Entry(entry.0 + nth as u64 * size.bytes()),
                step: 0,
            };
            self.memory.store_run(table, run);
        }
    }
}

impl Rest {
    /// The pages to map next: as many of one size as come before a larger size fits, before the
    /// table ends, and before the range ends.
    fn next_pages(&self) -> Option<Pages> {
        let size = PageSize::best(self.iova.0, self.hpa.0, self.len)?;
        let mut count = self.len >> size.lg2();
        if let Some(larger) = size.larger() {
            let within = larger.bytes() - 1;
            if (self.iova.0 ^ self.hpa.0) & within == 0 {
                let before = (larger.bytes() - (self.iova.0 & within)) >> size.lg2();
                count = count.min(before);
            }
        }
        let in_table = (ENTRIES - size.level().index(self.iova)) / size.items();
        let count = usize::try_from(count).map_or(in_table, |count| count.min(in_table));
        Some(Pages {
            size,
            count,
            entry: Entry::leaf(self.hpa, size, self.attributes)?,
        })
    }

    fn after(&self, pages: Pages) -> Self {
        let bytes = pages.count as u64 * pages.size.bytes();
        Self {
            // At the very end of the space nothing is left, so the value does not matter.
            iova: Iova(self.iova.0.wrapping_add(bytes)),
            hpa: self.hpa + bytes,
            len: self.len - bytes,
            ..*self
        }
    }
}

fn check(iova: Iova, hpa: Hpa, len: u64, attributes: Attributes) -> Result<(), MapError> {
    if len == 0 {
        return Err(MapError::NoBytes { iova });
    }
    if !attributes.intersects(Attributes::READ | Attributes::WRITE) {
        return Err(MapError::NoAccess { iova });
    }
    if !(iova.0 | hpa.0 | len).is_multiple_of(PageSize::MIN.bytes()) {
        return Err(MapError::Misaligned { iova, hpa, len });
    }
    if hpa
        .checked_add(len)
        .is_none_or(|end| end.0 > 1 << OUTPUT_BITS)
    {
        return Err(MapError::OutOfRange { hpa, len });
    }
    if iova.checked_add(len - 1).is_none() {
        return Err(MapError::Wraps { iova, len });
    }
    Ok(())
}
