// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which addresses Linux finds in the tree for memory and BARs (drivers/of/address.c, drivers/pci/of.c,
//! include/linux/dma-direct.h).

use address::{BusAddr, Hpa};
use devices::pci::{BusWindow, BusWindows};
use host::{BusRange, DmaMap};
use proptest::prelude::*;

use super::*;
use crate::memory::layout::{Identity, Layout, Packed};
use crate::memory::plan::{Constraints, MemoryPlan, Region};

/// An entry of the bridge's `ranges` or `dma-ranges`, whose parent is the root.
#[derive(Clone, Copy, Debug)]
struct Entry {
    space: u32,
    bus: u64,
    cpu: u64,
    len: u64,
}

/// The entries of a property of the bridge (`of_pci_range_parser_init`), in order; `None` without it.
fn entries(tree: &Tree, property: &str) -> Option<Vec<Entry>> {
    let name = format!("/pcie@7000800000 {property}");
    tree.get(&name)?;
    let cells = cells(tree, &name);
    let long = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
    let entry = |cells: &[u32]| Entry {
        space: cells[0] >> 24 & 3,
        bus: long(cells[1], cells[2]),
        cpu: long(cells[3], cells[4]),
        len: long(cells[5], cells[6]),
    };
    assert!(cells.len().is_multiple_of(7));
    Some(cells.chunks_exact(7).map(entry).collect())
}

/// `phys_to_dma` of a device on the bus.
fn phys_to_dma(tree: &Tree, paddr: u64) -> Option<u64> {
    // Without the property the search goes on above, where there is none.
    let Some(map) = entries(tree, "dma-ranges") else {
        return Some(paddr);
    };
    map.iter().find_map(|region| {
        let offset = paddr.wrapping_sub(region.cpu);
        (offset < region.len).then(|| region.bus + offset)
    })
}

/// `pcibios_bus_to_resource`: where a memory BAR is for the CPU.
fn bus_to_cpu(tree: &Tree, bus: u64) -> Option<u64> {
    let windows = entries(tree, "ranges").unwrap();
    let memory = windows.iter().filter(|window| window.space >= 2);
    memory.into_iter().find_map(|window| {
        let offset = bus.wrapping_sub(window.bus);
        (offset < window.len).then(|| window.cpu + offset)
    })
}

fn range(cpu: Range<u64>, bus: u64) -> BusRange {
    BusRange {
        cpu: Hpa(cpu.start)..Hpa(cpu.end),
        bus: BusAddr(bus),
    }
}

/// A machine whose bridge has these windows and this memory, which is at its own addresses.
fn tree_of(windows: &[BusRange], dma: &DmaMap) -> Tree {
    let cpu = |range: &BusRange| Gpa(range.cpu.start.0)..Gpa(range.cpu.end.0);
    let window = |range: &BusRange| BusWindow {
        cpu: cpu(range),
        bus: range.bus,
    };
    let mut platform = platform(1);
    platform.bus = platform.bus.map(|bus| AddressMap {
        windows: windows.iter().map(cpu).collect(),
        bus_windows: windows.iter().map(window).collect(),
        ..bus
    });
    let on_bus = Identity.on_bus(&[], dma);
    let boot = Boot {
        on_bus: &on_bus,
        ..boot(&MEMORY)
    };
    read(&write(&platform, &boot).unwrap())
}

#[test]
fn raspberry_pi_4_has_32_bit_bars_above_4_gib() {
    let windows = [range(0x6_0000_0000..0x6_4000_0000, 0xc000_0000)];
    let dma = DmaMap::Ranges(vec![range(0..0xc000_0000, 0)]);
    let tree = tree_of(&windows, &dma);
    let found = entries(&tree, "ranges").unwrap();
    // Ports come first.
    assert_eq!((found[1].space, found[1].bus), (2, 0xc000_0000));
    assert_eq!(bus_to_cpu(&tree, 0xc010_0000), Some(0x6_0010_0000));
    assert_eq!(phys_to_dma(&tree, 0xbfff_ffff), Some(0xbfff_ffff));
    assert_eq!(phys_to_dma(&tree, 0xc000_0000), None);
}

