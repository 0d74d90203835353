// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Selections of pages that may be good, for [`choice`](super::choice) to compare.
//!
//! Pages are counted by their place in ascending order of address. A *run* is a range of places
//! whose pages are neighbours.

use std::cmp::Reverse;
use std::ops::Range;

/// Pages in ascending order, as multiples of the page size.
#[derive(Debug)]
pub struct Frames {
    numbers: Vec<u64>,
    /// Pages in a section, 1 for pages that are larger.
    per_section: u64,
    /// Places below this one are below 4 GiB.
    low: usize,
    /// The least full first; of equals, that in the most runs, and the highest.
    sections: Vec<Section>,
}

/// The pages in a section.
#[derive(Clone, Debug)]
struct Section {
    number: u64,
    places: Range<usize>,
    /// Lengths of their runs, the longest first.
    runs: Vec<usize>,
}

/// Which pages are selected, by place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    taken: Vec<bool>,
    count: usize,
}

/// Where a selection starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Search {
    /// With nothing; one or two of the longest runs, where a kernel finds room; the pages wanted below 4 GiB, and with them
    /// the longest run.
    Longest,
    /// With half as many pages below 4 GiB, and so on.
    LessLow,
    /// With each end of each of the longest runs.
    Ends,
}

/// How a selection is filled up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// The longest runs first: no selection has fewer runs.
    LongestRuns,
    /// The fullest sections first: no selection touches fewer sections.
    FullestSections,
}

impl Frames {
    /// `numbers` ascend strictly; those below `limit` are below 4 GiB.
    pub fn new(numbers: Vec<u64>, per_section: u64, limit: u64) -> Self {
        let low = numbers.partition_point(|number| *number < limit);
        let mut frames = Self {
            numbers,
            per_section: per_section.max(1),
            low,
            sections: Vec::new(),
        };
        frames.sections = frames.by_section();
        frames
    }

    fn by_section(&self) -> Vec<Section> {
        let mut sections = Vec::new();
        let mut start = 0;
        while start < self.numbers.len() {
            let number = self.section(start);
            let places = start..self.places_of(number).end;
            start = places.end;
            let runs = self.longest_first(places.clone());
            sections.push(Section {
                number,
                places,
                runs: runs.iter().map(ExactSizeIterator::len).collect(),
            });
        }
        sections.sort_by_key(|Section { places, runs, .. }| {
            (places.len(), Reverse(runs.len()), Reverse(places.start))
        });
        sections
    }

    /// Runs within `places` of which `wanted` is true.
    pub fn runs(&self, places: Range<usize>, wanted: impl Fn(usize) -> bool) -> Vec<Range<usize>> {
        let mut runs: Vec<Range<usize>> = Vec::new();
        for place in places.filter(|place| wanted(*place)) {
            match runs.last_mut() {
                Some(run) if run.end == place && self.joins(place) => run.end += 1,
                _ => runs.push(place..place + 1),
            }
        }
        runs
    }

    /// Whether the page at `place`, not the first one, continues the one before.
    fn joins(&self, place: usize) -> bool {
        self.numbers[place - 1] + 1 == self.numbers[place]
    }

    fn section(&self, place: usize) -> u64 {
        self.numbers[place] / self.per_section
    }

    /// What selections of `pages` pages start from.
    pub fn seeds(&self, search: Search, pages: usize, low: usize) -> Vec<Selection> {
        let none = Selection::none(self.numbers.len());
        let all = || self.longest_first(0..self.numbers.len());
        let below = || self.longest_first(0..self.low);
        let mut seeds = Vec::new();
        match search {
            Search::Longest => {
                let all = all();
                seeds.push(none.clone());
                for count in [1, 2] {
                    seeds.push(self.with_runs(none.clone(), all.iter().take(count), pages));
                }
                let below = below();
                if let Some(first) = below.first() {
                    let wanted = low.max(first.len()).min(pages);
                    let seed = self.with_runs(none, &below, wanted);
                    seeds.push(self.with_runs(seed.clone(), all.iter().take(1), pages));
                    seeds.push(seed);
                }
            }
            Search::LessLow => {
                let below = below();
                let halves = std::iter::successors(Some(low / 2), |count| Some(count / 2));
                for count in halves.take_while(|count| *count > 0 && !below.is_empty()) {
                    seeds.push(self.with_runs(none.clone(), &below, count.min(pages)));
                }
            }
            Search::Ends => {
                for run in all().into_iter().take(THOROUGH) {
                    let length = run.len().min(pages);
                    for part in [run.start..run.start + length, run.end - length..run.end] {
                        let mut seed = none.clone();
                        seed.take(part);
                        seeds.push(seed);
                    }
                }
            }
        }
        seeds
    }

    fn longest_first(&self, places: Range<usize>) -> Vec<Range<usize>> {
        let mut runs = self.runs(places, |_| true);
        runs.sort_by_key(|run| Reverse(run.len()));
        runs
    }

