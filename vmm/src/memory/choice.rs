// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Selects the hugepages that a guest keeps.
//!
//! Where hugepages are scattered, more are taken than the guest has, the best of them are kept
//! and the others go back. Pages that the devices' bus does not reach are never kept. What is best, the most important
//! first:
//! 1. Kernel and initramfs have their places.
//! 2. No more extents than are safe: than the kernel lists without allocating
//!    ([`Demand::pieces`](crate::boot::kernel::Demand::pieces)).
//! 3. There is memory below 4 GiB, as much as devices with 32 address bits need.
//! 4. The guest's kernel spends the fewest bytes ([`Overhead`]).
//! 5. The fewest extents: memslots and entries of the guest's memory map.
//!
//! Several selections are made and compared by these, that of a monitor without a choice among them:
//! the pages as the kernel's pool gave them. So the choice is never worse.

use std::cmp::Reverse;
use std::ops::Range;

use address::{Gpa, Hpa};
use host::DmaMap;

use super::candidates::{Frames, Search, Selection, Strategy};
use crate::arch::{Overhead, SECTION};
use crate::boot::place::BootRequirements;

/// Addresses of 32 bits end here.
const LIMIT_4G: u64 = 1 << 32;

/// What is required of the pages that are kept.
#[derive(Clone, Copy, Debug)]
pub struct PageRequirements<'a> {
    /// How many.
    pub pages: usize,
    /// Where memory is for devices, which others than these pages they do not reach.
    pub dma: &'a DmaMap,
    /// Bytes requested below 4 GiB.
    pub below_4g: u64,
    /// What kernel and initramfs require.
    pub boot: BootRequirements,
}

impl PageRequirements<'_> {
    /// Extents that are safe.
    fn most(&self) -> usize {
        self.boot.kernel.pieces
    }
}

/// Pages to keep, and what the guest pays for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Pages to choose from.
    pub pinned: usize,
    /// Numbers of the pages, ascending.
    pub kept: Vec<usize>,
    /// What they cost.
    pub chosen: Overhead,
    /// What the first pages would have cost.
    pub naive: Overhead,
    /// Whether kernel and initramfs have places.
    pub placed: bool,
    /// Extents that are safe.
    pub most: usize,
    /// If there are more extents than are safe: how many of the pages a guest
    /// can have in no more, with places for kernel and initramfs. `None` if there are none such.
    pub safe_pages: Option<usize>,
}

impl Choice {
    /// The same pages, which are at `pages` now, in their order: those that devices still reach. What it says of others
    /// ([`safe_pages`](Self::safe_pages)) is of these alone.
    #[must_use]
    pub fn of_moved(self, pages: &[Hpa], page_size: u64, required: &PageRequirements<'_>) -> Self {
        let anew = choose(pages, page_size, required);
        Self {
            pinned: self.pinned,
            naive: self.naive,
            kept: anew.kept.iter().map(|place| self.kept[*place]).collect(),
            ..anew
        }
    }

    /// Whether there are no more extents than are safe.
    #[must_use]
    pub fn is_safe(&self) -> bool {
        self.chosen.extents <= self.most
    }
}

/// Lower is better; the fields in the order of their weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Cost {
    unplaced: bool,
    unsafe_extents: usize,
    missing_below_4g: u64,
    bytes: u64,
    extents: usize,
}

impl Cost {
    fn of(overhead: &Overhead, ranges: &[Range<Gpa>], required: &PageRequirements<'_>) -> Self {
        Self {
            unplaced: !required.boot.fits(ranges),
            unsafe_extents: overhead.extents.saturating_sub(required.most()),
            missing_below_4g: required.below_4g.saturating_sub(overhead.below_4g),
            bytes: overhead.bytes(),
            extents: overhead.extents,
        }
    }

    /// Whether it is the cost of the best selection so far that has others searched for.
    fn wants(&self, search: Search) -> bool {
        match search {
            Search::Longest => true,
            Search::LessLow => {
                self.unplaced || self.unsafe_extents > 0 || self.missing_below_4g > 0
            }
            Search::Ends => self.unplaced,
        }
    }
}

/// Whether pages at `pages`, each of `page_size` bytes, are so good that others are not worth the
/// time it takes to clear them: nothing is missing, and the guest's kernel spends less than 1/128
/// of its memory on scatter, half of what it spends anyway.
#[must_use]
pub fn is_good(pages: &[Hpa], page_size: u64, required: &PageRequirements<'_>) -> bool {
    let ranges = ranges(pages, page_size);
    let overhead = Overhead::of(&ranges);
    let cost = Cost::of(&overhead, &ranges, required);
    let size = page_size.saturating_mul(pages.len() as u64);
    let least = Overhead::of_one_extent(size).bytes();
    pages
        .iter()
        .all(|page| is_reached(*page, page_size, required))
        && !cost.unplaced
        && cost.missing_below_4g == 0
        && cost.unsafe_extents == 0
        && cost.bytes.saturating_sub(least) < size / 128
}

/// Chooses among `pages`, distinct pages of `page_size` bytes in the order in which they were got.
/// With no more than requested, all that devices reach are kept. The same pages give the same choice.
#[must_use]
pub fn choose(pages: &[Hpa], page_size: u64, required: &PageRequirements<'_>) -> Choice {
    let reached = |number: &usize| is_reached(pages[*number], page_size, required);
    let numbers: Vec<usize> = (0..pages.len()).filter(reached).collect();
    let reached: Vec<Hpa> = numbers.iter().map(|number| pages[*number]).collect();
    let choice = choose_reached(&reached, page_size, required);
    Choice {
        pinned: pages.len(),
        kept: choice.kept.iter().map(|place| numbers[*place]).collect(),
        ..choice
    }
}

