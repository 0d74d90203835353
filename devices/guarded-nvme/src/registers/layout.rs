// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Where things are in the guest's BAR0.

use std::ops::Range;

use thiserror::Error;

use crate::guest::{Doorbell, Side};
use crate::queue_set::MAX_QUEUES;
use crate::spec::registers::DOORBELLS;

const MSIX_ENTRY: u64 = 16;
/// Most vectors of MSI-X.
const MAX_VECTORS: u16 = 2048;

/// A BAR that cannot be laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LayoutError {
    /// A doorbell has to have a page of the host's to itself.
    #[error("the host's page size is {0:#x}; 4 KiB, 16 KiB or 64 KiB is needed")]
    PageSize(u64),
    /// There is no such number of queues.
    #[error("{0} I/O queues; at least 1 and at most {MAX_QUEUES} are possible")]
    Queues(u16),
    /// There is no such number of vectors.
    #[error("{0} interrupt vectors; at least 1 and at most {MAX_VECTORS} are possible")]
    Vectors(u16),
}

/// The layout of BAR0.
///
/// ```text
/// 0       registers
/// 1000h   doorbells, each one page of the host's behind the one before
///         MSI-X table, on a page of its own
///         pending bits, on a page of their own
/// ```
///
/// With pages of 16 or 64 KiB the registers share their page with the admin submission doorbell, which always traps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    page: u64,
    queues: u16,
    vectors: u16,
}

impl Layout {
    /// A BAR for these numbers of I/O queue pairs and interrupt vectors, on a host with pages of `page` bytes.
    ///
    /// # Errors
    ///
    /// [`LayoutError`]
    pub fn new(page: u64, queues: u16, vectors: u16) -> Result<Self, LayoutError> {
        if ![0x1000, 0x4000, 0x1_0000].contains(&page) {
            return Err(LayoutError::PageSize(page));
        }
        if !(1..=MAX_QUEUES).contains(&queues) {
            return Err(LayoutError::Queues(queues));
        }
        if !(1..=MAX_VECTORS).contains(&vectors) {
            return Err(LayoutError::Vectors(vectors));
        }
        Ok(Self {
            page,
            queues,
            vectors,
        })
    }

    /// CAP.DSTRD: 10, 12 or 14.
    #[must_use]
    pub fn stride(&self) -> u8 {
        // 4 << DSTRD is a page.
        u8::try_from(self.page.trailing_zeros()).map_or(0, |shift| shift - 2)
    }

    /// I/O queue pairs.
    #[must_use]
    pub fn queues(&self) -> u16 {
        self.queues
    }

    /// Interrupt vectors.
    #[must_use]
    pub fn vectors(&self) -> u16 {
        self.vectors
    }

    /// Where a doorbell is. Its page of the host's, which begins at this offset rounded down to one, holds no other, and
    /// nothing else but for that of the admin submission queue.
    #[must_use]
    pub fn doorbell(&self, doorbell: Doorbell) -> u64 {
        u64::from(DOORBELLS) + u64::from(doorbell.index()) * self.page
    }

    /// The doorbell at an offset, if there is one.
    #[must_use]
    pub fn doorbell_at(&self, offset: u64) -> Option<Doorbell> {
        let from_first = offset.checked_sub(DOORBELLS.into())?;
        if from_first % self.page != 0 {
            return None;
        }
        let index = from_first / self.page;
        let queue = u16::try_from(index / 2).ok()?;
        let side = match index % 2 {
            0 => Side::Submission,
            _ => Side::Completion,
        };
        (queue <= self.queues).then_some(Doorbell { queue, side })
    }

    /// The MSI-X table.
    #[must_use]
    pub fn msix_table(&self) -> Range<u64> {
        let end = self.doorbell(Doorbell::head(self.queues)) + self.page;
        let start = end.next_multiple_of(self.page);
        start..start + u64::from(self.vectors) * MSIX_ENTRY
    }

    /// MSI-X's pending bits.
    #[must_use]
    pub fn pending_bits(&self) -> Range<u64> {
        let start = self.msix_table().end.next_multiple_of(self.page);
        start..start + u64::from(self.vectors).div_ceil(64) * 8
    }

    /// Bytes of the BAR: a power of two.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.pending_bits().end.next_power_of_two()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_doorbell_has_a_page_of_the_hosts() {
        for (page, stride) in [(0x1000, 10), (0x4000, 12), (0x1_0000, 14)] {
            let layout = Layout::new(page, 3, 5).unwrap();
            assert_eq!(layout.stride(), stride);
            let mut pages = std::collections::BTreeSet::new();
            for queue in 0..=3 {
                for doorbell in [Doorbell::tail(queue), Doorbell::head(queue)] {
                    let offset = layout.doorbell(doorbell);
                    assert_eq!(layout.doorbell_at(offset), Some(doorbell));
                    assert!(pages.insert(offset / page), "{doorbell:?}");
                }
            }
            let of_registers = pages.remove(&0);
            assert_eq!(of_registers, page > 0x1000, "the admin submission doorbell");
            for structure in [layout.msix_table(), layout.pending_bits()] {
                assert!(pages.insert(structure.start / page));
                assert!(structure.end <= layout.size());
            }
            assert!(layout.size().is_power_of_two());
        }
    }

    #[test]
    fn nothing_else_is_a_doorbell() {
        let layout = Layout::new(0x1000, 3, 5).unwrap();
        for offset in [0, 0xffc, 0x1004, 0x1fff, 0x9000, u64::MAX, u64::MAX - 0xfff] {
            assert_eq!(layout.doorbell_at(offset), None, "{offset:#x}");
        }
        assert_eq!(layout.doorbell_at(0x8000), Some(Doorbell::head(3)));
    }

    #[test]
    fn impossible_bars_are_refused() {
        assert_eq!(
            Layout::new(0x2000, 1, 1),
            Err(LayoutError::PageSize(0x2000))
        );
        assert_eq!(Layout::new(0x1000, 0, 1), Err(LayoutError::Queues(0)));
        assert_eq!(Layout::new(0x1000, 128, 1), Err(LayoutError::Queues(128)));
        assert_eq!(Layout::new(0x1000, 1, 0), Err(LayoutError::Vectors(0)));
        assert_eq!(
            Layout::new(0x1000, 1, 2049),
            Err(LayoutError::Vectors(2049))
        );
        let largest = Layout::new(0x1_0000, 127, 2048).unwrap();
        assert_eq!(largest.size(), 32 << 20);
    }
}
