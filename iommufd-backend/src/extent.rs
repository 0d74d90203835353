// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Physically contiguous runs of pinned memory.
//!
//! Pure arithmetic: pinning yields one short answer per backing page, and everything after it
//! (layout, memslots, E820, tables) works on the merged [`Extent`]s.

use address::{Hpa, Iova};

/// `len` bytes at I/O virtual address `iova` that lie in one piece at host-physical `hpa`.
///
/// Never empty, and neither end passes the end of its 64-bit space, so the ends are plain
/// numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Extent {
    iova: Iova,
    hpa: Hpa,
    len: u64,
}

/// Why three numbers are no [`Extent`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExtentError {
    /// An extent has at least one byte.
    #[error("an empty extent at IOVA {iova}, HPA {hpa}")]
    Empty {
        /// Where it would begin.
        iova: Iova,
        /// Where it would lie.
        hpa: Hpa,
    },
    /// The IOVA or the HPA of its end does not fit 64 bits.
    #[error("an extent of {len:#x} bytes at IOVA {iova}, HPA {hpa} exceeds 64 bits")]
    Wraps {
        /// Where it would begin.
        iova: Iova,
        /// Where it would lie.
        hpa: Hpa,
        /// Its length in bytes.
        len: u64,
    },
}

#[expect(
    clippy::len_without_is_empty,
    reason = "the constructor refuses an empty extent"
)]
impl Extent {
    /// The extent of `len` bytes at `iova` that lies at `hpa`.
    ///
    /// # Errors
    ///
    /// [`ExtentError::Empty`] if `len` is 0, [`ExtentError::Wraps`] if an end does not fit 64
    /// bits.
    pub const fn new(iova: Iova, hpa: Hpa, len: u64) -> Result<Self, ExtentError> {
        if len == 0 {
            return Err(ExtentError::Empty { iova, hpa });
        }
        if iova.checked_add(len).is_none() || hpa.checked_add(len).is_none() {
            return Err(ExtentError::Wraps { iova, hpa, len });
        }
        Ok(Self { iova, hpa, len })
    }

    /// First I/O virtual address.
    #[must_use]
    pub const fn iova(&self) -> Iova {
        self.iova
    }

    /// First host-physical address.
    #[must_use]
    pub const fn hpa(&self) -> Hpa {
        self.hpa
    }

    /// Length in bytes, at least 1.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// I/O virtual address of the first byte after it.
    #[must_use]
    pub const fn iova_end(&self) -> Iova {
        Iova(self.iova.0 + self.len)
    }

    /// Host-physical address of the first byte after it.
    #[must_use]
    pub const fn hpa_end(&self) -> Hpa {
        Hpa(self.hpa.0 + self.len)
    }

    /// Host-physical address of `iova`, or `None` if it lies outside.
    #[must_use]
    pub const fn hpa_of(&self, iova: Iova) -> Option<Hpa> {
        let offset = iova.0.wrapping_sub(self.iova.0);
        if offset < self.len {
            Some(Hpa(self.hpa.0 + offset))
        } else {
            None
        }
    }

    /// Both as one extent, if `next` continues `self` in IOVA and in HPA.
    #[must_use]
    pub fn join(&self, next: &Self) -> Option<Self> {
        (self.iova_end() == next.iova && self.hpa_end() == next.hpa).then_some(Self {
            len: self.len + next.len,
            ..*self
        })
    }

    /// The first `bytes` and the rest, or `None` unless both have at least one byte.
    #[must_use]
    pub fn split(&self, bytes: u64) -> Option<(Self, Self)> {
        if bytes == 0 || bytes >= self.len {
            return None;
        }
        let head = Self {
            len: bytes,
            ..*self
        };
        let tail = Self {
            iova: self.iova + bytes,
            hpa: self.hpa + bytes,
            len: self.len - bytes,
        };
        Some((head, tail))
    }
}

