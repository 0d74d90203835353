//! Which bytes of config space a guest may change in the device. Written down a second time,
//! apart from the product's tables, to check those.

/// For each byte of `config`, whether a write may reach it.
pub(super) fn writable_bytes(config: &[u8]) -> Vec<bool> {
    let mut allowed = vec![false; config.len()];
    for offset in [0x04, 0x05, 0x0c, 0x0d] {
        allowed[offset] = true;
    }
    let mut emulated = vec![false; config.len()];
    let mut offset = usize::from(config[0x34] & 0xfc);
    let mut left = 48;
    while offset >= 0x40 && left > 0 && config[0x06] & 0x10 != 0 {
        let length = usize::from(config.get(offset + 2).copied().unwrap_or(0)).max(3);
        let (own, ranges): (usize, &[(usize, usize)]) = match config[offset] {
            0x01 => (8, &[(4, 6)]),
            0x03 => (2, &[(2, 8)]),
            0x05 => (0x0a, &[]),
            0x07 => (2, &[(2, 4)]),
            0x09 => (2, &[(2, length)]),
            0x10 => (2, &[(8, 10), (0x28, 0x2a)]),
            0x11 => (12, &[]),
            _ => (2, &[]),
        };
        mark(&mut emulated, offset, (0, own));
        for range in ranges {
            mark(&mut allowed, offset, *range);
        }
        if config[offset] == 0x01 {
            emulated[offset + 4..(offset + 6).min(256)].fill(false);
        }
        offset = usize::from(config[offset + 1] & 0xfc);
        left -= 1;
    }
    extended(config, &mut allowed, &mut emulated);
    allowed
        .iter()
        .zip(&emulated)
        .map(|(allowed, emulated)| *allowed && !emulated)
        .collect()
}

fn extended(config: &[u8], allowed: &mut [bool], emulated: &mut [bool]) {
    let dword = |at: usize| {
        let bytes = config.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_le_bytes(bytes))
    };
    let mut offset = 0x100;
    let mut left = 960;
    while let Some(header) = dword(offset).filter(|_| offset >= 0x100 && left > 0) {
        let length = dword(offset + 4)
            .map_or(0, |dword| (dword >> 20) as usize)
            .max(8);
        match header & 0xffff {
            0x01 => mark(allowed, offset, (4, 0x18)),
            0x04 => mark(allowed, offset, (4, 5)),
            0x0b | 0x23 => mark(allowed, offset, (4, length)),
            _ => {}
        }
        mark(emulated, offset, (0, 4));
        offset = (header >> 20 & 0xffc) as usize;
        left -= 1;
    }
}

fn mark(bytes: &mut [bool], offset: usize, (from, to): (usize, usize)) {
    let end = if offset < 0x100 { 0x100 } else { bytes.len() };
    for byte in (offset + from..offset + to).take_while(|byte| *byte < end) {
        bytes[byte] = true;
    }
}
