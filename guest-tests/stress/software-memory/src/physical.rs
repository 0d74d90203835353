// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Synthetic physical memory.

use std::collections::BTreeMap;
use std::ops::Range;

use address::Hpa;
use address::units::Memory;

/// The synthetic physical memory has no room left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "Cannot allocate {} of synthetic physical memory in pages of {}: of {}, {} are free, {} of \
     them in such pages",
    Memory(*needed), Memory(*page_size), Memory(*total), Memory(*free), Memory(*placed)
)]
pub struct OutOfMemory {
    /// Bytes asked for.
    pub needed: u64,
    /// Size of the pages that they were to be in.
    pub page_size: u64,
    /// Bytes in all.
    pub total: u64,
    /// Bytes free.
    pub free: u64,
    /// Bytes of those that could be found room for.
    pub placed: u64,
}

/// Physical address space to take pages from, in runs of random length at random places.
///
/// The same seed and the same requests give the same addresses.
#[derive(Debug)]
pub struct PhysicalMemory {
    /// All there is: first address to end. No two touch.
    ram: BTreeMap<u64, u64>,
    /// What of it is free, in the same form.
    free: BTreeMap<u64, u64>,
    longest_run: u64,
    random: fastrand::Rng,
}

impl PhysicalMemory {
    /// Memory at the addresses `ram`, given out in runs of at most `longest_run` bytes (but at
    /// least a page). Ranges may overlap; empty ones do not count.
    #[must_use]
    pub fn new(ram: impl IntoIterator<Item = Range<Hpa>>, longest_run: u64, seed: u64) -> Self {
        let mut memory = Self {
            ram: BTreeMap::new(),
            free: BTreeMap::new(),
            longest_run,
            random: fastrand::Rng::with_seed(seed),
        };
        memory.give_back(ram);
        memory.ram = memory.free.clone();
        memory
    }

    /// Takes `len` bytes in whole pages of `page_size`, which divides it.
    pub(crate) fn take(
        &mut self,
        len: u64,
        page_size: u64,
    ) -> Result<Vec<Range<Hpa>>, OutOfMemory> {
        let mut taken = Vec::new();
        let mut left = len;
        while left > 0 {
            let Some(run) = self.take_run(left, page_size) else {
                let error = OutOfMemory {
                    needed: len,
                    page_size,
                    total: self.ram.iter().map(|(start, end)| end - start).sum(),
                    free: self.free_bytes() + (len - left),
                    placed: len - left,
                };
                self.give_back(taken);
                return Err(error);
            };
            left -= run.end - run.start;
            taken.push(run);
        }
        Ok(taken)
    }

    /// Makes ranges free, whatever of them was free already.
    pub(crate) fn give_back(&mut self, ranges: impl IntoIterator<Item = Range<Hpa>>) {
        for range in ranges {
            let (mut start, mut end) = (range.start.0, range.end.0);
            if start >= end {
                continue;
            }
            while let Some((&other, &other_end)) = self.free.range(..=end).next_back() {
                if other_end < start {
                    break;
                }
                self.free.remove(&other);
                start = start.min(other);
                end = end.max(other_end);
            }
            self.free.insert(start, end);
        }
    }

    fn free_bytes(&self) -> u64 {
        self.free.iter().map(|(start, end)| end - start).sum()
    }

    /// One run of whole pages, of random length, at a random place or the next free one.
    fn take_run(&mut self, most: u64, page_size: u64) -> Option<Range<Hpa>> {
        let longest = (self.longest_run.min(most) / page_size).max(1);
        let wanted = self.random.u64(1..=longest);
        let place = self.random_address()?;
        let around = self.free.range(..=place).next_back();
        let after = self.free.range(place..);
        let before = self.free.range(..place);
        let run = around
            .map(|(start, end)| (place.max(*start), *end))
            .into_iter()
            .chain(after.chain(before).map(|(start, end)| (*start, *end)))
            .find_map(|(start, end)| {
                let first = start.checked_next_multiple_of(page_size)?;
                let pages = end.checked_sub(first)? / page_size;
                let end = first + pages.min(wanted) * page_size;
                (pages > 0).then_some(Hpa(first)..Hpa(end))
            })?;
        self.cut(&run);
        Some(run)
    }

    /// Any address of the memory, free or not.
    fn random_address(&mut self) -> Option<u64> {
        let bytes: u64 = self.ram.iter().map(|(start, end)| end - start).sum();
        let mut nth = self.random.u64(..bytes.max(1));
        for (start, end) in &self.ram {
            if nth < end - start {
                return Some(start + nth);
            }
            nth -= end - start;
        }
        None
    }

    /// Takes `run`, which is inside one free range.
    fn cut(&mut self, run: &Range<Hpa>) {
        let Some((&start, &end)) = self.free.range(..=run.start.0).next_back() else {
            return;
        };
        self.free.remove(&start);
        if start < run.start.0 {
            self.free.insert(start, run.start.0);
        }
        if run.end.0 < end {
            self.free.insert(run.end.0, end);
        }
    }
}
