// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The pins of this process with their physical addresses, which `/proc/self/pagemap` shows: the part of `/dev/iommu`
//! that kernels before 7.3 lack.

use std::collections::BTreeMap;
use std::io;

use address::Iova;

use crate::error::Error;
use crate::extent::Extent;
use crate::operation::RingOperation;
use crate::pagemap::Pagemap;
use crate::pin_request::PinRequest;
use crate::ring_pins::{RingPin, RingPins};

/// Pins by their cookies.
#[derive(Debug)]
pub(crate) struct RingSpace {
    pins: RingPins,
    pagemap: Pagemap,
    made: BTreeMap<Iova, (u64, RingPin)>,
}

impl RingSpace {
    /// Nothing is pinned yet.
    ///
    /// # Errors
    /// [`Error::IoUring`]; [`Error::AddressesHidden`], [`Error::Read`]: this process cannot see where its pages are.
    pub(crate) fn new() -> Result<Self, Error> {
        Ok(Self {
            pins: RingPins::new()?,
            pagemap: Pagemap::open_shown()?,
            made: BTreeMap::new(),
        })
    }

    /// Pins a range of a file and returns its extents in IOVA order, merged. Addresses are read once the pages are
    /// pinned, when they do not change any more.
    ///
    /// # Errors
    /// [`Error::IoUring`], [`Error::Pin`], [`Error::Map`], [`Error::Read`], [`Error::AddressesHidden`],
    /// [`Error::PageAbsent`], [`Error::Misaligned`], [`Error::Extent`]; nothing is pinned then.
    pub(crate) fn pin(&mut self, request: &PinRequest<'_>) -> Result<Vec<Extent>, Error> {
        let (pin, mapping) = self.pins.pin(request.part())?;
        match self.pagemap.places(&mapping, request) {
            Ok(extents) => {
                self.made.insert(request.iova, (request.len, pin));
                Ok(extents)
            }
            Err(error) => {
                self.pins.unpin(pin)?;
                Err(error)
            }
        }
    }

    /// Ends the pins in `len` bytes from `iova` on, of which there is one at least.
    ///
    /// # Errors
    /// [`Error::IoUring`], with `ENOENT` if there is none, or the range cuts one; no pin is ended then.
    pub(crate) fn unpin(&mut self, iova: Iova, len: u64) -> Result<(), Error> {
        let end = Iova(iova.0.saturating_add(len));
        let ends_at = |(start, (len, _)): (&Iova, &(u64, RingPin))| *start + *len;
        let before = self.made.range(..iova).next_back().map(ends_at);
        let last = self.made.range(iova..end).next_back().map(ends_at);
        let is_cut = before.is_some_and(|before| before > iova);
        if is_cut || last.is_none_or(|last| last > end) {
            return Err(Error::IoUring {
                operation: RingOperation::Unpin,
                source: io::Error::from_raw_os_error(libc::ENOENT),
            });
        }
        let ended: Vec<Iova> = self
            .made
            .range(iova..end)
            .map(|(start, _)| *start)
            .collect();
        let ended = ended.iter().filter_map(|start| self.made.remove(start));
        let ended: Vec<_> = ended.collect();
        ended
            .into_iter()
            .try_for_each(|(_, pin)| self.pins.unpin(pin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pagemap::tests::file;

    const PAGE: u64 = 4096;
    const COOKIE: Iova = Iova(1 << 30);

    #[test]
    fn pins_are_made_and_ended_by_their_cookies() {
        let mut space = match RingSpace::new() {
            Ok(space) => space,
            Err(error @ Error::AddressesHidden { .. }) => {
                eprintln!("not tested, for want of CAP_SYS_ADMIN: {error}");
                return;
            }
            Err(error) => panic!("{error:?}"),
        };
        let file = file(8 * PAGE);
        let request = |page: u64, count: u64| PinRequest {
            file: &file,
            offset: page * PAGE,
            len: count * PAGE,
            page_size: PAGE,
            iova: COOKIE + page * PAGE,
        };
        let extents = space.pin(&request(0, 5)).unwrap();
        assert_eq!(extents.iter().map(Extent::len).sum::<u64>(), 5 * PAGE);
        assert_eq!(extents[0].iova(), COOKIE);
        assert!(extents.iter().all(|extent| extent.hpa().0 != 0));
        space.pin(&request(5, 3)).unwrap();
        for (page, count) in [(0, 4), (1, 7), (0, 7), (8, 1)] {
            let refused = space.unpin(COOKIE + page * PAGE, count * PAGE);
            assert!(matches!(refused, Err(Error::IoUring { .. })), "{page}");
        }
        // The same page is in the same place, pinned once more or not.
        space.unpin(COOKIE, 5 * PAGE).unwrap();
        assert!(space.unpin(COOKIE, 5 * PAGE).is_err());
        assert_eq!(space.pin(&request(0, 5)).unwrap(), extents);
        space.unpin(COOKIE, 8 * PAGE).unwrap();
        assert!(space.made.is_empty());
    }
}
