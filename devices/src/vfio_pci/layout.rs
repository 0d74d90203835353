// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which parts of the BARs the guest reaches without an exit.

use std::ops::Range;

use address::Gpa;

use crate::pci::{BarKind, Bars, Placement};

use super::host::{HostFunction, HostInfo};
use super::report::Reporter;

/// A part of a BAR that can be mapped into the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Area {
    bar: u8,
    range: Range<u64>,
    /// Where it is mapped.
    mapped: Option<Gpa>,
}

/// The mappable areas of all BARs and which of them are mapped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct MappedAreas(Vec<Area>);

impl MappedAreas {
    /// The areas of the memory BARs in `bars`, without the pages that hold one of `trapped`.
    pub(super) fn new(info: &HostInfo, bars: &Bars, trapped: &[Placement]) -> Self {
        let page = info.page_size;
        let mut areas = Vec::new();
        for (index, bar) in bars.iter() {
            if bar.kind() == BarKind::Io {
                continue;
            }
            let holes = trapped.iter().filter(|hole| hole.bar == index);
            let holes: Vec<_> = holes.map(|hole| pages_around(&hole.range, page)).collect();
            let limit = bar.size().next_multiple_of(page);
            let ranges = &info.bars[usize::from(index)].mappable;
            for range in mappable(ranges, &holes, limit, page) {
                areas.push(Area {
                    bar: index,
                    range,
                    mapped: None,
                });
            }
        }
        Self(areas)
    }

    /// Unmaps the areas that are elsewhere than their BAR, whose address `place` returns; `None` is
    /// nowhere. True if none of them is left mapped.
    pub(super) fn unmap_unless<H: HostFunction>(
        &mut self,
        place: impl Fn(u8) -> Option<Gpa>,
        host: &mut H,
        reporter: &mut Reporter,
    ) -> bool {
        let mut clear = true;
        for area in &mut self.0 {
            if area.mapped.is_none() || area.mapped == area.wanted(&place) {
                continue;
            }
            match host.unmap(area.bar, area.range.clone()) {
                Ok(()) => area.mapped = None,
                Err(error) => {
                    clear = false;
                    reporter.fail("cannot unmap a BAR from the guest", error);
                }
            }
        }
        clear
    }

    /// Maps the areas whose BAR has a `place` there. What cannot be mapped is trapped.
    pub(super) fn map_if<H: HostFunction>(
        &mut self,
        place: impl Fn(u8) -> Option<Gpa>,
        host: &mut H,
        reporter: &mut Reporter,
    ) {
        for area in self.0.iter_mut().filter(|area| area.mapped.is_none()) {
            let Some(gpa) = area.wanted(&place) else {
                continue;
            };
            match host.map(area.bar, area.range.clone(), gpa) {
                Ok(()) => area.mapped = Some(gpa),
                Err(error) => reporter.warn(format_args!(
                    "accesses to BAR {} are trapped, which is slow: {error}",
                    area.bar
                )),
            }
        }
    }

    /// Whether any area is mapped.
    pub(super) fn any_mapped(&self) -> bool {
        self.0.iter().any(|area| area.mapped.is_some())
    }
}

impl Area {
    /// Where it belongs if its BAR is at `place`.
    fn wanted(&self, place: impl Fn(u8) -> Option<Gpa>) -> Option<Gpa> {
        place(self.bar)?.checked_add(self.range.start)
    }
}

/// The pages of `page` bytes that `range` touches.
pub(crate) fn pages_around(range: &Range<u64>, page: u64) -> Range<u64> {
    range.start / page * page..range.end.next_multiple_of(page)
}

/// The whole pages of `page` bytes of `ranges` below `limit` that are in none of `holes`.
fn mappable(ranges: &[Range<u64>], holes: &[Range<u64>], limit: u64, page: u64) -> Vec<Range<u64>> {
    let mut left: Vec<Range<u64>> = ranges
        .iter()
        .map(|range| {
            let start = range.start.checked_next_multiple_of(page).unwrap_or(limit);
            start..range.end.min(limit) / page * page
        })
        .collect();
    for hole in holes {
        left = left
            .into_iter()
            .flat_map(|range| without(&range, hole))
            .collect();
    }
    left.retain(|range| range.start < range.end);
    left
}

/// What is left of `range` on both sides of `hole`; either may be empty.
pub(crate) fn without(range: &Range<u64>, hole: &Range<u64>) -> [Range<u64>; 2] {
    [
        range.start..range.end.min(hole.start),
        range.start.max(hole.end)..range.end,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trapped_pages_are_cut_out() {
        for (ranges, holes, limit, expected) in [
            (vec![0..0x4000], vec![], 0x4000, vec![0..0x4000]),
            (
                vec![0..0x4000],
                vec![0x2000..0x3000],
                0x4000,
                vec![0..0x2000, 0x3000..0x4000],
            ),
            (
                vec![0..0x4000],
                vec![0..0x1000],
                0x4000,
                vec![0x1000..0x4000],
            ),
            (
                vec![0..0x4000],
                vec![0x3000..0x5000],
                0x4000,
                vec![0..0x3000],
            ),
            (vec![0..0x1000], vec![0..0x1000], 0x1000, vec![]),
            (
                vec![0..0x4000],
                vec![0x1000..0x2000, 0x3000..0x4000],
                0x4000,
                vec![0..0x1000, 0x2000..0x3000],
            ),
            (
                vec![0..0x1000, 0x3000..0x4000],
                vec![0x1000..0x2000],
                0x4000,
                vec![0..0x1000, 0x3000..0x4000],
            ),
            // Nothing that the host reports is trusted.
            (vec![0x800..0x2800], vec![], 0x4000, vec![0x1000..0x2000]),
            (vec![0..0x8000], vec![], 0x4000, vec![0..0x4000]),
            (
                vec![
                    Range {
                        start: 0x2000,
                        end: 0x1000,
                    },
                    u64::MAX - 1..u64::MAX,
                ],
                vec![],
                0x4000,
                vec![],
            ),
        ] {
            assert_eq!(
                mappable(&ranges, &holes, limit, 0x1000),
                expected,
                "{ranges:?} {holes:?}"
            );
        }
    }

    #[test]
    fn no_part_of_a_larger_page_is_mapped() {
        // A table at 0x2000 of a BAR of 64 KiB, and parts between pages of 16 KiB.
        let whole = vec![0..0x1_0000];
        let table = pages_around(&(0x2000..0x3000), 0x4000);
        let holes = std::slice::from_ref(&table);
        assert_eq!(
            mappable(&whole, holes, 0x1_0000, 0x4000),
            [0x4000..0x1_0000]
        );
        let parts = [0..0x2000, 0x3000..0xb000];
        assert_eq!(mappable(&parts, &[], 0x1_0000, 0x4000), [0x4000..0x8000]);
        assert_eq!(mappable(&parts, &[], 0x1_0000, 0x1_0000), []);
    }

    #[test]
    fn structures_take_the_pages_they_touch() {
        assert_eq!(pages_around(&(0x2000..0x2010), 0x1000), 0x2000..0x3000);
        assert_eq!(pages_around(&(0x2ff8..0x3008), 0x1000), 0x2000..0x4000);
        assert_eq!(pages_around(&(0x2000..0x2010), 0x4000), 0..0x4000);
        assert_eq!(pages_around(&(0x3ff8..0x4008), 0x1_0000), 0..0x1_0000);
    }
}