/// Joins each extent with the one before it where it continues that one.
///
/// The order is kept: extents given in IOVA order come out in IOVA order and maximal.
#[must_use]
pub fn merge(extents: impl IntoIterator<Item = Extent>) -> Vec<Extent> {
    let mut merged: Vec<Extent> = Vec::new();
    for extent in extents {
        match merged.last_mut() {
            Some(last) => match last.join(&extent) {
                Some(joined) => *last = joined,
                None => merged.push(extent),
            },
            None => merged.push(extent),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAGE: u64 = 4096;

    fn extent(iova: u64, hpa: u64, len: u64) -> Extent {
        Extent::new(Iova(iova), Hpa(hpa), len).unwrap()
    }

    #[test]
    fn refuses_what_is_no_extent() {
        assert!(matches!(
            Extent::new(Iova(0), Hpa(0), 0),
            Err(ExtentError::Empty { .. })
        ));
        assert!(matches!(
            Extent::new(Iova(u64::MAX), Hpa(0), 1),
            Err(ExtentError::Wraps { .. })
        ));
        assert!(matches!(
            Extent::new(Iova(0), Hpa(u64::MAX - 9), 10),
            Err(ExtentError::Wraps { .. })
        ));
        assert!(Extent::new(Iova(0), Hpa(u64::MAX - 10), 10).is_ok());
    }

    #[test]
    fn only_a_neighbour_on_both_sides_joins() {
        let first = extent(0, 0x10_0000, PAGE);
        assert!(first.join(&extent(PAGE, 0x10_1000, PAGE)).is_some());
        assert!(first.join(&extent(PAGE, 0x10_2000, PAGE)).is_none());
        assert!(first.join(&extent(2 * PAGE, 0x10_1000, PAGE)).is_none());
        assert!(extent(PAGE, 0x10_1000, PAGE).join(&first).is_none());
    }

    #[test]
    fn addresses_outside_have_no_translation() {
        let e = extent(0x1000, 0x8000, 0x2000);
        assert_eq!(e.hpa_of(Iova(0xfff)), None);
        assert_eq!(e.hpa_of(Iova(0x1000)), Some(Hpa(0x8000)));
        assert_eq!(e.hpa_of(Iova(0x2fff)), Some(Hpa(0x9fff)));
        assert_eq!(e.hpa_of(Iova(0x3000)), None);
    }

    proptest! {
        #[test]
        fn split_and_join_are_inverse(
            iova in 0..u64::MAX / 2, hpa in 0..u64::MAX / 2, len in 2..u64::MAX / 4, at: u64,
        ) {
            let whole = extent(iova, hpa, len);
            let (head, tail) = whole.split(1 + at % (len - 1)).unwrap();
            prop_assert_eq!(head.join(&tail), Some(whole));
            prop_assert_eq!(whole.hpa_of(tail.iova()), Some(tail.hpa()));
            prop_assert_eq!(head.hpa_of(tail.iova()), None);
            prop_assert!(whole.split(0).is_none() && whole.split(len).is_none());
        }

        /// Pages in IOVA order, each placed at one of few frames so that neighbours are common.
        #[test]
        fn merging_keeps_every_page_and_leaves_no_neighbours(
            pages in prop::collection::vec((any::<bool>(), 0..8_u64), 0..64),
        ) {
            let pages: Vec<_> = (0..)
                .zip(&pages)
                .filter(|(_, (present, _))| *present)
                .map(|(i, (_, shift))| extent(i * PAGE, (i + shift / 6) * PAGE, PAGE))
                .collect();
            let merged = merge(pages.iter().copied());
            prop_assert_eq!(
                merged.iter().map(Extent::len).sum::<u64>(),
                pages.len() as u64 * PAGE
            );
            for page in &pages {
                let found: Vec<_> = merged.iter().filter_map(|e| e.hpa_of(page.iova())).collect();
                prop_assert_eq!(found, vec![page.hpa()]);
            }
            for pair in merged.windows(2) {
                prop_assert!(pair[0].iova_end() <= pair[1].iova());
                prop_assert!(pair[0].join(&pair[1]).is_none());
            }
        }
    }
}
