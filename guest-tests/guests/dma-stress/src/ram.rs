// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Where buffers may be.

use alloc::vec::Vec;
use core::ops::Range;

use address::Gpa;

/// End of the memory that is not identity memory and never a DMA buffer.
const LOW_END: Gpa = Gpa(1 << 20);
const PAGE: u64 = 4096;

/// Extents of RAM, and the pieces of them that no transfer may touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ram {
    extents: Vec<Range<Gpa>>,
    taken: Vec<Range<Gpa>>,
    seams: Option<Vec<Gpa>>,
}

impl Ram {
    /// The RAM of a memory map, less what is below 1 MiB. Ranges that touch stay apart: the
    /// monitor may have made them of different pieces.
    #[must_use]
    pub fn new(map: &[Range<Gpa>]) -> Self {
        let mut extents: Vec<_> = map
            .iter()
            .filter_map(|range| {
                let start = range.start.max(LOW_END);
                (start < range.end).then_some(start..range.end)
            })
            .collect();
        extents.sort_by_key(|range| range.start);
        Self {
            extents,
            taken: Vec::new(),
            seams: None,
        }
    }

    /// Notes places where bytes of an extent do not follow one another in the host, sorted;
    /// `None` if there are none by design. Those with something taken are left out.
    pub fn set_seams(&mut self, mut seams: Option<Vec<Gpa>>) {
        if let Some(seams) = &mut seams {
            seams.retain(|seam| self.holds(&(*seam - 1..*seam + 1)).is_some());
        }
        self.seams = seams;
    }

    /// Whether extents may be in pieces.
    #[must_use]
    pub fn may_have_seams(&self) -> bool {
        self.seams.is_some()
    }

    /// The known seams in `extent`.
    #[must_use]
    pub fn seams_in(&self, extent: &Range<Gpa>) -> &[Gpa] {
        let seams = self.seams.as_deref().unwrap_or_default();
        let place = |gpa: Gpa| seams.partition_point(|seam| *seam < gpa);
        &seams[place(extent.start)..place(extent.end)]
    }

    /// Makes `range` off limits, which overlaps none that is so already.
    pub fn take(&mut self, range: Range<Gpa>) {
        let at = self
            .taken
            .partition_point(|other| other.start < range.start);
        self.taken.insert(at, range);
    }

    /// The extents by address.
    #[must_use]
    pub fn extents(&self) -> &[Range<Gpa>] {
        &self.extents
    }

    /// What of the extents is not taken.
    pub fn free(&self) -> impl Iterator<Item = Range<Gpa>> {
        self.extents.iter().flat_map(move |extent| {
            let inside = |taken: &&Range<Gpa>| taken.start < extent.end && extent.start < taken.end;
            let holes = self.taken.iter().filter(inside);
            let starts = holes.clone().map(|hole| hole.end);
            let ends = holes.map(|hole| hole.start);
            core::iter::once(extent.start)
                .chain(starts)
                .zip(ends.chain([extent.end]))
                .filter(|(start, end)| start < end)
                .map(|(start, end)| start..end)
        })
    }

    /// The extents without `hole`.
    #[must_use]
    pub fn around(&self, hole: &Range<Gpa>) -> Vec<Range<Gpa>> {
        let mut parts = Vec::new();
        for extent in &self.extents {
            parts.push(extent.start..extent.end.min(hole.start.max(extent.start)));
            parts.push(extent.start.max(hole.end.min(extent.end))..extent.end);
        }
        parts.retain(|part| part.start < part.end);
        parts.dedup();
        parts
    }

    /// The extent that has all of `range` and nothing taken in it.
    #[must_use]
    pub fn holds(&self, range: &Range<Gpa>) -> Option<&Range<Gpa>> {
        let after = self
            .extents
            .partition_point(|extent| extent.start <= range.start);
        let extent = self.extents.get(after.checked_sub(1)?)?;
        (range.end <= extent.end && !self.is_taken(range)).then_some(extent)
    }

    fn is_taken(&self, range: &Range<Gpa>) -> bool {
        // They are sorted and do not overlap: the last one that begins before the end decides.
        let after = self.taken.partition_point(|taken| taken.start < range.end);
        let last = after.checked_sub(1).and_then(|at| self.taken.get(at));
        last.is_some_and(|taken| range.start < taken.end)
    }

