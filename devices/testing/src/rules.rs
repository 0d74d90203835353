// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which bytes of config space a guest may change in the device. Written down a second time,
//! apart from the product's tables, to check those.

/// A capability.
#[derive(Clone, Copy, Debug)]
struct Found {
    id: u16,
    offset: usize,
    /// Offset of the next one in config space.
    next: usize,
}

/// For each byte of `config`, whether a write may reach it.
pub(super) fn writable_bytes(config: &[u8]) -> Vec<bool> {
    let mut bytes = Bytes {
        own: vec![true; config.len()],
        passed: vec![false; config.len()],
        emulated: vec![false; config.len()],
    };
    bytes.own[..0x40].fill(false);
    for offset in [0x04, 0x05, 0x0c, 0x0d] {
        bytes.passed[offset] = true;
    }
    for found in with_next(&standard_list(config), 256) {
        bytes.add_standard(config, found);
    }
    if config.len() > 256 {
        bytes.emulated[0x100..0x104].fill(true);
        for found in with_next(&extended_list(config), config.len()) {
            bytes.add_extended(config, found);
        }
    }
    let both = bytes.own.iter().zip(&bytes.passed);
    both.zip(&bytes.emulated)
        .map(|((own, passed), emulated)| (*own || *passed) && !emulated)
        .collect()
}

/// What is known of each byte.
struct Bytes {
    /// It belongs to no capability of which more is known than that a vendor made it.
    own: Vec<bool>,
    passed: Vec<bool>,
    emulated: Vec<bool>,
}

impl Bytes {
    fn add_standard(&mut self, config: &[u8], found: Found) {
        let Found { id, offset, next } = found;
        let byte = |at: usize| config.get(at).copied().unwrap_or(0);
        let length = usize::from(byte(offset + 2)).max(3);
        let express = match (byte(offset + 2) & 0xf, byte(offset + 2) >> 4) {
            (0 | 1, 9) => 0x0c,
            (0 | 1, _) => 0x14,
            (_, 9) => 0x2c,
            _ => 0x34,
        };
        // Bytes that the capability has, those that the monitor keeps, and those that pass.
        let (all, kept, ranges): (usize, usize, &[(usize, usize)]) = match id {
            0x01 => (8, 8, &[(4, 6)]),
            0x03 => (8, 2, &[(2, 8)]),
            0x05 => (0x0a, 0x0a, &[]),
            0x07 => (8, 2, &[(2, 4)]),
            0x09 => (0, 2, &[(2, length)]),
            0x10 => (express, 2, &[(8, 10), (0x28, 0x2a)]),
            0x11 => (12, 12, &[]),
            0x02 => (12, 2, &[]),
            0x04 | 0x06 | 0x0a => (4, 2, &[]),
            0x0c | 0x0d | 0x12 | 0x13 => (8, 2, &[]),
            0x08 => (0x1c, 2, &[]),
            0x0f => (0x18, 2, &[]),
            _ => (next - offset, 2, &[]),
        };
        self.add(found, all, kept, ranges);
        if id == 0x01 {
            self.emulated[offset + 4..(offset + 6).min(256)].fill(false);
        }
    }

    fn add_extended(&mut self, config: &[u8], found: Found) {
        let Found { id, offset, next } = found;
        let length = dword(config, offset + 4)
            .map_or(0, |dword| (dword >> 20) as usize)
            .max(8);
        let (all, ranges): (usize, &[(usize, usize)]) = match id {
            0 => return,
            0x01 => (0x2c, &[(4, 0x18)]),
            0x04 => (16, &[(4, 5)]),
            0x0b | 0x23 => (4, &[(4, length)]),
            0x02 | 0x08 | 0x09 => (0xb0, &[]),
            0x03 | 0x06 | 0x07 | 0x1f | 0x25 => (12, &[]),
            0x0a | 0x1e => (0x14, &[]),
            0x0d => (0x28, &[]),
            0x0e | 0x0f | 0x18 | 0x1b => (8, &[]),
            0x10 | 0x26 => (0x40, &[]),
            0x12 | 0x16 => (0x30, &[]),
            0x13 => (0x10, &[]),
            0x15 | 0x24 => (0x34, &[]),
            0x17 => (0x8c, &[]),
            0x19 => (0x4c, &[]),
            0x1d => (0x5c, &[]),
            0x27 => (0x88, &[]),
            0x2e => (0x18, &[]),
            _ => (next - offset, &[]),
        };
        self.add(found, all, 4, ranges);
    }

    /// Adds a capability of `all` bytes, of which the monitor keeps the first `kept` and passes
    /// those in `ranges`.
    fn add(&mut self, found: Found, all: usize, kept: usize, ranges: &[(usize, usize)]) {
        let Found { offset, next, .. } = found;
        let end = if offset < 0x100 {
            0x100
        } else {
            self.own.len()
        };
        self.own[offset..(offset + all).min(next)].fill(false);
        self.emulated[offset..(offset + kept).min(end)].fill(true);
        for (from, to) in ranges {
            let place = (offset + from).min(end)..(offset + to).min(end);
            self.passed[place].fill(true);
        }
    }
}

fn dword(config: &[u8], at: usize) -> Option<u32> {
    let bytes = config.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_le_bytes(bytes))
}

/// The capabilities of the standard list: ID and offset. A walk apart from the product's.
pub(super) fn standard_list(config: &[u8]) -> Vec<(u16, usize)> {
    let mut list = Vec::new();
    let mut offset = usize::from(config[0x34] & 0xfc);
    // A list that runs in circles has fewer.
    while offset >= 0x40 && config[offset] != 0xff && list.len() < 48 && config[6] & 0x10 != 0 {
        list.push((config[offset].into(), offset));
        offset = usize::from(config[offset + 1] & 0xfc);
    }
    list
}

fn extended_list(config: &[u8]) -> Vec<(u16, usize)> {
    let mut list = Vec::new();
    let mut offset = 0x100;
    while let Some(header) = dword(config, offset).filter(|_| offset >= 0x100) {
        if header == 0 || header == u32::MAX || list.len() == 960 {
            break;
        }
        list.push(((header & 0xffff) as u16, offset));
        offset = (header >> 20 & 0xffc) as usize;
    }
    list
}

/// Adds where the next capability begins; those with ID 0 are none.
fn with_next(list: &[(u16, usize)], end: usize) -> Vec<Found> {
    let next = |offset| {
        let others = list.iter().filter(|(id, _)| end == 256 || *id != 0);
        let behind = others.map(|(_, other)| *other).filter(|at| *at > offset);
        behind.min().unwrap_or(end)
    };
    list.iter()
        .map(|&(id, offset)| Found {
            id,
            offset,
            next: next(offset),
        })
        .collect()
}
