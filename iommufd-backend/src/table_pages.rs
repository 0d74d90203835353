// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Pages of an I/O page table that a guest can map.

use std::fs::File;
use std::sync::Arc;

use amdv1::TablePage;
use rustix::fs::{MemfdFlags, SealFlags};

use crate::error::Error;
use crate::file_range::FileRange;
use crate::mapping::{Mapping, pointer};
use crate::page_size::host_page_size;

/// What the memory is called in errors and in `/proc/PID/maps`.
const NAME: &str = "guest-memory-table";

/// Empty pages for a table, in shared memory of their own.
///
/// Only this process can write them: the memory is sealed against other mappings that could
/// (F_SEAL_FUTURE_WRITE), and against being cut short. A monitor may map it into a guest as well,
/// read-only.
#[derive(Debug)]
pub struct TablePages {
    mapping: Arc<Mapping>,
    count: usize,
}

impl TablePages {
    /// `count` pages, in memory of `len` bytes, a multiple of 4096 and not 0, whose place in
    /// this process suits one at `physical`, as with [`Mapping::reserve`]; more where the
    /// kernel's pages are larger.
    ///
    /// # Errors
    /// [`Error::Map`]; `EINVAL` if the pages need more than `len` bytes.
    pub fn new(count: usize, len: u64, physical: u64) -> Result<Self, Error> {
        let failed = |errno: rustix::io::Errno| Error::Map {
            len,
            what: NAME,
            source: errno.into(),
        };
        if count
            .checked_mul(size_of::<TablePage>())
            .is_none_or(|bytes| bytes as u64 > len)
        {
            return Err(failed(rustix::io::Errno::INVAL));
        }
        let len = len.next_multiple_of(host_page_size());
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = File::from(rustix::fs::memfd_create(NAME, flags).map_err(failed)?);
        rustix::fs::ftruncate(&file, len).map_err(failed)?;
        let mut mapping = Mapping::reserve(len, physical)?;
        mapping.place(0, FileRange::first(&file, len), NAME)?;
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&file, seals).map_err(failed)?;
        Ok(Self {
            mapping: Arc::new(mapping),
            count,
        })
    }

    /// All of the memory, with zeros behind the pages.
    #[must_use]
    pub fn mapping(&self) -> Arc<Mapping> {
        Arc::clone(&self.mapping)
    }
}

impl AsRef<[TablePage]> for TablePages {
    fn as_ref(&self) -> &[TablePage] {
        let start = pointer(self.mapping.start()).cast();
        // A `TablePage` is made of atomic words: any bytes are valid, and others may read at the same time.
        // SAFETY: so many pages are inside the mapping, which is readable and writable shared
        // memory that cannot be cut short, starts on a page, and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(start, self.count) }
    }
}

#[cfg(test)]
mod tests {
    use address::{Hpa, Iova};
    use amdv1::{Attributes, PageTables, Table, TableAddress};

    use super::*;

    #[test]
    fn a_table_lives_in_the_pages() {
        let pages = TablePages::new(3, 4 << 12, 0).unwrap();
        assert_eq!(pages.mapping().len(), 4 << 12);
        let base = TableAddress::new(0x4000_0000).unwrap();
        let mut table = Table::new(PageTables::new(base, pages).unwrap()).unwrap();
        table
            .map(Iova(0x1000), Hpa(0x7000), 0x1000, Attributes::all())
            .unwrap();
        assert_eq!(table.translate(Iova(0x1234)), Some(Hpa(0x7234)));
        let pages = table.memory().pages().as_ref();
        assert_eq!(pages.len(), 3);
        assert_eq!(pages[2].load(1).unwrap().0, 0x7000_0000_0000_7001);
        assert_eq!(pages[2].load(2).unwrap().0, 0);
    }

    #[test]
    fn pages_have_room_or_are_refused() {
        assert!(TablePages::new(2, 4096, 0).is_err());
        assert!(TablePages::new(usize::MAX, u64::MAX, 0).is_err());
        assert_eq!(TablePages::new(0, 4096, 0).unwrap().as_ref().len(), 0);
    }
}
