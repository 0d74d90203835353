// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How guest-physical addresses are chosen.

mod packed;

use std::ops::Range;

use address::Gpa;
use devices::pci::BusWindow;
use host::DmaMap;
use strum::IntoStaticStr;

use super::plan::{Constraints, PlacedRegion, PlanError, Region};
use crate::arch::layout::CONVENTIONAL_RAM;

pub use packed::{Packed, WrongOffset};

/// What guest-physical addresses of RAM are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum Addressing {
    /// The host-physical ones.
    Identity,
    /// Others, and the guest's device tree has those that its drivers give to devices.
    Packed,
    /// Others.
    Conventional,
}

/// Gives guest RAM its addresses.
pub trait Layout: std::fmt::Debug {
    /// Places for `regions`, cut into smaller ones where needed.
    ///
    /// # Errors
    /// `PlanError` if no address is free. What is returned is checked against `constraints` by the
    /// caller.
    fn place(
        &self,
        regions: Vec<Region>,
        constraints: &Constraints,
    ) -> Result<Vec<PlacedRegion>, PlanError>;

    /// What the addresses are that it gives.
    fn addressing(&self) -> Addressing;

    /// Where `placed` RAM is for devices, by what the guest is told, on a bus whose host bridge has memory at `dma`;
    /// nothing if it is at the guest's own addresses.
    fn on_bus(&self, _placed: &[PlacedRegion], dma: &DmaMap) -> Vec<BusWindow> {
        let windows = dma.ranges().iter().map(|range| BusWindow {
            cpu: Gpa(range.cpu.start.0)..Gpa(range.cpu.end.0),
            bus: range.bus,
        });
        windows.collect()
    }

    /// Whether it makes sense only where devices use physical addresses.
    fn needs_identity(&self) -> bool {
        false
    }

    /// Whether guarded controllers are given some addresses as their guests wrote them, to show the harm: never but in a
    /// control of the tests.
    fn forwards_unchecked(&self) -> bool {
        false
    }
}

/// Guest-physical = host-physical: a driver that programs guest-physical addresses programs the
/// right ones.
#[derive(Clone, Copy, Debug)]
pub struct Identity;

impl Layout for Identity {
    fn place(&self, regions: Vec<Region>, _: &Constraints) -> Result<Vec<PlacedRegion>, PlanError> {
        regions
            .into_iter()
            .map(|region| {
                let hpa = region.hpa.ok_or(PlanError::NotPhysical)?;
                Ok(PlacedRegion {
                    gpa: Gpa(hpa.0),
                    region,
                })
            })
            .collect()
    }

    fn addressing(&self) -> Addressing {
        Addressing::Identity
    }
}

/// From where machines of this architecture have their RAM upwards, around what is taken, whatever the physical
/// addresses are. Right only for devices whose addresses something translates.
#[derive(Clone, Copy, Debug)]
pub struct Conventional;

/// `Conventional` for all devices, among them those that nothing translates for: what that does to DMA is to be seen.
#[derive(Clone, Copy, Debug)]
pub struct Untranslated {
    /// No RAM is below this.
    pub from: Gpa,
}

impl Layout for Untranslated {
    fn place(
        &self,
        regions: Vec<Region>,
        constraints: &Constraints,
    ) -> Result<Vec<PlacedRegion>, PlanError> {
        let mut constraints = constraints.clone();
        let below = ("memory that is not to be harmed", Gpa(0)..self.from);
        constraints.taken.push(below);
        Conventional.place(regions, &constraints)
    }

    fn addressing(&self) -> Addressing {
        Addressing::Conventional
    }

    fn forwards_unchecked(&self) -> bool {
        true
    }
}

/// Identity, but for two pieces of memory that have one another's addresses: what a wrong layout
/// does to DMA is to be seen. The largest piece, where the kernel goes, is not touched.
#[derive(Clone, Copy, Debug)]
pub struct Swapped;

