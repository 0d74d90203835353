// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! RAM at conventional addresses for devices that use physical ones: the guest's device tree has an entry in `dma-ranges`
//! for each extent, by which the guest's kernel computes what it gives to devices (Linux, include/linux/dma-direct.h,
//! `translate_phys_to_dma`).

use std::ops::Range;

use address::{BusAddr, Gpa};
use devices::pci::BusWindow;
use host::DmaMap;

use super::{Addressing, Layout, free_ranges};
use crate::memory::plan::{Constraints, PlacedRegion, PlanError, Region};

/// Whole extents from where machines of this architecture have their RAM upwards, in the order of their physical
/// addresses. Drivers map a buffer once, for which its first address is looked up, so that no buffer may be in two
/// extents: there is a gap between any two.
#[derive(Clone, Copy, Debug)]
pub struct Packed;

impl Layout for Packed {
    fn place(
        &self,
        regions: Vec<Region>,
        constraints: &Constraints,
    ) -> Result<Vec<PlacedRegion>, PlanError> {
        let grain = grain(&regions)?;
        let mut free = free_ranges(constraints);
        let place = |region: Region| {
            let gpa = take(&mut free, region.len, grain).ok_or(PlanError::NoRoom {
                missing: region.len,
                bits: constraints.address_bits,
            })?;
            Ok(PlacedRegion { gpa, region })
        };
        regions.into_iter().map(place).collect()
    }

    fn addressing(&self) -> Addressing {
        Addressing::Packed
    }

    fn on_bus(&self, placed: &[PlacedRegion], dma: &DmaMap) -> Vec<BusWindow> {
        // What devices do not reach is in no entry, so that the guest gives them nothing of it.
        let window = |placed: &PlacedRegion| {
            Some(BusWindow {
                cpu: placed.range(),
                bus: dma.to_bus(placed.region.hpa?)?,
            })
        };
        placed.iter().filter_map(window).collect()
    }
}

/// `Packed`, with a device tree that has RAM elsewhere for devices than it is: what that does to DMA is to be seen.
#[derive(Clone, Copy, Debug)]
pub struct WrongOffset {
    /// What the tree has the bus add to guest-physical addresses.
    pub offset: u64,
}

impl Layout for WrongOffset {
    fn place(
        &self,
        regions: Vec<Region>,
        constraints: &Constraints,
    ) -> Result<Vec<PlacedRegion>, PlanError> {
        Packed.place(regions, constraints)
    }

    fn addressing(&self) -> Addressing {
        Addressing::Packed
    }

    fn on_bus(&self, placed: &[PlacedRegion], _: &DmaMap) -> Vec<BusWindow> {
        let window = |placed: &PlacedRegion| BusWindow {
            cpu: placed.range(),
            bus: BusAddr(placed.gpa.0.wrapping_add(self.offset)),
        };
        placed.iter().map(window).collect()
    }
}

/// Larger pages than this are not mapped as one.
const LARGEST_PAGE: u64 = 1 << 30;

/// The largest power of two of which all addresses and lengths of `regions` are multiples. At multiples of it in the
/// guest, large pages stay whole.
fn grain(regions: &[Region]) -> Result<u64, PlanError> {
    let mut bits = LARGEST_PAGE;
    for region in regions {
        bits |= region.hpa.ok_or(PlanError::NotPhysical)?.0 | region.len;
    }
    Ok(1 << bits.trailing_zeros())
}

/// Takes the first `len` bytes that are free at a multiple of `grain`, and as much as that behind them.
fn take(free: &mut [Range<Gpa>], len: u64, grain: u64) -> Option<Gpa> {
    free.iter_mut().find_map(|range| {
        let start = range.start.align_up(grain)?;
        let end = start.checked_add(len).filter(|end| *end <= range.end)?;
        range.start = end.checked_add(grain)?;
        Some(start)
    })
}

#[cfg(test)]
mod tests {
    use address::Hpa;
    use host::BusRange;
    use proptest::prelude::*;

    use super::*;
    use crate::memory::plan::MemoryPlan;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    fn constraints(dma: DmaMap) -> Constraints {
        Constraints {
            taken: vec![("a PCI window", Gpa(3 * GIB)..Gpa(4 * GIB))],
            address_bits: 40,
            slots: 5000,
            kept: 0,
            dma,
        }
    }

