//! The table that the window shows.

use std::fmt;
use std::sync::Arc;

use address::{Gpa, Iova};
use amdv1::{Attributes, MapError, OutOfTables, PageTables, Root, Table, TableAddress, TablePage};
use thiserror::Error;

use super::memory::{GuestMemory, bar_size};

/// A table that cannot be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BuildError {
    /// A BAR of this size cannot stand there.
    #[error("a BAR of {size:#x} bytes for the DMA window's table cannot stand at {base}")]
    Place {
        /// First address of the BAR.
        base: Gpa,
        /// Bytes.
        size: u64,
    },
    /// The BAR would hide guest memory.
    #[error("the DMA window's table at {base}, {size:#x} bytes, overlaps guest memory")]
    Overlap {
        /// First address of the BAR.
        base: Gpa,
        /// Bytes.
        size: u64,
    },
    /// There are no tables for the top of the tree.
    #[error("The DMA window's table")]
    Tables(#[from] OutOfTables),
    /// A piece of memory does not fit the table.
    #[error("The DMA window's table")]
    Map(#[from] MapError),
}

/// An AMDv1 table from guest-physical to host-physical addresses, whose pointers are
/// guest-physical addresses of the BAR that shows it.
///
/// Each leaf grants reading and writing and is marked force-coherent, as those that Linux keeps
/// for a noiommu device.
#[derive(Clone)]
pub struct WindowTable {
    memory: GuestMemory,
    base: Gpa,
    root: Root,
    pages: Arc<[TablePage]>,
}

impl fmt::Debug for WindowTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WindowTable")
            .field("base", &self.base)
            .field("root", &self.root)
            .field("pages", &self.pages.len())
            .finish_non_exhaustive()
    }
}

impl WindowTable {
    /// The table of `memory` for a BAR at `base`, a multiple of
    /// [`bar_size`](GuestMemory::bar_size).
    ///
    /// # Errors
    ///
    /// [`BuildError`], in practice if the BAR cannot stand at `base`.
    pub fn build(memory: GuestMemory, base: Gpa) -> Result<Self, BuildError> {
        let pages = memory.table_pages();
        let size = bar_size(pages);
        let place = BuildError::Place { base, size };
        let address = TableAddress::new(base.0).filter(|_| base.0 != 0 && base.is_aligned(size));
        let address = address.ok_or(place)?;
        if memory.touches(base, size) {
            return Err(BuildError::Overlap { base, size });
        }
        let pages: Arc<[TablePage]> = (0..pages).map(|_| TablePage::default()).collect();
        let mut table = Table::new(PageTables::new(address, Arc::clone(&pages)).ok_or(place)?)?;
        for piece in memory.pieces() {
            table.map(Iova(piece.gpa.0), piece.hpa, piece.len, Attributes::all())?;
        }
        let root = table.root();
        Ok(Self {
            memory,
            base,
            root,
            pages,
        })
    }

    /// The memory that it is a table of.
    #[must_use]
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// Where the BAR stands.
    #[must_use]
    pub fn base(&self) -> Gpa {
        self.base
    }

    /// Bytes of the BAR: a power of two, at least those of the pages.
    #[must_use]
    pub fn bar_size(&self) -> u64 {
        bar_size(self.pages.len())
    }

    /// Where a walk begins.
    #[must_use]
    pub fn root(&self) -> Root {
        self.root
    }

    /// The tables as they stand from the BAR's first address on, aligned to 4 KiB. They do not
    /// change any more. The monitor can map them into the guest, read-only; a clone of the `Arc`
    /// keeps them in place for as long.
    #[must_use]
    pub fn pages(&self) -> &Arc<[TablePage]> {
        &self.pages
    }

    /// Bytes of the tables: less than or as many as those of the BAR.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        size_of_val::<[TablePage]>(&self.pages) as u64
    }

    /// Reads `data.len()` bytes, at most 8 and not across a multiple of 8, at `offset` into the
    /// BAR; zeros behind the tables.
    pub(super) fn read(&self, offset: u64, data: &mut [u8]) {
        let word = usize::try_from(offset / 8).unwrap_or(usize::MAX);
        let entry = self.pages.get(word / amdv1::level::ENTRIES);
        let entry = entry.and_then(|page| page.load(word % amdv1::level::ENTRIES));
        super::registers::read_part(entry.unwrap_or_default().0, offset, data);
    }
}