/// Whether devices reach all of the page at `page`.
fn is_reached(page: Hpa, page_size: u64, required: &PageRequirements<'_>) -> bool {
    page.span(page_size)
        .is_some_and(|range| required.dma.reaches(&range))
}

/// The same, where devices reach all pages.
fn choose_reached(pages: &[Hpa], page_size: u64, required: &PageRequirements<'_>) -> Choice {
    let mut choice = best(pages, page_size, required);
    if !choice.is_safe() {
        choice.safe_pages = safe_pages(pages, page_size, required);
    }
    choice
}

/// The most of `pages` that make no more extents than are safe: those of the longest runs.
fn safe_pages(pages: &[Hpa], page_size: u64, required: &PageRequirements<'_>) -> Option<usize> {
    let mut lengths: Vec<u64> = ranges(pages, page_size)
        .iter()
        .map(|run| (run.end - run.start) / page_size)
        .collect();
    lengths.sort_unstable_by_key(|length| Reverse(*length));
    let count = lengths.iter().take(required.most()).sum::<u64>();
    let required = PageRequirements {
        pages: usize::try_from(count).ok()?,
        ..*required
    };
    let choice = best(pages, page_size, &required);
    (choice.placed && choice.is_safe()).then_some(required.pages)
}

fn best(pages: &[Hpa], page_size: u64, required: &PageRequirements<'_>) -> Choice {
    let first = &pages[..pages.len().min(required.pages)];
    let naive_ranges = ranges(first, page_size);
    let naive = Overhead::of(&naive_ranges);
    let naive_cost = Cost::of(&naive, &naive_ranges, required);
    let naive_choice = Choice {
        pinned: pages.len(),
        kept: (0..first.len()).collect(),
        chosen: naive,
        naive,
        placed: !naive_cost.unplaced,
        most: required.most(),
        safe_pages: None,
    };
    if pages.len() <= required.pages {
        return naive_choice;
    }
    let sorted = Sorted::new(pages, page_size);
    let low = usize::try_from(required.below_4g.div_ceil(page_size)).unwrap_or(usize::MAX);
    let mut best = (naive_cost, naive_choice);
    for search in [Search::Longest, Search::LessLow, Search::Ends] {
        if !best.0.wants(search) {
            continue;
        }
        for seed in sorted.frames.seeds(search, required.pages, low) {
            for strategy in [Strategy::FullestSections, Strategy::LongestRuns] {
                let selection = sorted.frames.fill(seed.clone(), required.pages, strategy);
                let ranges = sorted.ranges(&selection);
                let chosen = Overhead::of(&ranges);
                let cost = Cost::of(&chosen, &ranges, required);
                let count: u64 = ranges.iter().map(|range| range.end - range.start).sum();
                if cost < best.0 && count == required.pages as u64 * page_size {
                    best = (
                        cost,
                        Choice {
                            kept: sorted.kept(&selection),
                            chosen,
                            placed: !cost.unplaced,
                            ..best.1
                        },
                    );
                }
            }
        }
    }
    best.1
}

/// RAM that `pages` make, in any order.
fn ranges(pages: &[Hpa], page_size: u64) -> Vec<Range<Gpa>> {
    let mut sorted = pages.to_vec();
    // The pool's runs, which ascend or descend, are found and merged.
    sorted.sort();
    merged(sorted.into_iter(), page_size)
}

/// The same of pages that ascend.
fn merged(pages: impl Iterator<Item = Hpa>, page_size: u64) -> Vec<Range<Gpa>> {
    let mut ranges: Vec<Range<Gpa>> = Vec::new();
    for Hpa(start) in pages {
        let end = Gpa(start.saturating_add(page_size));
        match ranges.last_mut() {
            Some(range) if range.end.0 == start => range.end = end,
            _ => ranges.push(Gpa(start)..end),
        }
    }
    ranges
}

/// Pages by address.
struct Sorted<'a> {
    pages: &'a [Hpa],
    page_size: u64,
    /// Numbers of the pages.
    order: Vec<usize>,
    frames: Frames,
}

impl<'a> Sorted<'a> {
    fn new(pages: &'a [Hpa], page_size: u64) -> Self {
        let mut order: Vec<usize> = (0..pages.len()).collect();
        order.sort_by_key(|number| pages[*number]);
        let numbers = order.iter().map(|number| pages[*number].0 / page_size);
        let frames = Frames::new(numbers.collect(), SECTION / page_size, LIMIT_4G / page_size);
        Self {
            pages,
            page_size,
            order,
            frames,
        }
    }

    /// The numbers of a selection's pages, by their addresses.
    fn selected(&self, selection: &Selection) -> impl Iterator<Item = usize> {
        let numbered = self.order.iter().enumerate();
        numbered
            .filter(|(place, _)| selection.has(*place))
            .map(|(_, number)| *number)
    }

    /// The RAM that a selection makes.
    fn ranges(&self, selection: &Selection) -> Vec<Range<Gpa>> {
        let pages = self.selected(selection).map(|number| self.pages[number]);
        merged(pages, self.page_size)
    }

    /// The numbers of its pages, ascending.
    fn kept(&self, selection: &Selection) -> Vec<usize> {
        let mut kept: Vec<usize> = self.selected(selection).collect();
        kept.sort_unstable();
        kept
    }
}

#[cfg(test)]
mod tests;
