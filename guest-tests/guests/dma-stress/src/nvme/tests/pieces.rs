// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The memory of a command's data, as a controller finds it.

use std::vec::Vec;

use super::machine::Memory;

/// A status code.
const PRP_OFFSET_INVALID: u16 = 0x013;

/// The memory of a data pointer, piece by piece, as Base 1.4 §4.3 has a controller find it.
pub(super) fn pieces(
    memory: &Memory,
    prp1: u64,
    prp2: u64,
    bytes: usize,
) -> Result<Vec<(u64, usize)>, u16> {
    if !prp1.is_multiple_of(4) {
        return Err(PRP_OFFSET_INVALID);
    }
    let first = bytes.min(4096 - (prp1 & 0xfff) as usize);
    let mut found = std::vec![(prp1, first)];
    let mut left = bytes - first;
    if left == 0 {
        assert_eq!(prp2, 0, "reserved");
    } else if left <= 4096 {
        if !prp2.is_multiple_of(4096) {
            return Err(PRP_OFFSET_INVALID);
        }
        found.push((prp2, left));
    } else {
        if !prp2.is_multiple_of(8) {
            return Err(PRP_OFFSET_INVALID);
        }
        let mut at = prp2;
        while left > 0 {
            let mut entry = [0; 8];
            memory.read(at, &mut entry);
            let entry = u64::from_le_bytes(entry);
            if !entry.is_multiple_of(4096) {
                return Err(PRP_OFFSET_INVALID);
            }
            if at % 4096 == 4088 && left > 4096 {
                at = entry;
                continue;
            }
            found.push((entry, left.min(4096)));
            left -= left.min(4096);
            at += 8;
        }
    }
    Ok(found)
}
