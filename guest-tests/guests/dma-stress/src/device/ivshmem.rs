// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! QEMU's `ivshmem-plain` (docs/specs/ivshmem-spec): a large BAR with memory behind it.

use core::ops::Range;

use address::Gpa;

use crate::memory::{Memory, OutsideRam};

/// PCI vendor and device.
pub const ID: (u16, u16) = (0x1af4, 0x1110);
/// The BAR with the memory.
pub const MEMORY_BAR: usize = 2;

/// Words that are tried.
const SAMPLES: u64 = 4096;
const WORD: usize = 8;

/// What a word holds: it depends on its place, so that no two share one unseen.
fn content(offset: u64, seed: u64) -> u64 {
    let mut word = (offset ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word ^= word >> 29;
    word.wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

/// Places in `bytes` bytes: around every power of two, at the end, and by chance.
fn places(bytes: u64, seed: u64) -> impl Iterator<Item = u64> {
    let mut random = fastrand::Rng::with_seed(seed);
    let last = bytes - WORD as u64;
    let borders = (3..64_u32)
        .map(|power| 1_u64 << power)
        .flat_map(|border| [border - WORD as u64, border]);
    borders
        .chain([last])
        .filter(move |place| *place <= last)
        .chain((0..SAMPLES).map(move |_| random.u64(..=last / WORD as u64) * WORD as u64))
}

/// Writes words all over the BAR, then reads all of them. Returns the hash of what was read.
///
/// # Errors
/// The first place that has something else.
pub fn sample(memory: &impl Memory, bar: &Range<Gpa>, seed: u64) -> Result<u64, Gpa> {
    let bytes = (bar.end - bar.start) & !(WORD as u64 - 1);
    let outside = |OutsideRam| bar.start;
    for place in places(bytes, seed) {
        memory
            .fill(bar.start + place, WORD, || content(place, seed))
            .map_err(outside)?;
    }
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for place in places(bytes, seed) {
        let mut word = [0; WORD];
        memory.read(bar.start + place, &mut word).map_err(outside)?;
        let word = u64::from_le_bytes(word);
        if word != content(place, seed) {
            return Err(bar.start + place);
        }
        hash = (hash ^ word).wrapping_mul(0x0100_0000_01b3);
    }
    Ok(hash)
}

#[cfg(test)]
mod tests {
    use core::cell::RefCell;

    use alloc::vec::Vec;

    use super::*;

    const BASE: u64 = 0x1000;

    /// Memory of which some address bits may be ignored.
    struct Bar(RefCell<Vec<u8>>, u64);

    impl Bar {
        fn at(&self, gpa: Gpa, len: usize) -> Result<usize, OutsideRam> {
            let at = gpa.0.checked_sub(BASE).ok_or(OutsideRam)? & self.1;
            let at = usize::try_from(at).map_err(|_| OutsideRam)?;
            (at + len <= self.0.borrow().len())
                .then_some(at)
                .ok_or(OutsideRam)
        }
    }

    impl Memory for Bar {
        fn fill(
            &self,
            gpa: Gpa,
            len: usize,
            mut next: impl FnMut() -> u64,
        ) -> Result<(), OutsideRam> {
            let at = self.at(gpa, len)?;
            self.0.borrow_mut()[at..at + len].copy_from_slice(&next().to_le_bytes());
            Ok(())
        }
        fn first_difference(
            &self,
            _: Gpa,
            _: usize,
            _: impl FnMut() -> u64,
        ) -> Result<Option<usize>, OutsideRam> {
            Err(OutsideRam)
        }
        fn read(&self, gpa: Gpa, into: &mut [u8]) -> Result<(), OutsideRam> {
            let at = self.at(gpa, into.len())?;
            into.copy_from_slice(&self.0.borrow()[at..at + into.len()]);
            Ok(())
        }
    }

    fn sample(bytes: usize, mask: u64, seed: u64) -> Result<u64, Gpa> {
        let bar = Bar(RefCell::new(alloc::vec![0; bytes]), mask);
        super::sample(&bar, &(Gpa(BASE)..Gpa(BASE + bytes as u64)), seed)
    }

    #[test]
    fn memory_that_keeps_what_is_written_passes() {
        assert_eq!(sample(1 << 20, u64::MAX, 1), sample(1 << 20, u64::MAX, 1));
        assert_ne!(sample(1 << 20, u64::MAX, 1), sample(1 << 20, u64::MAX, 2));
        assert!(sample(1 << 20, u64::MAX, 3).is_ok());
    }

    #[test]
    fn an_address_line_that_is_missing_is_noticed() {
        for line in [3, 12, 19] {
            assert!(sample(1 << 20, !(1 << line), 1).is_err(), "{line}");
        }
    }
}