    /// Adds `runs` to `selection`, up to `pages` in all.
    fn with_runs<'a>(
        &self,
        mut selection: Selection,
        runs: impl IntoIterator<Item = &'a Range<usize>>,
        pages: usize,
    ) -> Selection {
        for run in runs {
            let need = pages - selection.count;
            let part = self.part(&selection, run, need);
            selection.take(part);
        }
        selection
    }

    /// Fills `seed` up to `pages` pages, if there are as many.
    pub fn fill(&self, seed: Selection, pages: usize, strategy: Strategy) -> Selection {
        match strategy {
            Strategy::LongestRuns => self.longest_runs(seed, pages),
            Strategy::FullestSections => self.fullest_sections(seed, pages),
        }
    }

    fn longest_runs(&self, mut selection: Selection, pages: usize) -> Selection {
        let mut runs = self.runs(0..self.numbers.len(), |place| !selection.has(place));
        // The shortest last; of equals, the lowest last.
        runs.sort_by_key(|run| (run.len(), Reverse(run.start)));
        while selection.count < pages {
            let need = pages - selection.count;
            // The shortest that is enough, or the longest.
            let enough = runs.partition_point(|run| run.len() < need);
            let Some(run) = (match enough < runs.len() {
                true => Some(runs.remove(enough)),
                false => runs.pop(),
            }) else {
                break;
            };
            let part = self.part(&selection, &run, need);
            selection.take(part);
        }
        selection
    }

    /// `need` places of `run`, or all of it, in the fewest sections that `selection` has not
    /// touched.
    fn part(&self, selection: &Selection, run: &Range<usize>, need: usize) -> Range<usize> {
        if run.len() <= need {
            return run.clone();
        }
        let last = run.end - need;
        let border = run
            .clone()
            .find(|place| self.numbers[*place].is_multiple_of(self.per_section));
        let border = border.unwrap_or(run.start).min(last);
        let new_sections = |start: usize| {
            let mut sections: Vec<u64> = (start..start + need)
                .map(|place| self.section(place))
                .collect();
            sections.dedup();
            let is_new = |section: &&u64| **section != 0 && !self.touches(selection, **section);
            sections.iter().filter(is_new).count()
        };
        let start = [run.start, border, last]
            .into_iter()
            .min_by_key(|start| new_sections(*start))
            .unwrap_or(run.start);
        start..start + need
    }

    fn touches(&self, selection: &Selection, section: u64) -> bool {
        self.places_of(section).any(|place| selection.has(place))
    }

    fn places_of(&self, section: u64) -> Range<usize> {
        let first = section * self.per_section;
        let start = self.numbers.partition_point(|number| *number < first);
        let end = self
            .numbers
            .partition_point(|number| *number < first + self.per_section);
        start..end
    }

    fn fullest_sections(&self, mut selection: Selection, pages: usize) -> Selection {
        let seed = selection.clone();
        let mut rest = Vec::new();
        for section in &self.sections {
            // Those that are paid for come first, the low memory's among them.
            if section.number == 0 || section.places.clone().any(|place| seed.has(place)) {
                selection.take(section.places.clone());
            } else {
                rest.push(section);
            }
        }
        while selection.count < pages {
            let need = pages - selection.count;
            // The last one is that which needs the fewest runs.
            let enough = rest.partition_point(|section| section.places.len() < need);
            let last = (enough..rest.len()).min_by_key(|index| rest[*index].runs_for(need));
            let Some(section) = last.map(|index| rest.remove(index)).or_else(|| rest.pop()) else {
                break;
            };
            selection.take(section.places.clone());
        }
        self.trim(selection, &seed, pages)
    }

    /// Takes pages away until `pages` are left, whole runs where it can, the shortest first, and
    /// none of `seed`.
    fn trim(&self, mut selection: Selection, seed: &Selection, pages: usize) -> Selection {
        let all = 0..self.numbers.len();
        let mut runs = self.runs(all, |place| selection.has(place) && !seed.has(place));
        runs.sort_by_key(|run| (run.len(), Reverse(run.start)));
        for run in runs {
            let surplus = selection.count.saturating_sub(pages);
            if surplus == 0 {
                break;
            }
            let count = surplus.min(run.len());
            let follows_seed =
                run.start > 0 && selection.has(run.start - 1) && self.joins(run.start);
            if follows_seed {
                selection.leave(run.end - count..run.end);
            } else {
                selection.leave(run.start..run.start + count);
            }
        }
        selection
    }
}

impl Section {
    /// How many of the runs it takes for `need` pages.
    fn runs_for(&self, need: usize) -> usize {
        let mut missing = need;
        self.runs
            .iter()
            .take_while(|length| {
                let more = missing > 0;
                missing = missing.saturating_sub(**length);
                more
            })
            .count()
    }
}

/// Runs whose ends are starts.
const THOROUGH: usize = 16;

impl Selection {
    /// No page of `count`.
    pub fn none(count: usize) -> Self {
        Self {
            taken: vec![false; count],
            count: 0,
        }
    }

    /// Whether the page at `place` is in it.
    pub fn has(&self, place: usize) -> bool {
        self.taken[place]
    }

    /// Adds what is not in it yet.
    pub fn take(&mut self, places: Range<usize>) {
        for taken in &mut self.taken[places] {
            self.count += usize::from(!*taken);
            *taken = true;
        }
    }

    fn leave(&mut self, places: Range<usize>) {
        for taken in &mut self.taken[places] {
            self.count -= usize::from(*taken);
            *taken = false;
        }
    }
}
