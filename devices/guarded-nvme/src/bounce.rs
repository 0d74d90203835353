// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Data that goes through memory of the monitor's, between a guest's pages and a block.

use address::Gpa;

use crate::bits::word64;
use crate::device::Block;
use crate::guest::Guest;
use crate::limits::MAX_LOG_BYTES;
use crate::prp::{Page, Payload};
use crate::spec::{PAGE_BYTES, Status};

/// Pages that hold the most bytes of a bounced command: one more than they fill, for an offset.
const MOST_PAGES: usize = MAX_LOG_BYTES as usize / PAGE_BYTES + 1;

/// Reads a payload of at most a page from the guest; zeros follow it.
///
/// # Errors
///
/// As [`Payload::walk`], and 0/02 for more than a page.
pub fn fetch<G: Guest>(payload: &Payload, guest: &G) -> Result<[u8; PAGE_BYTES], Status> {
    let mut data = [0; PAGE_BYTES];
    let mut copy = |page: Page| {
        let part = payload.part(page.index);
        let place = data.get_mut(part.start..part.end);
        let place = place.ok_or(Status::INVALID_FIELD)?;
        match guest.read(page.gpa + part.within, place) {
            true => Ok(()),
            false => Err(Status::DATA_TRANSFER_ERROR),
        }
    };
    payload.walk(guest, &mut copy)?;
    Ok(data)
}

/// Fills a page of a block.
pub fn store_page<B: Block>(block: &B, page: usize, data: &[u8; PAGE_BYTES]) {
    for at in (0..PAGE_BYTES).step_by(8) {
        block.store(page * PAGE_BYTES + at, word64(data, at));
    }
}

/// Copies a page of a block.
#[must_use]
pub fn load_page<B: Block>(block: &B, page: usize) -> [u8; PAGE_BYTES] {
    let mut data = [0; PAGE_BYTES];
    for at in (0..PAGE_BYTES).step_by(8) {
        let word = block.load(page * PAGE_BYTES + at);
        data[at..at + 8].copy_from_slice(&word.to_le_bytes());
    }
    data
}

/// Where a command's data is to go in the guest: its entries, read once and checked.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    payload: Payload,
    pages: [Gpa; MOST_PAGES],
}

impl Target {
    /// The pages of a payload that goes to the host.
    ///
    /// # Errors
    ///
    /// As [`Payload::walk`], and 0/02 for too many bytes.
    pub fn new<G: Guest>(payload: Payload, guest: &G) -> Result<Self, Status> {
        let mut pages = [Gpa(0); MOST_PAGES];
        let mut note = |page: Page| {
            let place = pages.get_mut(page.index as usize);
            *place.ok_or(Status::INVALID_FIELD)? = page.gpa;
            Ok(())
        };
        payload.walk(guest, &mut note)?;
        Ok(Self { payload, pages })
    }

    /// Bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.payload.bytes as usize
    }

    /// Writes `data`, which begins at byte `start` of the payload, as far as the payload goes. `false` if a page is no
    /// longer RAM.
    #[must_use]
    pub fn write<G: Guest>(&self, guest: &G, start: usize, data: &[u8]) -> bool {
        let end = start + data.len();
        (0..self.payload.pages()).all(|index| {
            let part = self.payload.part(index);
            let (from, to) = (part.start.max(start), part.end.min(end));
            if from >= to {
                return true;
            }
            let skipped = (from - part.start) as u64;
            let gpa = self.pages[index as usize] + part.within + skipped;
            guest.write(gpa, &data[from - start..to - start])
        })
    }
}
