// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A device's registers, as drivers see them.

/// Registers in a memory BAR. Offsets are in bytes from its start and multiples of the access's
/// width; each access is a single one of exactly that width, and they are not reordered.
pub trait Registers {
    /// Reads 32 bits.
    fn read32(&self, offset: u64) -> u32;
    /// Writes 32 bits.
    fn write32(&self, offset: u64, value: u32);
    /// Reads 64 bits.
    fn read64(&self, offset: u64) -> u64;
    /// Writes 64 bits.
    fn write64(&self, offset: u64, value: u64);
}