impl Layout for Swapped {
    fn place(
        &self,
        regions: Vec<Region>,
        constraints: &Constraints,
    ) -> Result<Vec<PlacedRegion>, PlanError> {
        let mut placed = Identity.place(regions, constraints)?;
        placed.sort_by_key(|placed| placed.region.len);
        let kept = placed.pop();
        let (Some(mut first), Some(mut second)) = (placed.pop(), placed.pop()) else {
            return Err(PlanError::NothingToSwap);
        };
        let len = first.region.len.min(second.region.len);
        let [moved, other] =
            [&mut first, &mut second].map(|placed| take_front(&mut placed.region, len));
        for (one, region) in [(&mut first, other), (&mut second, moved)] {
            placed.push(PlacedRegion {
                gpa: one.gpa,
                region,
            });
            one.gpa = one.gpa + len;
        }
        let rest = [Some(first), Some(second), kept].into_iter().flatten();
        placed.extend(rest.filter(|placed| placed.region.len > 0));
        Ok(placed)
    }

    fn addressing(&self) -> Addressing {
        Addressing::Identity
    }

    fn needs_identity(&self) -> bool {
        true
    }
}

/// Regions are cut at multiples of this, so that large pages stay whole.
const GRAIN: u64 = 2 << 20;

impl Layout for Conventional {
    fn place(
        &self,
        regions: Vec<Region>,
        constraints: &Constraints,
    ) -> Result<Vec<PlacedRegion>, PlanError> {
        let mut free = free_ranges(constraints).into_iter();
        let mut room = free.next();
        let mut placed = Vec::new();
        for mut rest in regions {
            while rest.len > 0 {
                let Some(range) = room.take() else {
                    return Err(PlanError::NoRoom {
                        missing: rest.len,
                        bits: constraints.address_bits,
                    });
                };
                let region = take_front(&mut rest, range.end - range.start);
                let next = range.start + region.len;
                placed.push(PlacedRegion {
                    gpa: range.start,
                    region,
                });
                room = next
                    .align_up(GRAIN)
                    .filter(|next| *next < range.end)
                    .map_or_else(|| free.next(), |next| Some(next..range.end));
            }
        }
        Ok(placed)
    }

    fn addressing(&self) -> Addressing {
        Addressing::Conventional
    }
}

/// What is not taken, in whole grains, ascending.
fn free_ranges(constraints: &Constraints) -> Vec<Range<Gpa>> {
    let limit = 1_u64
        .checked_shl(constraints.address_bits.into())
        .unwrap_or(u64::MAX);
    let mut taken: Vec<_> = constraints.taken.iter().map(|(_, range)| range).collect();
    taken.sort_unstable_by_key(|range| range.start);
    let mut free = Vec::new();
    let mut start = CONVENTIONAL_RAM;
    for range in taken.into_iter().chain([&(Gpa(limit)..Gpa(limit))]) {
        if let Some(from) = start.align_up(GRAIN) {
            let to = range.start.align_down(GRAIN);
            if from < to {
                free.push(from..to);
            }
        }
        start = start.max(range.end);
    }
    free
}

/// Cuts at most `len` bytes off the front of `region`, which keeps the rest.
fn take_front(region: &mut Region, len: u64) -> Region {
    let mut front = Region {
        hpa: region.hpa,
        len: len.min(region.len),
        parts: Vec::new(),
    };
    let mut wanted = front.len;
    region.parts.retain_mut(|part| {
        let cut = part.start + wanted.min(part.end - part.start);
        if cut > part.start {
            front.parts.push(part.start..cut);
        }
        wanted -= cut - part.start;
        part.start = cut;
        !part.is_empty()
    });
    region.len -= front.len;
    region.hpa = region.hpa.map(|hpa| hpa + front.len);
    front
}

#[cfg(test)]
mod tests {
    use address::Hpa;
    use proptest::prelude::*;

    use super::*;
    use crate::memory::plan::MemoryPlan;

    const MIB: u64 = 1 << 20;

    fn constraints() -> Constraints {
        Constraints {
            taken: vec![
                ("a PCI window", Gpa(3 << 30)..Gpa(4 << 30)),
                ("low memory", Gpa(0)..Gpa(MIB)),
                ("another", Gpa(4 << 30)..Gpa(8 << 30)),
            ],
            address_bits: 36,
            slots: 500,
            kept: 0,
            dma: DmaMap::Identity,
        }
    }

