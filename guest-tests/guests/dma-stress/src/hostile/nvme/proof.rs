// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a driver that keeps to the rules finds.

use address::Gpa;

use super::Stuck;
use super::commands::{BLOCKS, CLEARED};
use super::controller::Controller;
use super::places::PAGE;
use crate::hostile::Stores;
use crate::memory::Memory;
use crate::registers::Registers;

/// Pages of a transfer, the first of which is not in the list.
const PAGES: usize = 8;
/// Bytes of a transfer.
pub const BYTES: u64 = PAGES as u64 * PAGE;
/// The most bytes of a command that the controller may offer.
const MOST: u64 = 2 << 20;
/// Blocks that nothing else is about, before those that commands may clear.
const OWN_BLOCKS: u64 = 64;
/// The I/O queue.
const QUEUE: usize = 1;

const WRITE: u64 = 1;
const READ: u64 = 2;

impl<M: Memory, R: Registers + Stores> Controller<'_, M, R> {
    /// Moves data between blocks and pages `first..first + PAGES` of the data.
    fn transfer(&mut self, opcode: u64, lba: u64, first: usize, shift: u32) -> Result<(), Stuck> {
        let list = self.places.lists[0];
        let pages = self.places.data[first..first + PAGES].iter().copied();
        let mut rest = pages.skip(1);
        let filled = self
            .memory
            .fill(Gpa(list), 8 * (PAGES - 1), || rest.next().unwrap_or(0));
        debug_assert!(filled.is_ok(), "lists are in RAM");
        let last = (BYTES >> shift) - 1;
        let page = self.places.data[first];
        self.execute(QUEUE, [opcode | 1 << 32, 0, 0, page, list, lba, last, 0])
    }

    /// Fills the blocks that commands read with what the data pages have, so that no number by chance gets to a list.
    pub fn prepare(&mut self, shift: u32) -> Result<(), Stuck> {
        let step = BYTES >> shift;
        let end = BLOCKS + (MOST >> shift) + step;
        for lba in (0..end).step_by(usize::try_from(step).unwrap_or(1)) {
            self.transfer(WRITE, lba, 0, shift)?;
        }
        Ok(())
    }

    /// Writes words that only `number` has, and reads them back.
    pub fn prove(&mut self, number: u64, shift: u32) -> Result<(), Stuck> {
        // Odd, so that none of them is the address of a page.
        let word = |place: u64| (number << 24 | place) << 1 | 1;
        let lba = CLEARED - OWN_BLOCKS;
        for (page, gpa) in (0..).zip(&self.places.data[..PAGES]) {
            let mut place = page * (PAGE / 8);
            let next = || {
                place += 1;
                word(place)
            };
            self.memory.fill(Gpa(*gpa), 4096, next).map_err(|_| Stuck)?;
        }
        self.transfer(WRITE, lba, 0, shift)?;
        self.transfer(READ, lba, PAGES, shift)?;
        for (page, gpa) in (0..).zip(&self.places.data[PAGES..2 * PAGES]) {
            let mut place = page * (PAGE / 8);
            let next = || {
                place += 1;
                word(place)
            };
            let found = self.memory.first_difference(Gpa(*gpa), 4096, next);
            if found != Ok(None) {
                return Err(Stuck);
            }
        }
        Ok(())
    }
}
