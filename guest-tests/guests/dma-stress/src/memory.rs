// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The guest's memory, as drivers and checks see it.

use address::Gpa;

/// The address range is not wholly in RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutsideRam;

/// RAM by guest-physical address. Devices change it behind the program's back, so that nothing
/// hands out references.
///
/// The words of a range are 64 bits, little endian, from its first byte on, wherever that is; the
/// last one is cut if need be.
pub trait Memory {
    /// Fills `len` bytes with words from `next`.
    ///
    /// # Errors
    /// [`OutsideRam`]; nothing is written.
    fn fill(&self, gpa: Gpa, len: usize, next: impl FnMut() -> u64) -> Result<(), OutsideRam>;

    /// The offset of the first byte of `len` that is not as `next` has it, `None` if all are.
    ///
    /// # Errors
    /// [`OutsideRam`]
    fn first_difference(
        &self,
        gpa: Gpa,
        len: usize,
        next: impl FnMut() -> u64,
    ) -> Result<Option<usize>, OutsideRam>;

    /// Copies memory to `into`.
    ///
    /// # Errors
    /// [`OutsideRam`]
    fn read(&self, gpa: Gpa, into: &mut [u8]) -> Result<(), OutsideRam>;

    /// The word at `gpa`.
    ///
    /// # Errors
    /// [`OutsideRam`]
    fn read_word(&self, gpa: Gpa) -> Result<u64, OutsideRam> {
        let mut word = [0; 8];
        self.read(gpa, &mut word)?;
        Ok(u64::from_le_bytes(word))
    }
}