#[test]
fn raspberry_pi_5_adds_64_gib_to_memory() {
    let windows = [
        range(0x1b_0000_0000..0x1b_ffff_fffc, 0),
        range(0x18_0000_0000..0x1b_0000_0000, 0x4_0000_0000),
    ];
    let dma = DmaMap::Ranges(vec![range(0..0x10_0000_0000, 0x10_0000_0000)]);
    let tree = tree_of(&windows, &dma);
    assert_eq!(bus_to_cpu(&tree, 0x10_0000), Some(0x1b_0010_0000));
    assert_eq!(bus_to_cpu(&tree, 0x4_0000_0000), Some(0x18_0000_0000));
    assert_eq!(phys_to_dma(&tree, 0x4020_0000), Some(0x10_4020_0000));
    let spaces: Vec<_> = entries(&tree, "ranges")
        .unwrap()
        .iter()
        .map(|e| e.space)
        .collect();
    assert_eq!(spaces, [1, 2, 3]);
}

#[test]
fn without_ranges_of_the_host_the_guest_has_none() {
    let tree = tree_of(
        &[range(0x1000_0000..0x2000_0000, 0x1000_0000)],
        &DmaMap::Identity,
    );
    assert!(entries(&tree, "dma-ranges").is_none());
    assert_eq!(phys_to_dma(&tree, 7), Some(7));
}

/// Ranges apart from one another, of pages of 2 MiB, at any place on the bus.
fn ranges() -> impl Strategy<Value = Vec<BusRange>> {
    const PAGE: u64 = 2 << 20;
    let one = (1_u64..2000, 1_u64..2000, 0_u64..1 << 30);
    prop::collection::vec(one, 1..8).prop_map(|parts| {
        let mut at = 0;
        let mut all = Vec::new();
        for (gap, len, bus) in parts {
            let start = at + gap * PAGE;
            at = start + len * PAGE;
            all.push(range(start..at, bus * PAGE));
        }
        all
    })
}

proptest! {
    /// What Linux gives a device for an address of RAM is where that memory is on the host's bus.
    #[test]
    fn linux_finds_memory_where_it_is(ranges in ranges(), offsets in prop::collection::vec(any::<u64>(), 8)) {
        let dma = DmaMap::Ranges(ranges.clone());
        let tree = tree_of(&[], &dma);
        let end = ranges.last().unwrap().cpu.end.0;
        for offset in offsets {
            let at = offset % (end + (1 << 30));
            let found = phys_to_dma(&tree, at).map(BusAddr);
            prop_assert_eq!(found, dma.to_bus(Hpa(at)));
        }
    }

    /// What Linux gives a device for an address of packed RAM is where that memory is on the host's bus, and no other
    /// address has one.
    #[test]
    fn linux_finds_packed_memory_where_it_is(
        pieces in ranges(),
        offset in 0_u64..64,
        at in prop::collection::vec(any::<u64>(), 8),
    ) {
        let regions = pieces.iter().map(|piece| Region {
            hpa: Some(piece.cpu.start),
            ..Region::of_file(piece.cpu.end - piece.cpu.start)
        });
        let end = pieces.last().unwrap().cpu.end;
        let constraints = Constraints {
            taken: Vec::new(),
            address_bits: 40,
            slots: 100,
            kept: 0,
            dma: DmaMap::Ranges(vec![range(0..end.0, offset << 30)]),
        };
        let plan = MemoryPlan::new(regions.collect(), &Packed, &constraints).unwrap();
        let memory = plan.ranges();
        let boot = Boot {
            on_bus: plan.on_bus(),
            ..boot(&memory)
        };
        let tree = read(&write(&platform(1), &boot).unwrap());
        for at in at {
            for placed in plan.regions() {
                let at = at % placed.region.len;
                let found = phys_to_dma(&tree, placed.gpa.0 + at).map(BusAddr);
                prop_assert_eq!(found, constraints.dma.to_bus(placed.region.hpa.unwrap() + at));
                prop_assert_eq!(phys_to_dma(&tree, placed.range().end.0 + at % (2 << 20)), None);
            }
        }
    }

    /// What Linux finds for the address in a BAR is where the monitor maps that.
    #[test]
    fn linux_finds_bars_where_they_are(windows in ranges(), at in any::<u64>()) {
        let tree = tree_of(&windows, &DmaMap::Identity);
        let window = &windows[usize::try_from(at % windows.len() as u64).unwrap()];
        let len = window.cpu.end - window.cpu.start;
        let bus = window.bus + at % len;
        let map: BusWindows = windows
            .iter()
            .map(|range| BusWindow {
                cpu: Gpa(range.cpu.start.0)..Gpa(range.cpu.end.0),
                bus: range.bus,
            })
            .collect();
        prop_assert_eq!(bus_to_cpu(&tree, bus.0).map(Gpa), map.to_gpa(bus));
    }
}
