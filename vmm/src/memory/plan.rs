// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! From pieces of memory to memslots: assigns a guest-physical address to every piece of RAM.

use std::ops::Range;

use address::{Gpa, Hpa};
use devices::pci::BusWindow;
use host::DmaMap;

use super::layout::{Addressing, Layout};

/// Memory that is contiguous in the guest, made of parts of the backing file.
///
/// One region becomes one memslot, since host virtual memory can be laid out to match it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// First host-physical address, if the region is contiguous there too.
    pub hpa: Option<Hpa>,
    /// Bytes in the region.
    pub len: u64,
    /// Its parts of the backing file, in ascending order of address.
    pub parts: Vec<Range<u64>>,
}

impl Region {
    /// The first `len` bytes of the backing file, wherever they are in the host.
    #[must_use]
    pub fn of_file(len: u64) -> Self {
        Self {
            hpa: None,
            len,
            parts: vec![0..len],
        }
    }
}

/// Pinned memory: a part of a file, and the contiguous host-physical memory that holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First byte of it in the file.
    pub offset: u64,
    /// Where that is.
    pub hpa: Hpa,
    /// Bytes.
    pub len: u64,
}

/// Sorts `extents` by host-physical address and joins neighbours.
#[must_use]
pub fn regions(extents: &[Extent]) -> Vec<Region> {
    let mut sorted: Vec<&Extent> = extents.iter().collect();
    sorted.sort_unstable_by_key(|extent| extent.hpa);
    let mut regions: Vec<Region> = Vec::new();
    for extent in sorted {
        let part = extent.offset..extent.offset + extent.len;
        match regions.last_mut() {
            Some(region) if region.hpa.map(|hpa| hpa + region.len) == Some(extent.hpa) => {
                region.len += extent.len;
                region.parts.push(part);
            }
            _ => regions.push(Region {
                hpa: Some(extent.hpa),
                len: extent.len,
                parts: vec![part],
            }),
        }
    }
    regions
}

/// A region with its place in the guest: one memslot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedRegion {
    /// First guest-physical address.
    pub gpa: Gpa,
    /// The memory there.
    pub region: Region,
}

/// A part of the backing file with its place in the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedPart {
    /// First guest-physical address.
    pub gpa: Gpa,
    /// The part.
    pub file: Range<u64>,
}

impl PlacedRegion {
    /// The parts of the backing file that the region is made of, ascending.
    pub fn parts(&self) -> impl Iterator<Item = PlacedPart> {
        self.region.parts.iter().scan(self.gpa, |next, part| {
            let gpa = *next;
            *next = gpa + (part.end - part.start);
            let file = part.clone();
            Some(PlacedPart { gpa, file })
        })
    }

    /// Guest-physical addresses of the region.
    #[must_use]
    pub fn range(&self) -> Range<Gpa> {
        self.gpa..self.gpa + self.region.len
    }
}

/// What a layout must keep clear of and stay within.
#[derive(Clone, Debug)]
pub struct Constraints {
    /// Guest-physical ranges that are taken, each with its name: low memory, ECAM, interrupt
    /// controllers, windows for BARs.
    pub taken: Vec<(&'static str, Range<Gpa>)>,
    /// Guest-physical addresses have this many bits.
    pub address_bits: u8,
    /// Memslots that may be used for RAM.
    pub slots: usize,
    /// Memslots that devices need besides.
    pub kept: usize,
    /// Where memory is for devices.
    pub dma: DmaMap,
}

/// A layout of guest RAM, in ascending order of guest-physical address, without overlaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    regions: Vec<PlacedRegion>,
    addressing: Addressing,
    on_bus: Vec<BusWindow>,
}

/// Why memory cannot be laid out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Two things need the same addresses.
    #[error("Guest memory at GPA {:#x}-{:#x} overlaps {name} at GPA {:#x}-{:#x}", range.start, range.end, taken.start, taken.end)]
    Overlap {
        /// The memory.
        range: Range<Gpa>,
        /// What is there.
        name: &'static str,
        /// Where that is.
        taken: Range<Gpa>,
    },
    /// The guest's CPU cannot address the memory.
    #[error(
        "Guest memory ends at GPA {end}, but the guest CPU's physical addresses have only {bits} bits"
    )]
    TooHigh {
        /// End of the memory.
        end: Gpa,
        /// Bits of a guest-physical address.
        bits: u8,
    },
    /// No room for memory between used addresses.
    #[error("No room for {} MiB of guest memory below GPA 2^{bits}", missing.div_ceil(1 << 20))]
    NoRoom {
        /// Bytes without a place.
        missing: u64,
        /// Bits of a guest-physical address.
        bits: u8,
    },
    /// A layout that needs physical addresses was given memory without.
    #[error("Guest memory has no known physical address")]
    NotPhysical,
    /// A layout that swaps pieces has too few.
    #[error("Guest memory is in fewer than three pieces: no two can be swapped")]
    NothingToSwap,
    /// KVM has too few memslots, or a guest's E820 map too few entries.
    #[error("Guest memory is in {regions} pieces, more than the {most} that {what}")]
    TooFragmented {
        /// Pieces of memory.
        regions: usize,
        /// How many there may be.
        most: usize,
        /// The source of the limit.
        what: &'static str,
    },
}