    /// Takes up to `most` pages from all over, away from extents' ends, and returns them: nothing
    /// may change them.
    pub fn take_canaries(&mut self, most: usize, random: &mut fastrand::Rng) -> Vec<Gpa> {
        /// Extents too small to spare a page.
        const MIN_EXTENT: u64 = 512 << 10;
        /// Least bytes from one canary to the next, to leave room for long transfers.
        const APART: u64 = 1 << 20;
        /// Bytes at the ends of large extents that have none.
        const CLEAR: u64 = 512 << 10;
        let large: Vec<_> = self
            .extents
            .iter()
            .map(|extent| {
                let clear = ((extent.end - extent.start) / 4).min(CLEAR);
                (extent.end - extent.start >= MIN_EXTENT)
                    .then(|| (extent.start + clear).0 / PAGE..(extent.end - clear).0 / PAGE)
            })
            .collect();
        let large: Vec<_> = large.into_iter().flatten().collect();
        let pages = |range: &Range<u64>| range.end - range.start;
        let total: u64 = large.iter().map(pages).sum();
        let step = total.div_ceil(most.max(1) as u64).max(1);
        let (mut canaries, mut last) = (Vec::new(), None);
        for number in 0..most as u64 {
            // One by chance of each share, counted through all extents.
            let mut at = number * step + random.u64(..step);
            let page = large.iter().find_map(|range| {
                let inside = at < pages(range);
                let page = Gpa((range.start + at) * PAGE);
                at = at.saturating_sub(pages(range));
                inside.then_some(page)
            });
            let Some(page) = page else { break };
            let crowded = last.is_some_and(|last| page - last < APART);
            if !crowded && self.holds(&(page..page + PAGE)).is_some() {
                self.take(page..page + PAGE);
                canaries.push(page);
                last = Some(page);
            }
        }
        canaries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn ram() -> Ram {
        let mut ram = Ram::new(&[
            Gpa(8 * MIB)..Gpa(10 * MIB),
            Gpa(0)..Gpa(0xa_0000),
            Gpa(10 * MIB)..Gpa(12 * MIB),
        ]);
        ram.take(Gpa(9 * MIB)..Gpa(9 * MIB + 0x3000));
        ram
    }

    #[test]
    fn low_memory_is_not_for_dma() {
        assert_eq!(
            ram().extents(),
            [Gpa(8 * MIB)..Gpa(10 * MIB), Gpa(10 * MIB)..Gpa(12 * MIB)]
        );
        assert_eq!(
            Ram::new(&[Gpa(0)..Gpa(2 * MIB)]).extents(),
            [Gpa(MIB)..Gpa(2 * MIB)]
        );
    }

    #[test]
    fn a_range_is_held_by_one_extent_with_nothing_taken() {
        let ram = ram();
        let holds = |start, end| ram.holds(&(Gpa(start)..Gpa(end))).is_some();
        assert!(holds(8 * MIB, 9 * MIB) && holds(9 * MIB + 0x3000, 10 * MIB));
        assert!(!holds(8 * MIB, 9 * MIB + 1) && !holds(9 * MIB + 0x2fff, 10 * MIB));
        assert!(!holds(10 * MIB - 1, 10 * MIB + 1) && !holds(12 * MIB - 1, 12 * MIB + 1));
        assert!(!holds(0x1000, 0x2000) && !holds(13 * MIB, 14 * MIB));
    }

    #[test]
    fn what_is_not_taken_is_free() {
        let mut ram = ram();
        ram.take(Gpa(10 * MIB)..Gpa(10 * MIB + 0x1000));
        let free: Vec<_> = ram.free().collect();
        assert_eq!(
            free,
            [
                Gpa(8 * MIB)..Gpa(9 * MIB),
                Gpa(9 * MIB + 0x3000)..Gpa(10 * MIB),
                Gpa(10 * MIB + 0x1000)..Gpa(12 * MIB),
            ]
        );
    }

    #[test]
    fn what_is_around_a_hole_is_the_rest() {
        let ram = ram();
        assert_eq!(
            ram.around(&(Gpa(9 * MIB)..Gpa(11 * MIB))),
            [Gpa(8 * MIB)..Gpa(9 * MIB), Gpa(11 * MIB)..Gpa(12 * MIB)]
        );
        assert_eq!(
            ram.around(&(Gpa(9 * MIB)..Gpa(9 * MIB + 1))),
            [
                Gpa(8 * MIB)..Gpa(9 * MIB),
                Gpa(9 * MIB + 1)..Gpa(10 * MIB),
                Gpa(10 * MIB)..Gpa(12 * MIB)
            ]
        );
        assert_eq!(ram.around(&(Gpa(0)..Gpa(MIB))), ram.extents());
        assert_eq!(ram.around(&(Gpa(20 * MIB)..Gpa(21 * MIB))), ram.extents());
    }

    #[test]
    fn seams_are_listed_by_extent() {
        let mut ram = ram();
        assert!(!ram.may_have_seams() && ram.seams_in(&(Gpa(0)..Gpa(u64::MAX))).is_empty());
        ram.set_seams(Some(
            [16, 17, 18, 21].map(|n| Gpa(n * MIB / 2 + 0x1000)).into(),
        ));
        let seams = ram.seams_in(&(Gpa(8 * MIB)..Gpa(10 * MIB)));
        // The third one is taken.
        assert_eq!(seams, [16, 17].map(|n| Gpa(n * MIB / 2 + 0x1000)));
        assert!(ram.may_have_seams());
    }

    #[test]
    fn one_large_extent_has_many_canaries() {
        let mut ram = Ram::new(&[Gpa(MIB)..Gpa(129 * MIB)]);
        let canaries = ram.take_canaries(256, &mut fastrand::Rng::with_seed(1));
        assert!((64..=128).contains(&canaries.len()), "{}", canaries.len());
        let (first, last) = (canaries[0], canaries[canaries.len() - 1]);
        assert!(first >= Gpa(MIB + (512 << 10)) && last < Gpa(129 * MIB - (512 << 10)));
        assert!(first < Gpa(8 * MIB) && last > Gpa(120 * MIB));
    }

    #[test]
    fn canaries_are_taken_all_over() {
        let mut ram = ram();
        let canaries = ram.take_canaries(2, &mut fastrand::Rng::with_seed(1));
        assert_eq!(canaries.len(), 2);
        for page in &canaries {
            assert!(ram.holds(&(*page..*page + 1)).is_none());
        }
        let extents: Vec<_> = (4..104)
            .map(|n| Gpa(2 * n * MIB)..Gpa(2 * (n + 1) * MIB))
            .collect();
        let mut many = Ram::new(&extents);
        assert!(
            many.take_canaries(10, &mut fastrand::Rng::with_seed(1))
                .len()
                <= 10
        );
    }
}
