// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Addresses of a guest's memory: the one table of a run.
//!
//! It is in AMD's v1 format and keyed by guest-physical address. The monitor fills it once, when
//! memory is laid out, and never changes or copies it. It answers for mediated devices, for the
//! DMA window's registers, and for the monitor's own reports and checks; its pages are what a guest
//! with a DMA window reads. The order of construction:
//!
//! 1. [`Pieces`]: the pieces of the guest's RAM; [`table_pages`](Pieces::table_pages) returns how
//!    many pages its table takes.
//! 2. [`GuestTable`]: the table, in pages of the caller's.

mod pieces;

use address::{Gpa, Hpa, Iova};
use amdv1::walk::WalkError;
use amdv1::{
    Attributes, MapError, OutOfTables, PageTables, Root, Run, Table, TableAddress, TablePage,
};
use thiserror::Error;

pub use pieces::{Piece, Pieces};

const PAGE: u64 = amdv1::memory::TABLE_BYTES;

/// A table that cannot be made, or not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TableError {
    /// A piece is empty, or not made of pages.
    #[error("{len:#x} bytes of guest memory at GPA {gpa}, HPA {hpa}, are not whole pages of 4 KiB")]
    Pages {
        /// First guest-physical address.
        gpa: Gpa,
        /// Where that is.
        hpa: Hpa,
        /// Bytes.
        len: u64,
    },
    /// An end of a piece is not an address that a table entry can hold.
    #[error("{len:#x} bytes of guest memory at GPA {gpa}, HPA {hpa}, end above address 2^52")]
    Range {
        /// First guest-physical address.
        gpa: Gpa,
        /// Where that is.
        hpa: Hpa,
        /// Bytes.
        len: u64,
    },
    /// Two pieces share guest-physical addresses.
    #[error("two regions of guest memory overlap at GPA {gpa}")]
    Overlap {
        /// First address shared.
        gpa: Gpa,
    },
    /// The pages cannot have these addresses.
    #[error("The table of guest memory, {pages} pages, cannot be placed at GPA {base}")]
    Place {
        /// Address of the first page.
        base: Gpa,
        /// How many there are.
        pages: usize,
    },
    /// No page for the top of the tree.
    #[error("Cannot build the table of guest memory")]
    Tables(#[from] OutOfTables),
    /// A piece of memory does not fit the table.
    #[error("Cannot build the table of guest memory")]
    Map(#[from] MapError),
    /// The table does not hold what was entered.
    #[error("Cannot build the table of guest memory")]
    Walk(#[from] WalkError),
}

/// An AMDv1 table from guest-physical to host-physical addresses, in pages `P`.
///
/// Each leaf grants reading and writing and is marked force-coherent, as those that Linux keeps
/// for a noiommu device. The table does not change; others may read its pages, and must not be able
/// to write them.
#[derive(Debug)]
pub struct GuestTable<P> {
    table: Table<PageTables<P>>,
    base: Gpa,
}

impl<P: AsRef<[TablePage]>> GuestTable<P> {
    /// Fills `pages`, all of them empty, with the table of `pieces`. They are at least as many as
    /// [`table_pages`](Pieces::table_pages). The table's pointers are addresses from `base` on:
    /// where a guest has the pages, if it sees them.
    ///
    /// # Errors
    ///
    /// [`TableError`]
    pub fn build(pieces: &Pieces, base: Gpa, pages: P) -> Result<Self, TableError> {
        let count = pages.as_ref().len();
        let place = TableError::Place { base, pages: count };
        let address = TableAddress::new(base.0).ok_or(place)?;
        let mut table = Table::new(PageTables::new(address, pages).ok_or(place)?)?;
        for piece in pieces.as_slice() {
            table.map(Iova(piece.gpa.0), piece.hpa, piece.len, Attributes::all())?;
        }
        Ok(Self { table, base })
    }

    /// Where `gpa` lies and how many of the `len` bytes from there on are contiguous in the host
    /// and the guest's, however many leaves they are in; `None` if `gpa` is not the guest's memory
    /// or `len` is 0.
    #[must_use]
    #[inline]
    pub fn translate(&self, gpa: Gpa, len: u64) -> Option<Run> {
        self.table.run(Iova(gpa.0), len)
    }

    /// Where the page of 4 KiB at `gpa`, a multiple of that, lies: no leaf is smaller. `None` if it is not the guest's
    /// memory.
    #[must_use]
    #[inline]
    pub fn page(&self, gpa: Gpa) -> Option<Hpa> {
        self.table.translate(Iova(gpa.0))
    }

    /// All memory, ascending, in the longest pieces there are.
    ///
    /// # Errors
    ///
    /// The iterator yields [`TableError::Walk`] only if the pages were written by others.
    pub fn pieces(&self) -> impl Iterator<Item = Result<Piece, TableError>> {
        self.table.extents().map(|found| {
            let (iova, run) = found?;
            Ok(Piece {
                gpa: Gpa(iova.0),
                hpa: run.hpa,
                len: run.len,
            })
        })
    }

    /// Whether any of the `len` bytes at `gpa` are memory. A range past the end of 64 bits ends
    /// there.
    #[must_use]
    pub fn touches(&self, gpa: Gpa, len: u64) -> bool {
        let last = |len: u64| Iova(gpa.0.saturating_add(len - 1));
        len > 0 && self.table.leaves(Iova(gpa.0), last(len)).next().is_some()
    }

    /// Address of the first page.
    #[must_use]
    pub fn base(&self) -> Gpa {
        self.base
    }

    /// Where a walk begins.
    #[must_use]
    pub fn root(&self) -> Root {
        self.table.root()
    }

    /// The pages, from [`base`](Self::base) on.
    #[must_use]
    pub fn pages(&self) -> &P {
        self.table.memory().pages()
    }

    /// Bytes of the pages.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.pages().as_ref().len() as u64 * PAGE
    }

    /// Bytes of a BAR that shows the pages: a power of two.
    #[must_use]
    pub fn bar_size(&self) -> u64 {
        bar_size(self.pages().as_ref().len())
    }
}

/// Bytes of a BAR that shows this number of pages: a power of two.
#[must_use]
pub fn bar_size(pages: usize) -> u64 {
    (pages as u64).max(1).next_power_of_two() * PAGE
}
