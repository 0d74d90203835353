// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Self-describing data: every 16 bytes carry their address, the number of the write that they come
//! from, and the seed of the run.
//!
//! Both halves of such a *cell* are numbers behind a reversible mixing function, so that data looks
//! random, no cell resembles another, and any cell found in a wrong place reveals its right one.

/// Bytes of a cell.
pub const CELL: usize = 16;

/// Where a cell belongs, and when it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stamp {
    /// Which disk, or other thing that holds data.
    pub medium: u8,
    /// Offset there in bytes, a multiple of [`CELL`] below 2^60.
    pub offset: u64,
    /// How often the place had been written, this write included.
    pub generation: u32,
}

/// Writes and reads the cells of one seed.
#[derive(Clone, Copy, Debug)]
pub struct Stamper {
    key: u64,
}

/// Bits of a cell's number in what is mixed.
const NUMBER_BITS: u32 = 56;

impl Stamper {
    /// For a run with this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        // Any constant will do: seeds are small, and 0 mixes to 0.
        let key = mix(seed ^ 0x5053_7472_6573_7321);
        Self { key }
    }

    /// The cell of a stamp.
    #[must_use]
    pub fn cell(self, stamp: Stamp) -> [u8; CELL] {
        let number = (stamp.offset / CELL as u64) & ((1 << NUMBER_BITS) - 1);
        let place = mix(self.key ^ (u64::from(stamp.medium) << NUMBER_BITS | number));
        let time = mix(self.key.rotate_left(32) ^ place ^ u64::from(stamp.generation));
        let mut cell = [0; CELL];
        cell[..8].copy_from_slice(&place.to_le_bytes());
        cell[8..].copy_from_slice(&time.to_le_bytes());
        cell
    }

    /// The stamp of the first [`CELL`] bytes; `None` if they are no cell of this seed, or too few. Other data
    /// passes for a cell once in 2^32.
    #[must_use]
    pub fn decode(self, bytes: &[u8]) -> Option<Stamp> {
        let (place, rest) = bytes.split_first_chunk()?;
        let place = u64::from_le_bytes(*place);
        let time = u64::from_le_bytes(*rest.first_chunk()?);
        let generation = unmix(time) ^ place ^ self.key.rotate_left(32);
        let number = unmix(place) ^ self.key;
        Some(Stamp {
            medium: u8::try_from(number >> NUMBER_BITS).ok()?,
            offset: (number & ((1 << NUMBER_BITS) - 1)) * CELL as u64,
            generation: u32::try_from(generation).ok()?,
        })
    }

    /// Fills `bytes` with cells from `first` on, all of one generation.
    pub fn fill(self, bytes: &mut [u8], first: Stamp) {
        for (cell, stamp) in bytes.chunks_mut(CELL).zip(successors(first)) {
            cell.copy_from_slice(&self.cell(stamp)[..cell.len()]);
        }
    }

    /// Whether `bytes` are what [`fill`](Self::fill) writes.
    #[must_use]
    pub fn is_filled(self, bytes: &[u8], first: Stamp) -> bool {
        let mut pairs = bytes.chunks(CELL).zip(successors(first));
        pairs.all(|(cell, stamp)| cell == &self.cell(stamp)[..cell.len()])
    }
}

/// The stamps of neighbouring cells.
pub fn successors(first: Stamp) -> impl Iterator<Item = Stamp> {
    (0..).map(move |number: u64| Stamp {
        offset: first.offset + number * CELL as u64,
        ..first
    })
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
fn mix(mut number: u64) -> u64 {
    number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}

/// The inverse of [`mix`]: the factors are the multiplicative inverses modulo 2^64.
fn unmix(mut number: u64) -> u64 {
    number = (number ^ number >> 31 ^ number >> 62).wrapping_mul(0x3196_42b2_d24d_8ec3);
    number = (number ^ number >> 27 ^ number >> 54).wrapping_mul(0x96de_1b17_3f11_9089);
    number ^ number >> 30 ^ number >> 60
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_cell_has_its_stamp(seed: u64, medium: u8, number in 0_u64..1 << 56, generation: u32) {
            let stamp = Stamp { medium, offset: number * 16, generation };
            let stamper = Stamper::new(seed);
            prop_assert_eq!(stamper.decode(&stamper.cell(stamp)), Some(stamp));
            prop_assert_eq!(Stamper::new(seed ^ 1).decode(&stamper.cell(stamp)), None);
        }

        #[test]
        fn other_data_is_no_cell(bytes: [u8; 16], length in 0_usize..17) {
            // True for all but one in 2^32, and the generator's seeds are not that many.
            prop_assert_eq!(Stamper::new(1).decode(&bytes[..length]), None);
        }
    }

    #[test]
    fn one_wrong_byte_is_seen_wherever_it_is() {
        let first = Stamp {
            medium: 3,
            offset: 512,
            generation: 9,
        };
        let stamper = Stamper::new(7);
        let mut bytes = vec![0; 100];
        stamper.fill(&mut bytes, first);
        assert!(stamper.is_filled(&bytes, first));
        for at in 0..bytes.len() {
            bytes[at] ^= 1;
            assert!(!stamper.is_filled(&bytes, first), "{at}");
            bytes[at] ^= 1;
        }
    }
}
