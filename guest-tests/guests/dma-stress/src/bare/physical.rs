// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! RAM by its physical address.

use alloc::vec::Vec;
use core::ops::Range;
use core::ptr;

use address::Gpa;
use dma_stress::memory::{Memory, OutsideRam};

use super::arch::mmio::dma_barrier;

/// Ranges of identity-mapped memory.
#[derive(Debug)]
pub struct PhysicalMemory(Vec<Range<Gpa>>);

impl PhysicalMemory {
    /// Access to `ranges`.
    ///
    /// # Safety
    /// They are mapped at their own address, writable, and no reference points into them.
    pub unsafe fn new(mut ranges: Vec<Range<Gpa>>) -> Self {
        ranges.sort_by_key(|range| range.start);
        Self(ranges)
    }

    fn pointer(&self, gpa: Gpa, len: usize) -> Result<*mut u8, OutsideRam> {
        let after = self.0.partition_point(|range| range.start <= gpa);
        let range = after.checked_sub(1).and_then(|at| self.0.get(at));
        let end = gpa.checked_add(len as u64);
        match (range, end) {
            (Some(range), Some(end)) if end <= range.end => {
                Ok(ptr::with_exposed_provenance_mut(gpa.0 as usize))
            }
            _ => Err(OutsideRam),
        }
    }
}

impl Memory for PhysicalMemory {
    fn fill(&self, gpa: Gpa, len: usize, mut next: impl FnMut() -> u64) -> Result<(), OutsideRam> {
        let mut at = self.pointer(gpa, len)?.cast::<u64>();
        let end = at.wrapping_add(len / 8);
        while at != end {
            // SAFETY: `pointer` checked the range, and `new`'s caller vouches for it.
            unsafe { at.write_unaligned(next()) };
            at = at.wrapping_add(1);
        }
        if !len.is_multiple_of(8) {
            let last = next().to_le_bytes();
            // SAFETY: as above; these are the last `len % 8` bytes of the range.
            unsafe { ptr::copy_nonoverlapping(last.as_ptr(), end.cast(), len % 8) };
        }
        // Before the device is started.
        dma_barrier();
        Ok(())
    }

    fn first_difference(
        &self,
        gpa: Gpa,
        len: usize,
        mut next: impl FnMut() -> u64,
    ) -> Result<Option<usize>, OutsideRam> {
        let start = self.pointer(gpa, len)?.cast::<u64>();
        // After the device reported completion.
        dma_barrier();
        let mut at = start;
        let end = start.wrapping_add(len / 8);
        while at != end {
            // SAFETY: `pointer` checked the range, and `new`'s caller vouches for it.
            let different = unsafe { at.read_unaligned() } ^ next();
            if different != 0 {
                let byte = different.trailing_zeros() as usize / 8;
                return Ok(Some(at.addr() - start.addr() + byte));
            }
            at = at.wrapping_add(1);
        }
        if !len.is_multiple_of(8) {
            let expected = next().to_le_bytes();
            let mut last = expected;
            // SAFETY: as above; these are the last `len % 8` bytes of the range.
            unsafe { ptr::copy_nonoverlapping(end.cast(), last.as_mut_ptr(), len % 8) };
            let byte = last
                .iter()
                .zip(&expected)
                .position(|(left, right)| left != right);
            return Ok(byte.map(|byte| len / 8 * 8 + byte));
        }
        Ok(None)
    }

    fn read(&self, gpa: Gpa, into: &mut [u8]) -> Result<(), OutsideRam> {
        let from = self.pointer(gpa, into.len())?;
        dma_barrier();
        // SAFETY: `pointer` checked the range, and no reference, as `into` is, points into it.
        unsafe { ptr::copy_nonoverlapping(from, into.as_mut_ptr(), into.len()) };
        Ok(())
    }

    fn read_word(&self, gpa: Gpa) -> Result<u64, OutsideRam> {
        let from = self.pointer(gpa, 8)?.cast::<u64>();
        dma_barrier();
        // SAFETY: `pointer` checked the range, and `new`'s caller vouches for it.
        Ok(unsafe { from.read_unaligned() })
    }
}
