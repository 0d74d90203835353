// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Addresses on a PCI bus and the CPU's for the same: BARs, and memory that devices access.

use std::ops::Range;

use address::{BusAddr, Hpa};

/// A range of the CPU's addresses, and where it is on the bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BusRange {
    /// The CPU's addresses.
    pub cpu: Range<Hpa>,
    /// The first of them on the bus.
    pub bus: BusAddr,
}

impl BusRange {
    /// `BusAddr - Hpa`, modulo 2^64, as [`BusAddr::with_offset`] takes it.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.bus.0.wrapping_sub(self.cpu.start.0)
    }

    fn overlaps(&self, ram: &Range<Hpa>) -> bool {
        self.cpu.start < ram.end && ram.start < self.cpu.end
    }

    /// The addresses on the bus.
    #[must_use]
    pub fn on_bus(&self) -> Range<BusAddr> {
        let len = self.cpu.end - self.cpu.start;
        self.bus..BusAddr(self.bus.0.saturating_add(len))
    }
}

/// The address on the bus of `cpu`, by the window that has it; the same if none does.
#[cfg(any(target_arch = "aarch64", test))]
pub(crate) fn on_bus(windows: &[BusRange], cpu: Hpa) -> BusAddr {
    let window = windows.iter().find(|window| window.cpu.contains(&cpu));
    BusAddr::with_offset(cpu, window.map_or(0, BusRange::offset))
}

/// Which memory devices on a bus access, and where it is on their bus.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DmaMap {
    /// All memory, at the CPU's addresses.
    #[default]
    Identity,
    /// Memory in these ranges and no other.
    Ranges(Vec<BusRange>),
}

impl DmaMap {
    /// The map of `ranges`, as far as there is memory, on a machine with memory at `ram`. Other ranges are for registers,
    /// such as that of Raspberry Pi 5 for the receiver of messages.
    pub(crate) fn new(mut ranges: Vec<BusRange>, ram: &[Range<Hpa>]) -> Self {
        // Without a map of memory all count.
        ranges.retain(|range| ram.is_empty() || ram.iter().any(|ram| range.overlaps(ram)));
        let is_unmoved = ranges.iter().all(|range| range.offset() == 0);
        match is_unmoved && ram.iter().all(|ram| covers(&ranges, ram)) {
            true => Self::Identity,
            false => Self::Ranges(ranges),
        }
    }

    /// The ranges; none if all memory is at the CPU's addresses.
    #[must_use]
    pub fn ranges(&self) -> &[BusRange] {
        match self {
            Self::Identity => &[],
            Self::Ranges(ranges) => ranges,
        }
    }

    /// Where `hpa` is on the bus, by the first range that has it (Linux, include/linux/dma-direct.h,
    /// `translate_phys_to_dma`); `None` if devices do not reach it.
    #[must_use]
    pub fn to_bus(&self, hpa: Hpa) -> Option<BusAddr> {
        match self {
            Self::Identity => Some(BusAddr::identity(hpa)),
            Self::Ranges(ranges) => {
                let range = ranges.iter().find(|range| range.cpu.contains(&hpa))?;
                Some(BusAddr::with_offset(hpa, range.offset()))
            }
        }
    }

    /// Where memory that ends at `end` ends on the bus.
    #[must_use]
    pub fn end_of(&self, end: Hpa) -> BusAddr {
        match self {
            Self::Identity => BusAddr::identity(end),
            Self::Ranges(ranges) => {
                let inside = ranges.iter().filter(|range| range.cpu.start < end);
                let ends = inside
                    .map(|range| BusAddr::with_offset(range.cpu.end.min(end), range.offset()));
                ends.max().unwrap_or_default()
            }
        }
    }

    /// Whether some memory has another address on the bus than for the CPU.
    #[must_use]
    pub fn is_moved(&self) -> bool {
        self.ranges().iter().any(|range| range.offset() != 0)
    }

    /// Whether devices reach all of `memory`.
    #[must_use]
    pub fn reaches(&self, memory: &Range<Hpa>) -> bool {
        match self {
            Self::Identity => true,
            Self::Ranges(ranges) => covers(ranges, memory),
        }
    }

