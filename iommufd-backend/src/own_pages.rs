// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Memory of this process's own that devices access: no guest has it.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use address::{Hpa, Iova};
use rustix::fs::{MemfdFlags, SealFlags};

use crate::backend::{DmaBackend, PinRequest};
use crate::error::Error;
use crate::file_range::FileRange;
use crate::mapping::{Mapping, pointer};

/// What the memory is called in errors and in `/proc/PID/maps`.
const NAME: &str = "device-queues";
const PAGE: u64 = 4096;
const PAGE_WORDS: usize = 512;

/// Zeroed pages of 4 KiB in a file of their own. Once they are [pinned](Self::pin) each has a physical address, by which a
/// device accesses it while this process does.
///
/// Dropping them unmaps them here. They stay pinned, and so keep their addresses, until the backend lets go of them.
#[derive(Debug)]
pub struct OwnPages {
    file: File,
    mapping: Arc<Mapping>,
    count: usize,
    hpas: Vec<Hpa>,
}

impl OwnPages {
    /// `count` pages, at least 1, which have no physical addresses yet.
    ///
    /// # Errors
    /// [`Error::Map`]
    pub fn new(count: usize) -> Result<Self, Error> {
        let len = count as u64 * PAGE;
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
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&file, seals).map_err(failed)?;
        Ok(Self {
            file,
            mapping: Arc::new(mapping),
            count,
            hpas: Vec::new(),
        })
    }

    /// Pins them at `iova`, a multiple of 4096, where nothing else is. To be called once.
    ///
    /// # Errors
    /// The backend's.
    pub fn pin<B: DmaBackend>(&mut self, backend: &mut B, iova: Iova) -> Result<(), B::Error> {
        let extents = backend.pin(&PinRequest {
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
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::software::{BusAddress, PhysicalMemory, SoftwareBackend};
    use address::BusAddr;

    #[test]
    fn a_device_finds_each_page_at_its_address() {
        let physical = PhysicalMemory::new([Hpa(4 << 30)..Hpa(5 << 30)], 8192, 1);
        let mut backend = SoftwareBackend::new(physical);
        let mut pages = OwnPages::new(5).unwrap();
        assert_eq!((pages.len(), pages.hpas().len()), (5 << 12, 0));
        pages.pin(&mut backend, Iova(1 << 30)).unwrap();
        assert_eq!(pages.hpas().len(), 5);
        let port = backend.port();
        for (number, hpa) in pages.hpas().iter().enumerate() {
            let word = &pages.words()[number * PAGE_WORDS + 3];
            assert_eq!(word.load(Ordering::Relaxed), 0);
            let bytes = (number as u64 + 7).to_le_bytes();
            let at = BusAddress::Bus(BusAddr::identity(*hpa + 24));
            port.write(at, &bytes).unwrap();
            assert_eq!(word.load(Ordering::Relaxed), number as u64 + 7);
        }
    }
}
