// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which address a device must be given to reach a piece of the guest's memory.
//!
//! A driver that moves `len` bytes at `gpa` calls [`DmaMap::address`], gives the device the answer
//! for as many bytes as it covers, and asks again for the rest. That is all there is to DMA without
//! an IOMMU from the guest's side; how the answer is found depends on how the monitor laid the
//! guest out.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Debug;
use core::ops::Range;

use address::{Gpa, Iova};
use dma_window::{Bars, DmaWindow, TranslateError};
use stress_format::Mode;

const PAGE: u64 = 4096;

/// Bytes that a device finds one behind the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The address for the device.
    pub start: Iova,
    /// How many of the bytes asked for follow from there; at least 1.
    pub len: u64,
}

/// The way from guest-physical addresses to those of devices.
#[derive(Clone, Debug, Default)]
pub enum DmaMap {
    /// RAM above 1 MiB is at guest-physical addresses that are the host-physical ones, and so do
    /// BARs. A device needs nothing else, and contiguous is contiguous.
    #[default]
    Identity,
    /// RAM is at other addresses in the host, in pieces, and a table that the guest can read has
    /// them. The pieces' ends are invisible to the guest otherwise.
    Translate(Arc<dyn Translate>),
    /// The monitor finds the addresses when they are written to the device's registers. It cannot
    /// join what is apart, and the guest cannot see where that is: only the bytes of a page are
    /// sure to follow one another.
    Mediate,
}

impl DmaMap {
    /// What the way is called.
    #[must_use]
    pub fn mode(&self) -> Mode {
        match self {
            Self::Identity => Mode::Identity,
            Self::Translate(_) => Mode::Translate,
            Self::Mediate => Mode::Mediate,
        }
    }

    /// The address under which a device finds the `len` bytes at `gpa`, of which it may find only
    /// the first ones there.
    ///
    /// # Errors
    /// [`TranslateError`] if a device cannot be pointed there.
    pub fn address(&self, gpa: Gpa, len: u64) -> Result<Run, TranslateError> {
        match self {
            Self::Identity => Ok(Run {
                start: Iova(gpa.0),
                len,
            }),
            Self::Translate(table) => {
                let run = table.translate(gpa, len)?;
                Ok(Run {
                    start: Iova(run.hpa.0),
                    len: run.len,
                })
            }
            Self::Mediate => Ok(Run {
                start: Iova(gpa.0),
                len: len.min(PAGE - gpa.0 % PAGE),
            }),
        }
    }

    /// Places inside `extents` where a byte does not follow the one before it in the host, sorted;
    /// `most` of them by chance if there are more. `None` if there are none by design, or they
    /// cannot be known.
    #[must_use]
    pub fn seams(
        &self,
        extents: &[Range<Gpa>],
        most: usize,
        random: &mut fastrand::Rng,
    ) -> Option<Vec<Gpa>> {
        let Self::Translate(table) = self else {
            return None;
        };
        let (mut seams, mut found) = (Vec::new(), 0);
        for extent in extents {
            let mut gpa = extent.start;
            while let Ok(run) = table.translate(gpa, extent.end - gpa) {
                gpa = gpa + run.len;
                if gpa >= extent.end {
                    break;
                }
                found += 1;
                // Each one found so far is kept with the same probability.
                if seams.len() < most {
                    seams.push(gpa);
                } else if let Some(place) = seams.get_mut(random.usize(..found)) {
                    *place = gpa;
                }
            }
        }
        seams.sort_unstable();
        Some(seams)
    }
}

/// A table of host-physical addresses.
pub trait Translate: Debug + Send + Sync {
    /// Where a device finds the byte at `gpa`, and how many of the `len` bytes from there on
    /// follow it.
    ///
    /// # Errors
    /// [`TranslateError`] if a device cannot be pointed there.
    fn translate(&self, gpa: Gpa, len: u64) -> Result<dma_window::Run, TranslateError>;
}

impl<B: Bars + Debug + Send + Sync> Translate for DmaWindow<B> {
    fn translate(&self, gpa: Gpa, len: u64) -> Result<dma_window::Run, TranslateError> {
        self.translate(gpa, len)
    }
}

#[cfg(test)]
mod tests {
    use address::Hpa;

    use super::*;

    /// Pages in descending order, but for those below 16 KiB, which are two and two.
    #[derive(Debug)]
    struct Descending;

    impl Translate for Descending {
        fn translate(&self, gpa: Gpa, len: u64) -> Result<dma_window::Run, TranslateError> {
            let size = if gpa.0 < 4 * PAGE { 2 * PAGE } else { PAGE };
            let inside = gpa.0 % size;
            Ok(dma_window::Run {
                hpa: Hpa((1 << 30) - (gpa.0 - inside) + inside),
                len: len.min(size - inside),
            })
        }
    }

    #[test]
    fn every_mode_has_its_addresses() {
        let of = |map: &DmaMap, gpa, len| {
            let run = map.address(Gpa(gpa), len).unwrap();
            (run.start.0, run.len)
        };
        assert_eq!(of(&DmaMap::Identity, 0x1ff0, 0x100), (0x1ff0, 0x100));
        assert_eq!(of(&DmaMap::Mediate, 0x1ff0, 0x100), (0x1ff0, 0x10));
        assert_eq!(of(&DmaMap::Mediate, 0x2000, 0x100), (0x2000, 0x100));
        let translate = DmaMap::Translate(Arc::new(Descending));
        assert_eq!(of(&translate, 0x5ff0, 0x100), (0x3fff_bff0, 0x10));
        assert_eq!(translate.mode(), Mode::Translate);
    }

    #[test]
    fn seams_are_where_runs_end() {
        let translate = DmaMap::Translate(Arc::new(Descending));
        let mut random = fastrand::Rng::with_seed(1);
        let extents = [Gpa(0x1000)..Gpa(0x7000), Gpa(0x9000)..Gpa(0xa000)];
        let seams = translate.seams(&extents, 200, &mut random).unwrap();
        assert_eq!(seams, [0x2000, 0x4000, 0x5000, 0x6000].map(Gpa));
        let some = translate.seams(&extents, 2, &mut random).unwrap();
        assert!(some.len() == 2 && some.iter().all(|seam| seams.contains(seam)));
        assert_eq!(DmaMap::Identity.seams(&extents, 9, &mut random), None);
        assert_eq!(translate.seams(&[], 9, &mut random), Some(Vec::new()));
    }
}