    /// An address of `ram` at which the offset changes: what is contiguous for the CPU is not on the bus.
    pub(crate) fn seam(&self, ram: &[Range<Hpa>]) -> Option<Hpa> {
        let starts = self.ranges().iter();
        let edges = starts.flat_map(|range| [range.cpu.start, range.cpu.end]);
        let mut inside = edges.filter(|edge| {
            let is_inside = |ram: &Range<Hpa>| ram.start < *edge && *edge < ram.end;
            ram.iter().any(is_inside)
        });
        inside.find(|edge| match (self.to_bus(*edge - 1), self.to_bus(*edge)) {
            (Some(before), Some(after)) => before.checked_add(1) != Some(after),
            _ => false,
        })
    }
}

/// Whether `ranges` together have all of `wanted`.
fn covers(ranges: &[BusRange], wanted: &Range<Hpa>) -> bool {
    let mut at = wanted.start;
    while at < wanted.end {
        match ranges.iter().find(|range| range.cpu.contains(&at)) {
            Some(range) => at = range.cpu.end,
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn range(cpu: Range<u64>, bus: u64) -> BusRange {
        BusRange {
            cpu: Hpa(cpu.start)..Hpa(cpu.end),
            bus: BusAddr(bus),
        }
    }

    #[test]
    fn memory_is_where_its_range_puts_it_and_nowhere_else() {
        let map = DmaMap::new(
            vec![range(0..64 * GIB, 64 * GIB)],
            std::slice::from_ref(&(Hpa(0)..Hpa(8 * GIB))),
        );
        assert_eq!(map.to_bus(Hpa(GIB)), Some(BusAddr(65 * GIB)));
        assert_eq!(map.to_bus(Hpa(64 * GIB)), None);
        assert_eq!(map.end_of(Hpa(8 * GIB)), BusAddr(72 * GIB));
        assert_eq!(map.end_of(Hpa(80 * GIB)), BusAddr(128 * GIB));
        assert_eq!(DmaMap::Identity.end_of(Hpa(8)), BusAddr(8));
        assert!(map.is_moved() && !DmaMap::Identity.is_moved());
        assert!(map.reaches(&(Hpa(0)..Hpa(64 * GIB))));
        assert!(!map.reaches(&(Hpa(63 * GIB)..Hpa(64 * GIB + 1))));
        assert_eq!(DmaMap::Identity.to_bus(Hpa(7)), Some(BusAddr(7)));
        assert!(DmaMap::Identity.reaches(&(Hpa(0)..Hpa(u64::MAX))));
    }

    #[test]
    fn a_bar_is_where_its_window_puts_it() {
        let windows = [range(24 * GIB..25 * GIB, 3 * GIB)];
        assert_eq!(on_bus(&windows, Hpa(24 * GIB + 7)), BusAddr(3 * GIB + 7));
        assert_eq!(on_bus(&windows, Hpa(25 * GIB)), BusAddr(25 * GIB));
    }

    #[test]
    fn ranges_that_change_nothing_for_memory_are_the_identity() {
        let ram = [Hpa(GIB)..Hpa(3 * GIB)];
        let halves = vec![range(0..2 * GIB, 0), range(2 * GIB..4 * GIB, 2 * GIB)];
        assert_eq!(DmaMap::new(halves.clone(), &ram), DmaMap::Identity);
        // Where there is no memory, an offset changes nothing.
        let registers = [&halves[..], &[range(8 * GIB..9 * GIB, 0)]].concat();
        assert_eq!(DmaMap::new(registers, &ram), DmaMap::Identity);
        let short = vec![halves[0].clone()];
        assert_eq!(DmaMap::new(short.clone(), &ram), DmaMap::Ranges(short));
        let moved = vec![halves[0].clone(), range(2 * GIB..4 * GIB, 0)];
        assert_eq!(DmaMap::new(moved.clone(), &ram), DmaMap::Ranges(moved));
    }

    #[test]
    fn a_change_of_the_offset_is_found_where_memory_is() {
        let map = DmaMap::Ranges(vec![range(0..GIB, GIB), range(GIB..2 * GIB, 8 * GIB)]);
        assert_eq!(map.seam(&[Hpa(0)..Hpa(2 * GIB)]), Some(Hpa(GIB)));
        assert_eq!(map.seam(&[Hpa(0)..Hpa(GIB), Hpa(GIB)..Hpa(2 * GIB)]), None);
        let even = DmaMap::Ranges(vec![range(0..GIB, GIB), range(GIB..2 * GIB, 2 * GIB)]);
        assert_eq!(even.seam(&[Hpa(0)..Hpa(2 * GIB)]), None);
        assert_eq!(DmaMap::Identity.seam(&[Hpa(0)..Hpa(2 * GIB)]), None);
    }
}
