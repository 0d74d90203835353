// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the example does with its device: pieces of a buffer go to the device, and from there to another place.

use anyhow::{Result, ensure};

use crate::edu::{self, Direction, Edu};
use crate::memory::{self, Buffer};
use crate::window::Window;

/// Pieces that are moved, each as large as the device's buffer.
const PIECES: u64 = 8;
/// From the begin of one piece to that of the next. Pieces straddle a page boundary, so that they are in two runs
/// unless the host's pages happen to follow one another.
const STRIDE: u64 = 0x1_0000;
const FIRST: u64 = 0x800;
/// Where the pieces come back to: the buffer's second half.
const BACK: u64 = memory::BYTES / 2;
/// What is there before.
const POISON: u64 = 0xa5a5_a5a5_a5a5_a5a5;

/// From a buffer's first half to the device, and back to its second half.
#[derive(Debug)]
pub struct RoundTrip<'a> {
    window: &'a Window,
    edu: &'a Edu,
    buffer: &'a Buffer,
}

impl<'a> RoundTrip<'a> {
    /// The device must be a bus master.
    pub fn new(window: &'a Window, edu: &'a Edu, buffer: &'a Buffer) -> Self {
        Self {
            window,
            edu,
            buffer,
        }
    }

    /// Moves pieces of the buffer's first half to the device and from there to its second half, and compares.
    pub fn run(&self) -> Result<()> {
        let memory = self.buffer.memory();
        println!(
            "buffer: virtual {:#x}, guest-physical {}, in {} runs",
            memory.address(),
            self.buffer.gpa(0),
            self.runs()?
        );
        for offset in (0..BACK).step_by(8) {
            memory.write64(offset, pattern(offset));
            memory.write64(BACK + offset, POISON);
        }
        for piece in 0..PIECES {
            let offset = FIRST + piece * STRIDE;
            self.transfer(Direction::ToDevice, offset)?;
            self.transfer(Direction::ToMemory, BACK + offset)?;
        }
        for offset in (0..BACK).step_by(8) {
            let is_moved = offset / STRIDE < PIECES
                && (FIRST..FIRST + edu::BUFFER).contains(&(offset % STRIDE));
            let back = if is_moved { pattern(offset) } else { POISON };
            for (at, expected) in [(offset, pattern(offset)), (BACK + offset, back)] {
                let found = memory.read64(at);
                ensure!(
                    found == expected,
                    "{found:#x} at {at:#x} of the buffer, not {expected:#x}"
                );
            }
        }
        Ok(())
    }

    /// Moves all of the device's buffer from or to the place at `offset` of ours: one transfer for each run of memory
    /// that the host has in one piece.
    fn transfer(&self, direction: Direction, offset: u64) -> Result<()> {
        let mut done = 0;
        while done < edu::BUFFER {
            let gpa = self.buffer.gpa(offset + done);
            let run = self.window.translate(gpa, edu::BUFFER - done)?;
            self.edu.transfer(direction, done, run)?;
            println!(
                "{direction:?}: {} bytes, virtual {:#x}, guest-physical {gpa}, host-physical {}",
                run.len,
                u64::try_from(self.buffer.memory().address())? + offset + done,
                run.hpa
            );
            done += run.len;
        }
        Ok(())
    }

    /// In how many runs the host has the buffer.
    fn runs(&self) -> Result<u64> {
        let (mut done, mut count) = (0, 0);
        while done < memory::BYTES {
            done += self
                .window
                .translate(self.buffer.gpa(done), memory::BYTES - done)?
                .len;
            count += 1;
        }
        Ok(count)
    }
}

/// A word that is another at each place.
fn pattern(offset: u64) -> u64 {
    offset.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
