// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Addresses of tables.

use crate::level::OUTPUT_BITS;

/// Bytes of a table.
pub const TABLE_BYTES: u64 = 4096;

/// What a table pointer holds: a multiple of 4 KiB below 2^52.
///
/// In which space is up to the memory that the tables live in: an offset into the heap's
/// arena, a guest-physical address, a host-physical address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableAddress(u64);

impl TableAddress {
    /// The table at `address`; `None` unless that is a multiple of 4 KiB below 2^52.
    #[must_use]
    pub const fn new(address: u64) -> Option<Self> {
        if address.is_multiple_of(TABLE_BYTES) && address >> OUTPUT_BITS == 0 {
            Some(Self(address))
        } else {
            None
        }
    }

    /// The address.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Address of the table's entry `index`, which is below 512.
    #[must_use]
    pub const fn entry(self, index: usize) -> u64 {
        self.0 + 8 * (index as u64)
    }

    /// `address` has only bits 51:12.
    pub(crate) const fn from_masked(address: u64) -> Self {
        Self(address)
    }
}