impl MemoryPlan {
    /// Lays `regions` out by `layout` within `constraints`.
    ///
    /// # Errors
    /// [`PlanError`]
    pub fn new(
        regions: Vec<Region>,
        layout: &dyn Layout,
        constraints: &Constraints,
    ) -> Result<Self, PlanError> {
        let mut regions = layout.place(regions, constraints)?;
        regions.sort_unstable_by_key(|placed| placed.gpa);
        let plan = Self {
            on_bus: layout.on_bus(&regions, &constraints.dma),
            addressing: layout.addressing(),
            regions,
        };
        plan.check(constraints)?;
        Ok(plan)
    }

    fn check(&self, constraints: &Constraints) -> Result<(), PlanError> {
        if self.regions.len() > constraints.slots {
            return Err(PlanError::TooFragmented {
                regions: self.regions.len(),
                most: constraints.slots,
                what: match constraints.kept {
                    0 => "KVM has memslots for",
                    _ => "KVM has memslots for besides those of the guest's devices",
                },
            });
        }
        let limit = 1_u64.checked_shl(constraints.address_bits.into());
        for placed in &self.regions {
            let too_high = PlanError::TooHigh {
                end: Gpa(placed.gpa.0.saturating_add(placed.region.len)),
                bits: constraints.address_bits,
            };
            let end = placed
                .gpa
                .checked_add(placed.region.len)
                .ok_or(too_high.clone())?;
            if limit.is_some_and(|limit| end.0 > limit) {
                return Err(too_high);
            }
        }
        let memory = self
            .regions
            .windows(2)
            .map(|pair| ("other memory", pair[0].range(), pair[1].range()));
        let fixed = self.regions.iter().flat_map(|placed| {
            constraints
                .taken
                .iter()
                .map(|(name, taken)| (*name, taken.clone(), placed.range()))
        });
        match memory
            .chain(fixed)
            .find(|(_, taken, range)| range.start < taken.end && taken.start < range.end)
        {
            Some((name, taken, range)) => Err(PlanError::Overlap { range, name, taken }),
            None => Ok(()),
        }
    }

    /// The regions, each a memslot, ascending.
    #[must_use]
    pub fn regions(&self) -> &[PlacedRegion] {
        &self.regions
    }

    /// What the guest-physical addresses are.
    #[must_use]
    pub fn addressing(&self) -> Addressing {
        self.addressing
    }

    /// Where RAM is for devices, by what the guest is told; nothing if it is at the guest's own addresses.
    #[must_use]
    pub fn on_bus(&self) -> &[BusWindow] {
        &self.on_bus
    }

    /// Guest-physical addresses of the regions, ascending.
    #[must_use]
    pub fn ranges(&self) -> Vec<Range<Gpa>> {
        self.regions.iter().map(PlacedRegion::range).collect()
    }

    /// The parts of the backing file, ascending by where the guest has them.
    pub fn parts(&self) -> impl Iterator<Item = PlacedPart> {
        self.regions.iter().flat_map(PlacedRegion::parts)
    }

    /// Bytes of RAM in all.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.regions.iter().map(|placed| placed.region.len).sum()
    }
}

