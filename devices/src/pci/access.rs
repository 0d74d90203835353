// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Accesses of 1, 2 and 4 bytes seen as accesses to part of an aligned dword, and the split of
//! unaligned accesses.

use std::ops::Range;

/// A write of 1, 2 or 4 bytes to the dword it lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DwordWrite {
    /// Offset of the dword.
    pub offset: u16,
    /// The written bits, in place.
    pub value: u32,
    /// Which bits are written: whole bytes.
    pub mask: u32,
    /// Bytes written.
    pub width: u16,
}

impl DwordWrite {
    /// `None` unless `data` has 1, 2 or 4 bytes and `offset` is a multiple of that.
    #[must_use]
    pub fn new(offset: u16, data: &[u8]) -> Option<Self> {
        let width = config_width(offset, data.len())?;
        let mut bytes = [0; 4];
        bytes[..data.len()].copy_from_slice(data);
        let shift = 8 * u32::from(offset & 3);
        Some(Self {
            offset: offset & !3,
            value: u32::from_le_bytes(bytes) << shift,
            mask: low_bytes(width) << shift,
            width,
        })
    }

    /// What the dword is after the write.
    pub(crate) fn merge(self, old: u32) -> u32 {
        old & !self.mask | self.value
    }

    /// The access's own offset.
    pub(crate) fn start(self) -> u16 {
        self.offset + lowest_byte(self.mask)
    }
}

/// Ones in the lowest `width` bytes, `width` at most 4.
pub(crate) fn low_bytes(width: u16) -> u32 {
    match width {
        0 => 0,
        1..4 => (1 << (8 * width)) - 1,
        _ => u32::MAX,
    }
}

fn lowest_byte(mask: u32) -> u16 {
    match mask.trailing_zeros() {
        0..8 => 0,
        8..16 => 1,
        16..24 => 2,
        _ => 3,
    }
}

/// The width of a config access, if it is one that PCI defines: 1, 2 or 4 bytes, naturally
/// aligned.
pub(crate) fn config_width(offset: u16, len: usize) -> Option<u16> {
    let width = match len {
        1 => 1,
        2 => 2,
        4 => 4,
        _ => return None,
    };
    offset.is_multiple_of(width).then_some(width)
}

/// Copies from `dword` the bytes that an access at `offset` covers.
///
/// # Panics
///
/// If `data` reaches past the end of the dword, which no access that PCI defines does.
pub fn read_part(dword: u32, offset: u16, data: &mut [u8]) {
    let from = usize::from(offset & 3);
    data.copy_from_slice(&dword.to_le_bytes()[from..from + data.len()]);
}

/// Cuts `len` bytes at `address` into naturally aligned pieces of 1, 2, 4 or 8 bytes, given as
/// ranges of the access's data.
pub(crate) fn aligned_pieces(address: u64, len: usize) -> impl Iterator<Item = Range<usize>> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let left = len - done;
        let at = address.wrapping_add(done as u64);
        let size = [8, 4, 2, 1]
            .into_iter()
            .find(|&size| size <= left && at.is_multiple_of(size as u64))?;
        done += size;
        Some(done - size..done)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_merge_into_their_dword() {
        for (offset, data, merged) in [
            (8, &[0xaa_u8][..], 0x4433_22aa_u32),
            (9, &[0xaa], 0x4433_aa11),
            (10, &[0xaa, 0xbb], 0xbbaa_2211),
            (8, &[1, 2, 3, 4], 0x0403_0201),
        ] {
            let write = DwordWrite::new(offset, data).unwrap();
            assert_eq!(write.offset, 8);
            assert_eq!(write.start(), offset);
            assert_eq!(write.merge(0x4433_2211), merged);
        }
    }

    #[test]
    fn undefined_widths_and_alignments_are_refused() {
        for (offset, len) in [(0, 0), (0, 3), (0, 8), (1, 2), (2, 4), (1, 4), (3, 2)] {
            assert_eq!(
                DwordWrite::new(offset, &vec![0; len]),
                None,
                "{offset} {len}"
            );
        }
    }

    #[test]
    fn pieces_are_aligned_and_cover_the_access() {
        let widths = |address, len| {
            aligned_pieces(address, len)
                .map(|r| r.len())
                .collect::<Vec<_>>()
        };
        assert_eq!(widths(0x1000, 8), [8]);
        assert_eq!(widths(0xffe, 4), [2, 2]);
        assert_eq!(widths(0xffd, 8), [1, 2, 4, 1]);
        assert_eq!(widths(0x1004, 8), [4, 4]);
        assert_eq!(widths(0x1001, 1), [1]);
        assert_eq!(widths(u64::MAX, 2), [1, 1]);
        assert!(widths(0x1001, 0).is_empty());
    }
}