    fn at(hpa: u64, len: u64) -> Region {
        Region {
            hpa: Some(Hpa(hpa)),
            ..Region::of_file(len)
        }
    }

    #[test]
    fn extents_stay_whole_and_apart() {
        let regions = vec![
            at(2 * MIB, 4 * MIB),
            at(100 * GIB, 2 * GIB),
            at(200 * GIB, 2 * MIB),
        ];
        let plan = MemoryPlan::new(regions, &Packed, &constraints(DmaMap::Identity)).unwrap();
        let mut lengths: Vec<_> = plan
            .regions()
            .iter()
            .map(|placed| placed.region.len)
            .collect();
        lengths.sort_unstable();
        assert_eq!(lengths, [2 * MIB, 4 * MIB, 2 * GIB]);
        for pair in plan.ranges().windows(2) {
            assert!(pair[1].start - pair[0].end >= 2 * MIB, "{pair:x?}");
        }
        assert_eq!(plan.on_bus().len(), 3);
        assert_eq!(plan.addressing(), Addressing::Packed);
    }

    #[test]
    fn large_pages_stay_whole() {
        let regions = vec![at(33 * GIB, GIB), at(7 * GIB, 2 * GIB)];
        let plan = MemoryPlan::new(regions, &Packed, &constraints(DmaMap::Identity)).unwrap();
        for placed in plan.regions() {
            assert!(placed.gpa.is_aligned(GIB), "{placed:x?}");
        }
    }

    #[test]
    fn memory_without_a_physical_address_is_refused() {
        let result = MemoryPlan::new(
            vec![Region::of_file(MIB)],
            &Packed,
            &constraints(DmaMap::Identity),
        );
        assert_eq!(result, Err(PlanError::NotPhysical));
    }

    #[test]
    fn more_than_the_addresses_hold_is_refused() {
        let result = MemoryPlan::new(
            vec![at(0, 1 << 40)],
            &Packed,
            &constraints(DmaMap::Identity),
        );
        assert!(matches!(result, Err(PlanError::NoRoom { bits: 40, .. })));
    }

    #[test]
    fn a_wrong_offset_is_in_the_entries_alone() {
        let constraints = constraints(DmaMap::Identity);
        let plan = |layout: &dyn Layout| {
            MemoryPlan::new(vec![at(5 * GIB, 4 * MIB)], layout, &constraints).unwrap()
        };
        let (right, wrong) = (plan(&Packed), plan(&WrongOffset { offset: GIB }));
        assert_eq!(right.regions(), wrong.regions());
        assert_eq!(right.on_bus()[0].bus, BusAddr(5 * GIB));
        let gpa = wrong.regions()[0].gpa;
        assert_eq!(wrong.on_bus()[0].bus, BusAddr(gpa.0 + GIB));
    }

    proptest! {
        /// What the guest computes for any address of its RAM is where that memory is on the bus, and no two extents
        /// touch.
        #[test]
        fn the_guest_finds_every_byte_on_the_bus(
            pieces in prop::collection::vec((1_u64..40, 1_u64..600), 1..60),
            moved in prop::option::of(1_u64..64),
            offsets in prop::collection::vec(any::<u64>(), 8),
        ) {
            let mut hpa = 0;
            let regions: Vec<_> = pieces.iter().map(|(len, gap)| {
                let region = at(hpa + gap * 2 * MIB, len * 2 * MIB);
                hpa += (gap + len) * 2 * MIB;
                region
            }).collect();
            let dma = match moved {
                None => DmaMap::Identity,
                Some(gib) => DmaMap::Ranges(vec![BusRange {
                    cpu: Hpa(0)..Hpa(hpa + 1),
                    bus: BusAddr(gib * GIB),
                }]),
            };
            let plan = MemoryPlan::new(regions, &Packed, &constraints(dma.clone())).unwrap();
            for pair in plan.ranges().windows(2) {
                prop_assert!(pair[0].end < pair[1].start);
            }
            for (placed, offset) in plan.regions().iter().zip(offsets) {
                let at = offset % placed.region.len;
                let found = plan.on_bus().iter().find_map(|window| {
                    let gpa = placed.gpa + at;
                    window.cpu.contains(&gpa).then(|| window.bus + (gpa - window.cpu.start))
                });
                let hpa = placed.region.hpa.unwrap() + at;
                prop_assert_eq!(found, dma.to_bus(hpa));
            }
        }
    }
}
