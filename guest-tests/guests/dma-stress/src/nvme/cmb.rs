// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The controller memory buffer (Base 1.4 §4.7, 2.0 §8.5).

use super::error::NvmeError;

/// Memory inside the controller, in one of its BARs, for peer-to-peer transfers: the buffer's
/// addresses are those of the BAR, plus `offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cmb {
    /// The BAR: 0, 2, 3, 4 or 5; of a 64-bit BAR the lower half.
    pub bar: u8,
    /// Where in the BAR it starts. Not compared with the BAR's size, which only the PCI
    /// function tells.
    pub offset: u64,
    /// Its bytes, from `offset` on; more than 0. `offset + bytes` does not overflow.
    pub bytes: u64,
    /// PRP lists of the controller's own commands may be in it (LISTS).
    pub lists: bool,
    /// The controller's own reads may have their data in it (RDS).
    pub read_data: bool,
    /// The controller's own writes may have their data in it (WDS).
    pub write_data: bool,
}

impl Cmb {
    /// Decodes CMBLOC and CMBSZ (Base 1.4 §3.1.11, §3.1.12). A size of 0 is no buffer.
    pub(super) fn decode(location: u32, size: u32) -> Result<Option<Self>, NvmeError> {
        if size == 0 {
            return Ok(None);
        }
        let absurd = NvmeError::Cmb { location, size };
        let bar = location.to_le_bytes()[0] & 0b111;
        let unit_code = size >> 8 & 0xf; // SZU: 4 KiB times 16 to the power of it
        if unit_code > 6 || bar == 1 || bar > 5 {
            return Err(absurd);
        }
        // 20 bits times at most 64 GiB: no overflow.
        let unit = 4096 << (4 * unit_code);
        let offset = u64::from(location >> 12) * unit;
        let bytes = u64::from(size >> 12) * unit;
        if bytes == 0 {
            return Err(absurd);
        }
        Ok(Some(Self {
            bar,
            offset,
            bytes,
            lists: size & 1 << 2 != 0,
            read_data: size & 1 << 3 != 0,
            write_data: size & 1 << 4 != 0,
        }))
    }
}
