// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Transfers that must be refused.

use super::values::{BUFFER, BUFFER_BYTES, Fate, Values};
use crate::ram::Ram;

/// Ways to be wrong.
const FLAWS: u64 = 10;
/// Places that are no RAM for devices in any guest: low memory, ROM, interrupt controllers.
const PLACES: [u64; 6] = [0, 0x1000, 0x9_0000, 0xe_0000, 0xfec0_0000, 0xfee0_0000];

/// Spoils `right`, which may be started, so that it must be refused. `own` is an address of the
/// device's registers.
#[must_use]
pub fn spoil(right: Values, ram: &Ram, own: u64, random: &mut fastrand::Rng) -> Values {
    let mut wrong = right;
    for _ in 0..1 + random.u64(..2) {
        wrong = flaw(wrong, ram, own, random);
    }
    match wrong.fate(ram) {
        Fate::Refused => wrong,
        _ => Values { count: 0, ..wrong },
    }
}

fn flaw(values: Values, ram: &Ram, own: u64, random: &mut fastrand::Rng) -> Values {
    let count = values.count.max(1);
    match random.u64(..FLAWS) {
        0 => values.with_memory(random.u64(..) >> random.u32(..64)),
        1 => values.with_memory(border(ram, count, random)),
        2 => values.with_memory(random.u64(..count).wrapping_neg().wrapping_sub(1)),
        3 => values.with_memory(values.memory() | 1 << random.u32(32..64)),
        4 => {
            let place = random.usize(..=PLACES.len());
            values.with_memory(PLACES.get(place).copied().unwrap_or(own))
        }
        5 => Values {
            count: long(count, random),
            ..values
        },
        6 => values.with_device(outside(count, random)),
        7 => values.with_device(values.device() | 1 << random.u32(32..64)),
        8 => Values {
            source: values.destination,
            destination: values.source,
            ..values
        },
        // Memory on both sides.
        _ => values.with_device(values.memory()),
    }
}

/// An address from which `count` bytes cross the end or the start of an extent.
fn border(ram: &Ram, count: u64, random: &mut fastrand::Rng) -> u64 {
    let extents = ram.extents();
    let Some(extent) = extents.get(random.usize(..extents.len().max(1))) else {
        return 0;
    };
    let back = random.u64(..=count);
    match random.bool() {
        true => extent.end.0.wrapping_sub(back.saturating_sub(1)),
        false => extent.start.0.wrapping_sub(back),
    }
}

/// A length that the device does not have.
fn long(count: u64, random: &mut fastrand::Rng) -> u64 {
    match random.u64(..6) {
        0 => 0,
        1 => BUFFER_BYTES + 1 + random.u64(..BUFFER_BYTES),
        2 => u64::MAX,
        // Right if it is cut to fewer bits.
        3 => count | 1 << random.u32(13..64),
        4 => count.wrapping_neg(),
        _ => random.u64(..),
    }
}

/// An address from which `count` bytes are not all in the device's buffer.
fn outside(count: u64, random: &mut fastrand::Rng) -> u64 {
    match random.u64(..4) {
        0 => BUFFER - 1 - random.u64(..count.min(BUFFER)),
        1 => (BUFFER + BUFFER_BYTES + 1).saturating_sub(random.u64(1..=count.min(BUFFER))),
        2 => random.u64(..count).wrapping_neg(),
        _ => random.u64(..) >> random.u32(..64),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use address::Gpa;

    use super::*;

    #[test]
    fn guesses_are_wrong_in_every_way() {
        let ram = Ram::new(&[Gpa(0x10_0000)..Gpa(0x800_0000)]);
        let mut random = fastrand::Rng::with_seed(1);
        let (mut wrong_memory, mut wrong_device, mut lengths) = (0, 0, BTreeSet::new());
        for number in 0..20_000 {
            let right = match number % 2 {
                0 => Values::to_memory(BUFFER + 5, 0x20_0005, 77),
                _ => Values::from_memory(0x20_0005, BUFFER + 5, 77),
            };
            assert_eq!(right.fate(&ram), Fate::Runs);
            let wrong = spoil(right, &ram, 0xfe00_0000, &mut random);
            assert_eq!(wrong.fate(&ram), Fate::Refused, "{wrong:x?}");
            let repaired = wrong.with_memory(0x20_0005);
            wrong_memory += u32::from(repaired.fate(&ram) == Fate::Runs);
            let repaired = wrong.with_device(BUFFER);
            wrong_device += u32::from(repaired.fate(&ram) == Fate::Runs);
            lengths.insert(wrong.count);
        }
        // Each side alone is wrong often, and few of them only because the length is 0.
        assert!(
            wrong_memory > 2000 && wrong_device > 2000,
            "{wrong_memory} {wrong_device}"
        );
        assert!(lengths.len() > 1000 && lengths.contains(&u64::MAX));
    }
}
