// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Parts of words, without a cast that could lose bits unseen.

pub(crate) const fn low32(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

pub(crate) const fn high32(value: u64) -> u32 {
    let [.., a, b, c, d] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

pub(crate) const fn low16(value: u32) -> u16 {
    let [a, b, ..] = value.to_le_bytes();
    u16::from_le_bytes([a, b])
}

pub(crate) const fn upper16(value: u32) -> u16 {
    let [.., a, b] = value.to_le_bytes();
    u16::from_le_bytes([a, b])
}

/// Bits 8n+7 to 8n of `value`.
pub(crate) const fn byte(value: u32, n: usize) -> u8 {
    value.to_le_bytes()[n]
}

pub(crate) const fn join16(low: u16, high: u16) -> u32 {
    low as u32 | (high as u32) << 16
}

pub(crate) const fn join32(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

/// Bytes `at..at + 2`, little-endian; 0 past the end.
pub(crate) fn word16(bytes: &[u8], at: usize) -> u16 {
    match bytes.get(at..at + 2) {
        Some(&[a, b]) => u16::from_le_bytes([a, b]),
        _ => 0,
    }
}

/// Bytes `at..at + 4`, little-endian; 0 past the end.
pub(crate) fn word32(bytes: &[u8], at: usize) -> u32 {
    join16(word16(bytes, at), word16(bytes, at + 2))
}

/// Bytes `at..at + 8`, little-endian; 0 past the end.
pub(crate) fn word64(bytes: &[u8], at: usize) -> u64 {
    join32(word32(bytes, at), word32(bytes, at + 4))
}

/// Stores `value` at `at`, little-endian; dropped past the end.
pub(crate) fn put16(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(place) = bytes.get_mut(at..at + 2) {
        place.copy_from_slice(&value.to_le_bytes());
    }
}

/// Stores `value` at `at`, little-endian; dropped past the end.
pub(crate) fn put32(bytes: &mut [u8], at: usize, value: u32) {
    if let Some(place) = bytes.get_mut(at..at + 4) {
        place.copy_from_slice(&value.to_le_bytes());
    }
}
