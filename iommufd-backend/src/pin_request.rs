// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What is asked of those who pin memory.

use std::fs::File;
use std::os::fd::AsFd;

use address::{Hpa, Iova};

use crate::error::Error;
use crate::extent::Extent;
use crate::file_range::FileRange;

/// Memory to pin, and where.
#[derive(Clone, Copy, Debug)]
pub struct PinRequest<'a> {
    /// The memory: a memfd or another file of shared memory.
    pub file: &'a File,
    /// First byte of it in `file`, a multiple of `page_size`.
    pub offset: u64,
    /// Bytes, a multiple of `page_size`, not 0.
    pub len: u64,
    /// Bytes that the backing guarantees to be contiguous and aligned in physical memory: the
    /// size of its hugepages, or 4096 where nothing is guaranteed (4 KiB pages, transparent
    /// hugepages).
    pub page_size: u64,
    /// The cookie: the address of the range in the I/O address space. A multiple of
    /// `page_size`, so that the table can use entries of that size.
    pub iova: Iova,
}

impl<'a> PinRequest<'a> {
    /// The part of the file.
    pub(crate) fn part(&self) -> FileRange<'a> {
        FileRange {
            file: self.file.as_fd(),
            offset: self.offset,
            len: self.len,
        }
    }

    /// The page at `iova`, which the kernel reports at `hpa`.
    ///
    /// # Errors
    /// [`Error::Misaligned`], [`Error::Extent`]
    pub(crate) fn page(&self, iova: Iova, hpa: Hpa) -> Result<Extent, Error> {
        let page_size = self.page_size;
        match hpa.is_aligned(page_size) {
            true => Ok(Extent::new(iova, hpa, page_size)?),
            false => Err(Error::Misaligned {
                iova,
                hpa,
                page_size,
            }),
        }
    }
}
