// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Memory of this process's own that devices access: no guest has it.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use address::{Hpa, Iova};
use rustix::fs::{MemfdFlags, SealFlags};

use crate::error::Error;
use crate::extent::Extent;
use crate::file_range::FileRange;
use crate::mapping::{Mapping, pointer};
use crate::page_size::host_page_size;
use crate::pin_request::PinRequest;

/// What the memory is called in errors and in `/proc/PID/maps`.
pub(crate) const NAME: &str = "device-queues";
pub(crate) const PAGE: u64 = 4096;
const PAGE_WORDS: usize = 512;

/// Zeroed pages of 4 KiB in a file of their own. Once they are [pinned](Self::pin) each has a physical address, by which a
/// device accesses it while this process does.
///
/// Dropping them unmaps them here. They stay pinned, and so keep their addresses, until the backend lets go of them.
#[derive(Debug)]
pub struct OwnPages {
    pub(crate) file: File,
    pub(crate) mapping: Arc<Mapping>,
    pub(crate) count: usize,
    pub(crate) hpas: Vec<Hpa>,
}

impl OwnPages {
    /// The file can be neither cut short nor made longer.
    pub(crate) const SEALS: SealFlags = SealFlags::SHRINK
        .union(SealFlags::GROW)
        .union(SealFlags::SEAL);

    /// `count` pages or, where the kernel's own are larger, as many more as fill the last of those; at least 1. They have no
    /// physical addresses yet.
    ///
    /// # Errors
    /// [`Error::Map`]
    pub fn new(count: usize) -> Result<Self, Error> {
        let len = (count as u64 * PAGE).next_multiple_of(host_page_size());
        let count = usize::try_from(len / PAGE).unwrap_or(usize::MAX);
        let failed = |errno: rustix::io::Errno| Error::Map {
            len,
            what: NAME,
            source: errno.into(),
        };
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = File::from(rustix::fs::memfd_create(NAME, flags).map_err(failed)?);
        rustix::fs::ftruncate(&file, len).map_err(failed)?;
        let mut mapping = Mapping::reserve(len, 0)?;
        mapping.place(0, FileRange::first(&file, len), NAME)?;
        rustix::fs::fcntl_add_seals(&file, Self::SEALS).map_err(failed)?;
        Ok(Self {
            file,
            mapping: Arc::new(mapping),
            count,
            hpas: Vec::new(),
        })
    }

    /// Pins them with `pin` at `iova`, a multiple of the page size, where nothing else is. To be called once.
    ///
    /// # Errors
    /// That of `pin`.
    pub fn pin<E>(
        &mut self,
        iova: Iova,
        pin: impl FnOnce(&PinRequest<'_>) -> Result<Vec<Extent>, E>,
    ) -> Result<(), E> {
        let extents = pin(&PinRequest {
            file: &self.file,
            offset: 0,
            len: self.len(),
            page_size: PAGE,
            iova,
        })?;
        let pages = extents.iter().flat_map(|extent| {
            let first = extent.hpa();
            (0..extent.len() / PAGE).map(move |page| first + page * PAGE)
        });
        self.hpas = pages.collect();
        Ok(())
    }

    /// The physical address of each page, in their order; none before they are pinned.
    #[must_use]
    pub fn hpas(&self) -> &[Hpa] {
        &self.hpas
    }

    /// Bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "there is at least one page")]
    pub fn len(&self) -> u64 {
        self.mapping.len()
    }

    /// The file that they are in, all of it.
    #[must_use]
    pub fn file(&self) -> FileRange<'_> {
        FileRange::first(&self.file, self.len())
    }

    /// The memory in this process. A monitor may show pages that are not pinned to a guest.
    #[must_use]
    pub fn mapping(&self) -> Arc<Mapping> {
        Arc::clone(&self.mapping)
    }

    /// The contents. A device changes them at any time.
    #[must_use]
    pub fn words(&self) -> &[AtomicU64] {
        let start = pointer(self.mapping.start()).cast();
        // Any bytes are valid atomic words, and a device that writes them is one more thread.
        // SAFETY: so many words are inside the mapping, which is readable and writable shared memory that cannot
        // be cut short (F_SEAL_SHRINK), starts on a page, and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(start, self.count * PAGE_WORDS) }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn each_page_has_its_address_and_is_memory() {
        let mut pages = OwnPages::new(5).unwrap();
        assert_eq!((pages.len(), pages.hpas().len()), (5 << 12, 0));
        let pin = |request: &PinRequest<'_>| {
            assert_eq!((request.offset, request.len), (0, 5 << 12));
            [(0, 3, 0x7000), (3, 2, 0x2000)]
                .into_iter()
                .map(|(page, count, hpa)| {
                    Extent::new(request.iova + page * PAGE, Hpa(hpa), count * PAGE)
                })
                .collect()
        };
        pages.pin(Iova(1 << 30), pin).unwrap();
        let hpas = [0x7000, 0x8000, 0x9000, 0x2000, 0x3000].map(Hpa);
        assert_eq!(pages.hpas(), hpas);
        let words = pages.words();
        words[4 * PAGE_WORDS + 3].store(7, Ordering::Relaxed);
        let mut bytes = [0; 8];
        pages.file.read_exact_at(&mut bytes, 4 * PAGE + 24).unwrap();
        assert_eq!(u64::from_le_bytes(bytes), 7);
    }
}