/// What is guest RAM of a file with `extents`, which ascend in it: ranges that do not touch.
pub fn file_parts(extents: &[Extent]) -> Vec<Range<u64>> {
    let mut parts: Vec<Range<u64>> = Vec::new();
    for Extent { offset, len, .. } in extents {
        let end = offset + len;
        match parts.last_mut() {
            Some(last) if last.end == *offset => last.end = end,
            _ => parts.push(*offset..end),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::memory::layout::Identity;

    const PAGE: u64 = 2 << 20;

    fn constraints() -> Constraints {
        Constraints {
            taken: vec![
                ("low memory", Gpa(0)..Gpa(1 << 20)),
                ("ECAM", Gpa(0xb000_0000)..Gpa(0xb010_0000)),
            ],
            address_bits: 40,
            slots: 500,
            kept: 0,
            dma: DmaMap::Identity,
        }
    }

    fn extent(page: u64, frame: u64) -> Extent {
        Extent {
            offset: page * PAGE,
            hpa: Hpa(frame * PAGE),
            len: PAGE,
        }
    }

    #[test]
    fn neighbours_join_whatever_their_order_in_the_file() {
        let regions = regions(&[extent(0, 9), extent(1, 7), extent(2, 8), extent(3, 20)]);
        assert_eq!(regions.len(), 2);
        assert_eq!(regions[0].hpa, Some(Hpa(7 * PAGE)));
        assert_eq!(regions[0].len, 3 * PAGE);
        let offsets: Vec<_> = regions[0]
            .parts
            .iter()
            .map(|part| part.start / PAGE)
            .collect();
        assert_eq!(offsets, [1, 2, 0]);
        assert_eq!(regions[1].hpa, Some(Hpa(20 * PAGE)));
    }

    #[test]
    fn overlaps_are_named() {
        let on_ecam = regions(&[extent(0, 0xb000_0000 / PAGE)]);
        assert!(matches!(
            MemoryPlan::new(on_ecam, &Identity, &constraints()),
            Err(PlanError::Overlap { name: "ECAM", .. })
        ));

        #[derive(Debug)]
        struct AllAtOne;
        impl Layout for AllAtOne {
            fn place(
                &self,
                regions: Vec<Region>,
                _: &Constraints,
            ) -> Result<Vec<PlacedRegion>, PlanError> {
                let placed = |region| PlacedRegion {
                    gpa: Gpa(PAGE),
                    region,
                };
                Ok(regions.into_iter().map(placed).collect())
            }

            fn addressing(&self) -> Addressing {
                Addressing::Conventional
            }
        }
        assert!(matches!(
            MemoryPlan::new(
                regions(&[extent(0, 5), extent(1, 9)]),
                &AllAtOne,
                &constraints()
            ),
            Err(PlanError::Overlap {
                name: "other memory",
                ..
            })
        ));
    }

    #[test]
    fn what_the_cpu_cannot_address_is_refused() {
        let last = (1 << 40) / PAGE - 1;
        let fits = regions(&[extent(0, last)]);
        assert!(MemoryPlan::new(fits, &Identity, &constraints()).is_ok());
        let beyond = regions(&[extent(0, last + 1)]);
        assert!(matches!(
            MemoryPlan::new(beyond, &Identity, &constraints()),
            Err(PlanError::TooHigh { bits: 40, .. })
        ));
    }

    #[test]
    fn too_many_pieces_are_refused_with_the_reason() {
        let scattered: Vec<_> = (0..501).map(|i| extent(i, 100_000 + 2 * i)).collect();
        assert!(matches!(
            MemoryPlan::new(regions(&scattered), &Identity, &constraints()),
            Err(PlanError::TooFragmented {
                regions: 501,
                most: 500,
                ..
            })
        ));
        let beside = Constraints {
            kept: 24,
            ..constraints()
        };
        let error = MemoryPlan::new(regions(&scattered), &Identity, &beside).unwrap_err();
        assert!(error.to_string().contains("besides those of"), "{error}");
    }

    #[test]
    fn memory_below_4g_is_counted_up_to_the_border() {
        let border = (1 << 32) / PAGE;
        let plan = MemoryPlan::new(
            regions(&[extent(0, border - 1), extent(1, border)]),
            &Identity,
            &constraints(),
        )
        .unwrap();
        assert_eq!(plan.regions().len(), 1);
    }

    proptest! {
        /// Identity: every page of the file is at the guest-physical address that is its
        /// host-physical one, exactly once.
        #[test]
        fn every_page_is_where_it_is(frames in prop::collection::btree_set(1000_u64..1200, 1..80)) {
            // Guest page order as a kernel hands pages out: some order, not sorted.
            let mut frames: Vec<u64> = frames.into_iter().collect();
            let half = frames.len() / 2;
            frames.rotate_left(half);
            let extents: Vec<_> = (0..).zip(&frames).map(|(page, frame)| extent(page, *frame)).collect();
            let plan = MemoryPlan::new(regions(&extents), &Identity, &constraints()).unwrap();
            prop_assert_eq!(plan.size(), frames.len() as u64 * PAGE);
            let mut seen = 0;
            for placed in plan.regions() {
                prop_assert_eq!(Some(Hpa(placed.gpa.0)), placed.region.hpa);
                let mut at = placed.gpa.0;
                for part in &placed.region.parts {
                    let mut done = 0;
                    while done < part.end - part.start {
                        let page = usize::try_from((part.start + done) / PAGE).unwrap();
                        prop_assert_eq!(frames[page] * PAGE, at);
                        at += PAGE;
                        done += PAGE;
                        seen += 1;
                    }
                }
                prop_assert_eq!(at, placed.range().end.0);
            }
            prop_assert_eq!(seen, frames.len());
        }
    }

    #[test]
    fn parts_of_the_file_are_whole_however_their_memory_is_scattered() {
        let extent = |offset, hpa, len| Extent {
            offset,
            hpa: Hpa(hpa),
            len,
        };
        let scattered = [
            extent(0, 0x9000, 0x2000),
            extent(0x2000, 0x4000, 0x1000),
            extent(0x5000, 0x5000, 0x1000),
            extent(0x6000, 0x1000, 0x3000),
        ];
        assert_eq!(file_parts(&scattered), [0..0x3000, 0x5000..0x9000]);
        assert_eq!(file_parts(&[]), []);
    }
}