    #[test]
    fn memory_is_cut_around_what_is_taken() {
        let plan = MemoryPlan::new(
            vec![Region::of_file(4 << 30)],
            &Conventional,
            &constraints(),
        )
        .unwrap();
        let places: Vec<_> = plan.regions().iter().map(PlacedRegion::range).collect();
        let first = (3 << 30) - 2 * MIB;
        assert_eq!(
            places,
            [
                Gpa(2 * MIB)..Gpa(3 << 30),
                Gpa(8 << 30)..Gpa((8 << 30) + (4 << 30) - first)
            ]
        );
        assert_eq!(plan.regions()[1].region.parts[0].start, first);
    }

    #[test]
    fn too_much_memory_has_no_room() {
        assert!(matches!(
            MemoryPlan::new(
                vec![Region::of_file(64 << 30)],
                &Conventional,
                &constraints()
            ),
            Err(PlanError::NoRoom { bits: 36, .. })
        ));
    }

    #[test]
    fn swapped_pieces_have_one_anothers_addresses() {
        let at = |hpa: u64, len: u64| Region {
            hpa: Some(Hpa(hpa << 30)),
            ..Region::of_file(len * MIB)
        };
        let constraints = Constraints {
            taken: Vec::new(),
            ..constraints()
        };
        let regions = vec![at(5, 8), at(6, 2), at(7, 4), at(8, 6)];
        let plan = MemoryPlan::new(regions, &Swapped, &constraints).unwrap();
        let places: Vec<_> = plan
            .regions()
            .iter()
            .map(|placed| {
                let Hpa(hpa) = placed.region.hpa.unwrap();
                (placed.gpa.0, hpa, placed.region.len / MIB)
            })
            .collect();
        let [five, six, seven, eight] = [5, 6, 7, 8].map(|number| number << 30);
        assert_eq!(
            places,
            [
                (five, five, 8),
                (six, six, 2),
                (seven, eight, 4),
                (eight, seven, 4),
                (eight + 4 * MIB, eight + 4 * MIB, 2),
            ]
        );
        assert_eq!(
            MemoryPlan::new(vec![at(5, 8), at(6, 2)], &Swapped, &constraints),
            Err(PlanError::NothingToSwap)
        );
    }

    #[test]
    fn identity_needs_physical_addresses() {
        assert_eq!(
            MemoryPlan::new(vec![Region::of_file(MIB)], &Identity, &constraints()),
            Err(PlanError::NotPhysical)
        );
    }

    proptest! {
        /// Every byte of the file is in the guest exactly once, in whole grains.
        #[test]
        fn nothing_is_lost_or_doubled(
            pieces in prop::collection::vec(1_u64..600, 1..12),
            physical: bool,
        ) {
            let mut offset = 0;
            let mut regions = Vec::new();
            for grains in &pieces {
                let len = grains * GRAIN;
                regions.push(Region {
                    hpa: physical.then_some(Hpa(offset * 3)),
                    len,
                    parts: vec![
                        offset..offset + GRAIN,
                        offset + GRAIN..offset + len,
                    ],
                });
                regions.last_mut().unwrap().parts.retain(|part| !part.is_empty());
                offset += len;
            }
            let plan = MemoryPlan::new(regions, &Conventional, &constraints()).unwrap();
            let mut found: Vec<_> = plan.regions().iter().flat_map(|placed| &placed.region.parts).collect();
            found.sort_by_key(|part| part.start);
            let mut expected = 0;
            for part in found {
                prop_assert_eq!(part.start, expected);
                prop_assert_eq!((part.end - part.start) % GRAIN, 0);
                expected = part.end;
            }
            prop_assert_eq!(expected, offset);
            for placed in plan.regions() {
                let sum: u64 = placed.region.parts.iter().map(|part| part.end - part.start).sum();
                prop_assert_eq!(sum, placed.region.len);
            }
        }
    }
}
