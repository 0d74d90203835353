// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Memory that this process pins by io_uring, for kernels whose VFIO does not pin it.

use address::Hva;

use crate::error::Error;
use crate::file_range::FileRange;
use crate::mapping::Mapping;
use crate::operation::RingOperation;
use crate::ring::{MOST_BYTES, Ring, Slot};

/// Pins, in as many rings as they take. Dropping it ends all of them at once.
///
/// The pins of a process end with it, in no certain order to its other files: a device that may write to the memory is
/// not always closed by then. So a second process has to have the same memory pinned.
#[derive(Debug)]
pub struct RingPins {
    rings: Vec<Ring>,
}

/// What is pinned, and can be unpinned by itself.
#[derive(Debug)]
pub(crate) struct RingPin(Vec<Buffer>);

#[derive(Clone, Copy, Debug)]
struct Buffer {
    ring: usize,
    slot: Slot,
}

impl RingPins {
    /// The most rings that pins of `bytes`, in pieces of 2 MiB or more, take; each is an open file. Of any two rings the
    /// later one was made for a piece that the other had no room for: together they hold more than `MOST_BYTES`.
    #[must_use]
    pub const fn most_rings(bytes: u64) -> u64 {
        bytes.div_ceil(MOST_BYTES).saturating_mul(2)
    }

    /// Nothing is pinned yet; there is a ring, which shows that io_uring can be used.
    ///
    /// # Errors
    /// [`Error::IoUring`]
    pub fn new() -> Result<Self, Error> {
        Ok(Self {
            rings: vec![new_ring()?],
        })
    }

    /// Pins `part` of a file of shared memory for good. Holes are filled.
    ///
    /// # Errors
    /// [`Error::IoUring`], [`Error::Pin`], [`Error::Map`]
    pub fn keep(&mut self, part: FileRange<'_>) -> Result<(), Error> {
        self.pin(part).map(drop)
    }

    /// Pins `part` of a file of shared memory. Holes are filled. Returns the pin, and where this process has the memory
    /// mapped as long as the caller wants to look at it; the pin does not need that.
    ///
    /// # Errors
    /// As [`keep`](Self::keep); nothing is pinned then.
    pub(crate) fn pin(&mut self, part: FileRange<'_>) -> Result<(RingPin, Mapping), Error> {
        let mut mapping = Mapping::reserve(part.len, 0)?;
        mapping.place(0, part, "memory to pin")?;
        let mut pin = RingPin(Vec::new());
        for at in (0..part.len.div_ceil(MOST_BYTES)).map(|number| number * MOST_BYTES) {
            let len = MOST_BYTES.min(part.len - at);
            match self.add(mapping.start() + at, len) {
                Ok(buffer) => pin.0.push(buffer),
                Err(error) => {
                    self.unpin(pin)?;
                    return Err(error);
                }
            }
        }
        Ok((pin, mapping))
    }

    /// Ends a pin.
    ///
    /// # Errors
    /// [`Error::IoUring`]
    pub(crate) fn unpin(&mut self, pin: RingPin) -> Result<(), Error> {
        for Buffer { ring, slot } in pin.0 {
            if let Some(ring) = self.rings.get_mut(ring) {
                ring.remove(slot).map_err(|source| Error::IoUring {
                    operation: RingOperation::Unpin,
                    source,
                })?;
            }
        }
        Ok(())
    }

    fn add(&mut self, start: Hva, len: u64) -> Result<Buffer, Error> {
        let found = self.rings.iter().position(|ring| ring.has_room(len));
        let ring = found.unwrap_or(self.rings.len());
        if found.is_none() {
            self.rings.push(new_ring()?);
        }
        let added = self.rings[ring].add(start, len);
        let slot = added.map_err(|source| Error::Pin { len, source })?;
        Ok(Buffer { ring, slot })
    }
}

fn new_ring() -> Result<Ring, Error> {
    Ring::new().map_err(|source| Error::IoUring {
        operation: RingOperation::MakeRing,
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use rustix::fs::{FallocateFlags, MemfdFlags, fallocate};

    use super::*;
    use crate::pagemap::{PageState, Pagemap};

    const PAGE: u64 = 4096;

    fn file(len: u64) -> File {
        let file = rustix::fs::memfd_create("pages", MemfdFlags::CLOEXEC).unwrap();
        let file = File::from(file);
        file.set_len(len).unwrap();
        file
    }

    fn states(mapping: &Mapping) -> Vec<PageState> {
        let pagemap = Pagemap::open().unwrap();
        let pages = pagemap.pages(mapping.start(), mapping.len(), PAGE);
        pages.collect::<Result<_, _>>().unwrap()
    }

    /// KiB that this process has pinned; other tests pin at the same time.
    fn is_pinned(kib: u64) -> bool {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmPin:"));
        let number = line.unwrap().trim().split(' ').next().unwrap().to_owned();
        number.parse::<u64>().unwrap() >= kib
    }

    #[test]
    fn pinned_pages_are_present_and_stay_pinned_when_they_are_unmapped() {
        let file = file(64 << 20);
        let mut pins = RingPins::new().unwrap();
        let (pin, mapping) = pins.pin(FileRange::new(&file, &(0..48 << 20))).unwrap();
        assert_eq!(mapping.len(), 48 << 20);
        assert!(!states(&mapping).contains(&PageState::Absent));
        drop(mapping);
        assert!(is_pinned(48 << 10));
        pins.unpin(pin).unwrap();
    }

    #[test]
    fn a_pinned_page_is_no_more_the_files_once_that_has_a_hole_there() {
        let file = file(2 * PAGE);
        let mut pins = RingPins::new().unwrap();
        let (_pin, mapping) = pins.pin(FileRange::first(&file, 2 * PAGE)).unwrap();
        let before = states(&mapping);
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&file, flags, 0, PAGE).unwrap();
        mapping.populate().unwrap();
        let after = states(&mapping);
        assert_eq!(before[1], after[1]);
        // The kernel shows where pages are to those with CAP_SYS_ADMIN.
        if before[0] != PageState::Hidden {
            assert_ne!(before[0], after[0], "the pinned page is not free");
        }
    }

    #[test]
    fn more_than_a_ring_holds_goes_to_the_next() {
        let file = file(1100 * PAGE);
        let mut pins = RingPins::new().unwrap();
        // Each has a slot.
        for page in 0..1100 {
            let range = page * PAGE..(page + 1) * PAGE;
            pins.keep(FileRange::new(&file, &range)).unwrap();
        }
        assert_eq!(pins.rings.len(), 3);
    }

    #[test]
    fn nothing_is_pinned_of_what_cannot_be_pinned_as_a_whole() {
        let file = file(PAGE);
        let mut pins = RingPins::new().unwrap();
        let beyond = FileRange::new(&file, &(0..2 * PAGE));
        let error = pins.pin(beyond).unwrap_err();
        assert!(
            matches!(error, Error::Pin { len, .. } if len == 2 * PAGE),
            "{error:?}"
        );
        assert!(pins.rings[0].has_room(MOST_BYTES));
        let empty = FileRange::new(&file, &(0..0));
        assert!(pins.pin(empty).is_err());
    }
}
