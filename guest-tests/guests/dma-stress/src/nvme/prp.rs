// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Where a command's data is: Physical Region Pages (Base 1.4 §4.3, 2.0 §4.1.1).

use super::access::{DmaBuffer, PAGE_BYTES};

const PAGE: u64 = PAGE_BYTES as u64;

/// Entries in a page of a PRP list.
const LIST_ENTRIES: usize = PAGE_BYTES / 8;

/// The data pointer of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prp {
    prp1: u64,
    prp2: u64,
    bytes: u64,
}

impl Prp {
    /// That of a command without data.
    pub const NONE: Self = Self {
        prp1: 0,
        prp2: 0,
        bytes: 0,
    };

    /// PRP entry 1: the address of the first byte.
    #[must_use]
    pub const fn prp1(&self) -> u64 {
        self.prp1
    }

    /// PRP entry 2: 0, the second page, or the first entry of the list.
    #[must_use]
    pub const fn prp2(&self) -> u64 {
        self.prp2
    }

    /// How many bytes it describes.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// That of one page from its start on.
    pub(super) const fn page(address: u64) -> Self {
        Self {
            prp1: address,
            prp2: 0,
            bytes: PAGE,
        }
    }
}

/// How a data pointer is written. The number of pages decides it, not the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// PRP entry 1 alone.
    OnePage,
    /// Both PRP entries are data.
    TwoPages,
    /// PRP entry 2 is the address of a list in one page.
    List,
    /// The list continues in further pages: the last entry of each but the last page is the address
    /// of the next.
    Chain {
        /// Pages of the list, at least 2.
        pages: usize,
    },
}

/// Memory for a PRP list: the list starts at an entry of a page and continues from the start of the
/// pages that follow it in the buffer.
#[derive(Debug)]
pub struct PrpList<'a, B> {
    /// The memory. It is the list's until the command has completed.
    pub buffer: &'a B,
    /// The page that the list starts in.
    pub first_page: usize,
    /// The entry of that page that it starts with, 0 to 511. 511 leaves room for nothing but
    /// the address of the second page (or a list of one).
    pub first_entry: usize,
}

impl<B> Clone for PrpList<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B> Copy for PrpList<'_, B> {}

/// Why a data pointer was not built. No list entry was written then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrpError {
    /// No data.
    #[error("A transfer of no bytes")]
    Empty,
    /// The offset is not that of a dword in the first page.
    #[error("The offset {offset} is not a multiple of 4 below 4096")]
    Offset {
        /// The offset in the first page.
        offset: u64,
    },
    /// The data needs more pages than were given.
    #[error("{offset} + {bytes} bytes do not fit into {pages} pages")]
    TooFewPages {
        /// The offset in the first page.
        offset: u64,
        /// Bytes of data.
        bytes: u64,
        /// The pages given.
        pages: usize,
    },
    /// An address that is not that of a page.
    #[error("{address:#x} is not the address of a page")]
    NotAPage {
        /// The address.
        address: u64,
    },
    /// The first entry lies outside its page.
    #[error("A list page has entries 0 to 511, not {entry}")]
    FirstEntry {
        /// The entry that the list was to start with.
        entry: usize,
    },
    /// The list needs more pages than there are.
    #[error("The list needs {need} pages from page {first} of {pages}")]
    ListTooShort {
        /// Pages that the list needs.
        need: usize,
        /// The page it starts in.
        first: usize,
        /// Pages of the list's memory.
        pages: usize,
    },
}

/// Describes a transfer to or from pages that need not follow one another.
#[derive(Clone, Copy, Debug)]
pub struct PrpBuilder<'a> {
    /// The pages in use, at least one.
    pages: &'a [u64],
    offset: u64,
    bytes: u64,
}

