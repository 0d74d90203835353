//! One interface over the two places that physical addresses come from: the kernel
//! (`IOMMU_IOAS_NOIOMMU_GET_PA`) and the software backend.

use std::fs::File;

use address::{Hpa, Iova};

use crate::extent::Extent;

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
    /// The cookie: where the range stands in the backend's address space. A multiple of
    /// `page_size`, so that the table can use entries of that size.
    pub iova: Iova,
}

/// A physically contiguous answer: `len` bytes from `hpa` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Run {
    /// Address of the very byte that was asked for.
    pub hpa: Hpa,
    /// Contiguous bytes from there, at least 1, at most what was asked for.
    pub len: u64,
}

/// Why an address has no translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TranslateError {
    /// Nothing is pinned there.
    #[error("IOVA {iova} is not pinned")]
    NotPinned {
        /// The address asked for.
        iova: Iova,
    },
    /// No bytes were asked for.
    #[error("Translation of no bytes at IOVA {iova}")]
    NoBytes {
        /// The address asked for.
        iova: Iova,
    },
}

/// Pins memory and knows its physical addresses.
///
/// Once [`pin`](Self::pin) has returned, the pages do not move until
/// [`unpin`](Self::unpin), and neither [`extents`](Self::extents) nor
/// [`translate`](Self::translate) makes a system call: both read a [`PinnedMap`].
pub trait DmaBackend {
    /// Why pinning or unpinning failed.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Pins a range of a file and returns its extents in IOVA order, merged.
    ///
    /// # Errors
    ///
    /// The backend's own; nothing is pinned then.
    fn pin(&mut self, request: &PinRequest<'_>) -> Result<Vec<Extent>, Self::Error>;

    /// Ends the pin that was made at `iova` with `len` bytes.
    ///
    /// No device may still master the bus: its DMA would land in memory that belongs to others.
    ///
    /// # Errors
    ///
    /// The backend's own, in particular if no pin covers exactly this range; the map is as
    /// before then.
    fn unpin(&mut self, iova: Iova, len: u64) -> Result<(), Self::Error>;

    /// Everything pinned, with its physical addresses.
    fn pinned(&self) -> &PinnedMap;

    /// The extents of everything pinned, in IOVA order; merged within each pin.
    fn extents(&self) -> &[Extent] {
        self.pinned().extents()
    }

    /// Physical address of `iova` and how many of the `len` bytes from there are contiguous.
    ///
    /// A run may go on from one pin into the next if that lies behind it in both spaces.
    ///
    /// # Errors
    ///
    /// [`TranslateError`] if `iova` is not pinned or `len` is 0.
    fn translate(&self, iova: Iova, len: u64) -> Result<Run, TranslateError> {
        self.pinned().translate(iova, len)
    }
}

/// What is pinned where: kept by every backend, asked without system calls.
#[derive(Debug, Default)]
pub struct PinnedMap {
    extents: Vec<Extent>,
}

/// Why a [`PinnedMap`] refused a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PinnedMapError {
    /// Part of the range is pinned already.
    #[error("IOVA {iova}, {len:#x} bytes: already pinned in part")]
    Overlap {
        /// First address of the extent refused.
        iova: Iova,
        /// Its length in bytes.
        len: u64,
    },
}

impl PinnedMap {
    /// A map with nothing pinned.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Enters the extents of one pin, all or none.
    ///
    /// # Errors
    ///
    /// [`PinnedMapError`]; the map is as before then.
    pub fn insert(&mut self, extents: &[Extent]) -> Result<(), PinnedMapError> {
        let mut all = self.extents.clone();
        all.extend_from_slice(extents);
        all.sort_unstable_by_key(Extent::iova);
        if let Some(pair) = all.windows(2).find(|p| p[0].iova_end() > p[1].iova()) {
            return Err(PinnedMapError::Overlap {
                iova: pair[1].iova(),
                len: pair[1].len(),
            });
        }
        self.extents = all;
        Ok(())
    }

    /// Forgets `len` bytes from `iova` on; an extent that reaches over an end keeps its rest.
    ///
    /// # Errors
    ///
    /// [`PinnedMapError`]; the map is as before then.
    pub fn remove(&mut self, iova: Iova, len: u64) -> Result<(), PinnedMapError> {
        let mut kept = Vec::with_capacity(self.extents.len() + 1);
        for extent in &self.extents {
            kept.extend(outside(*extent, iova, len).into_iter().flatten());
        }
        self.extents = kept;
        Ok(())
    }

    /// All extents in IOVA order.
    #[must_use]
    pub fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// See [`DmaBackend::translate`].
    ///
    /// # Errors
    ///
    /// See [`DmaBackend::translate`].
    pub fn translate(&self, iova: Iova, len: u64) -> Result<Run, TranslateError> {
        if len == 0 {
            return Err(TranslateError::NoBytes { iova });
        }
        let first = self.extents.partition_point(|e| e.iova_end() <= iova);
        let mut run: Option<Run> = None;
        for extent in &self.extents[first..] {
            let (at, have) = run.map_or((iova, 0), |r| (iova + r.len, r.len));
            match (extent.hpa_of(at), run) {
                (Some(hpa), None) => {
                    let len = len.min(extent.iova_end() - at);
                    run = Some(Run { hpa, len });
                }
                (Some(hpa), Some(r)) if hpa == r.hpa + r.len && have < len => {
                    let len = len.min(have + extent.len());
                    run = Some(Run { len, ..r });
                }
                _ => break,
            }
        }
        run.ok_or(TranslateError::NotPinned { iova })
    }
}

/// The parts of `extent` before and after `len` bytes from `iova` on.
fn outside(extent: Extent, iova: Iova, len: u64) -> [Option<Extent>; 2] {
    let end = Iova(iova.0.saturating_add(len));
    if extent.iova_end() <= iova || extent.iova() >= end {
        return [Some(extent), None];
    }
    let head = extent
        .split(iova.0.saturating_sub(extent.iova().0))
        .map(|(head, _)| head);
    let tail = extent
        .split(end.0.saturating_sub(extent.iova().0))
        .map(|(_, tail)| tail);
    [head, tail]
}