impl<'a> PrpBuilder<'a> {
    /// `bytes` bytes that begin `first_offset` into `pages[0]`, whose addresses are those that
    /// the device uses. Pages beyond the last byte are ignored.
    ///
    /// # Errors
    /// [`PrpError::Empty`], [`PrpError::Offset`], [`PrpError::TooFewPages`], and
    /// [`PrpError::NotAPage`] for an address that is not a multiple of 4096.
    pub fn new(pages: &'a [u64], first_offset: u64, bytes: u64) -> Result<Self, PrpError> {
        if bytes == 0 {
            return Err(PrpError::Empty);
        }
        // PRP entries are dword-aligned: bits 1:0 are 0 (Base 1.4 §4.3, figure 108).
        if first_offset >= PAGE || !first_offset.is_multiple_of(4) {
            return Err(PrpError::Offset {
                offset: first_offset,
            });
        }
        let used = first_offset
            .checked_add(bytes)
            .and_then(|end| usize::try_from(end.div_ceil(PAGE)).ok())
            .and_then(|used| pages.get(..used))
            .ok_or(PrpError::TooFewPages {
                offset: first_offset,
                bytes,
                pages: pages.len(),
            })?;
        if let Some(&address) = used.iter().find(|page| !page.is_multiple_of(PAGE)) {
            return Err(PrpError::NotAPage { address });
        }
        Ok(Self {
            pages: used,
            offset: first_offset,
            bytes,
        })
    }

    /// What it will look like with a list that starts at entry `first_entry` of its page.
    #[must_use]
    pub const fn shape(&self, first_entry: usize) -> Shape {
        match (self.pages.len(), self.list_pages(first_entry)) {
            (0 | 1, _) => Shape::OnePage,
            (2, _) => Shape::TwoPages,
            (_, 0 | 1) => Shape::List,
            (_, pages) => Shape::Chain { pages },
        }
    }

    /// How many list pages it needs if the list starts at entry `first_entry` (0 to 511) of
    /// the first of them; 0 if it needs no list.
    #[must_use]
    pub const fn list_pages(&self, first_entry: usize) -> usize {
        let room = LIST_ENTRIES.saturating_sub(first_entry);
        match self.pages.len().saturating_sub(1) {
            0 | 1 => 0,
            entries if entries <= room => 1,
            // Every page but the last gives its last entry to the address of the next one.
            entries => 1 + (entries - room).div_ceil(LIST_ENTRIES - 1),
        }
    }

    /// Writes the list, where one is needed, and gives the data pointer.
    ///
    /// # Errors
    /// [`PrpError::FirstEntry`], [`PrpError::ListTooShort`], and [`PrpError::NotAPage`] for a
    /// list page, all of them only where a list is needed.
    pub fn build<B: DmaBuffer>(&self, list: &PrpList<'_, B>) -> Result<Prp, PrpError> {
        let (prp1, prp2) = match *self.pages {
            [] => (0, 0),
            [page] => (page, 0),
            [page, second] => (page, second),
            [page, ref rest @ ..] => (page, self.write_list(rest, list)?),
        };
        Ok(Prp {
            prp1: prp1 | self.offset,
            prp2,
            bytes: self.bytes,
        })
    }

    /// Writes `rest` as a list and gives the address of its first entry.
    fn write_list<B: DmaBuffer>(
        &self,
        mut rest: &[u64],
        list: &PrpList<'_, B>,
    ) -> Result<u64, PrpError> {
        if list.first_entry >= LIST_ENTRIES {
            return Err(PrpError::FirstEntry {
                entry: list.first_entry,
            });
        }
        let need = self.list_pages(list.first_entry);
        let end = list.first_page.saturating_add(need);
        let pages = list.buffer.pages();
        for page in list.first_page..end {
            match list.buffer.dma_address(page).filter(|_| page < pages) {
                Some(address) if address.is_multiple_of(PAGE) => {}
                Some(address) => return Err(PrpError::NotAPage { address }),
                None => {
                    return Err(PrpError::ListTooShort {
                        need,
                        first: list.first_page,
                        pages,
                    });
                }
            }
        }
        let mut entry = list.first_entry;
        for page in list.first_page..end {
            let mut at = page * PAGE_BYTES + entry * 8;
            let room = LIST_ENTRIES - entry;
            let (data, later) = match rest.len() <= room {
                true => (rest, &[][..]),
                false => rest.split_at(room - 1),
            };
            for &address in data {
                list.buffer.write64(at, address);
                at += 8;
            }
            if !later.is_empty()
                && let Some(next) = list.buffer.dma_address(page + 1)
            {
                list.buffer.write64(at, next);
            }
            (rest, entry) = (later, 0);
        }
        let first = list.buffer.dma_address(list.first_page).unwrap_or(0);
        Ok(first + list.first_entry as u64 * 8)
    }
}
