// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Builds the plan's report from a prepared guest.

use std::ops::Range;

use address::Gpa;
use devices::pci::BusWindow;
use iommufd_backend::host_page_size;

use super::modes::{self, Obstacles};
use super::{
    AddressMapEntry, BusRange, Choice, Cost, Extent, FORMAT, HostBridge, Memory, Memslots, Place,
    Plan,
};
use crate::arch::{MemoryMap, Overhead, layout, low};
use crate::boot::place::Placement;
use crate::bus::address_map::AddressMap;
use crate::error::Error;
use crate::memory::layout::Addressing;
use crate::run::machine_info::in_guest;
use crate::stages::{Planned, kept_slots};

/// What rules modes other than identity out: the bridge does something.
const BY_BRIDGE: &str = "the host bridge translates addresses, or DMA bypasses the CPU's caches";
/// What rules translation out.
const BY_PAGES: &str = "the host kernel's pages have more than 4 KiB";
/// In packed memory they do: drivers get physical addresses from their kernel.
const BY_TREE: &str =
    "the guest's device tree translates addresses for all of its devices (layout=packed)";

/// The plan of `planned`.
pub fn plan(planned: &Planned<'_>) -> Result<Plan, Error> {
    let memory = &planned.layout.memory;
    let config = &planned.guest.config.memory;
    let map = planned.memory_map()?;
    let choice = planned.backing.choice.as_ref().map(|choice| Choice {
        pinned: choice.pinned,
        kept: choice.kept.len(),
        naive: choice.naive.into(),
        chosen: choice.chosen.into(),
    });
    let hugepages = planned.guest.of_hugepages;
    let assigned = &planned.resources.assigned.devices;
    let bus = planned.guest.bus.map.as_ref();
    let bridge = bus.and_then(|map| host_bridge(map, memory.on_bus()));
    let only_identity = match memory.addressing() {
        Addressing::Packed => Some(BY_TREE),
        Addressing::Identity | Addressing::Conventional => bridge.as_ref().map(|_| BY_BRIDGE),
    };
    let obstacles = Obstacles {
        translate: only_identity.or((host_page_size() > 4096).then_some(BY_PAGES)),
        mediate: only_identity,
    };
    let devices = modes::devices(assigned, obstacles)?;
    Ok(Plan {
        format: FORMAT,
        memory: Memory {
            length: memory.size(),
            layout: memory.addressing().into(),
            hugepage_size: hugepages.then(|| config.page_size().bytes()),
            physical_pieces: planned.layout.summary.pieces,
        },
        extents: extents(planned),
        cost: cost(planned),
        cost_in_one_extent: Overhead::of_one_extent(memory.size()).into(),
        choice,
        memslots: Memslots {
            // Low memory, where there is some, has one of its own.
            ram: memory.regions().len() + usize::from(low::SIZE != 0),
            kept_for_bars: kept_slots(assigned, planned.guest.config.cpus.get()),
            limit: planned.vm.most_slots(),
        },
        memory_map: map.as_ref().map(entries).unwrap_or_default(),
        places: places(planned),
        host_bridge: bridge,
        devices,
        warnings: planned.warnings()?,
        error: planned.boot.obstacle(),
    })
}

/// What the layout costs. In packed memory, what is low for devices is not what is low in the guest.
fn cost(planned: &Planned<'_>) -> Cost {
    let memory = &planned.layout.memory;
    let mut cost = Cost::from(Overhead::of(&memory.ranges()));
    if memory.addressing() == Addressing::Packed {
        cost.below_4g = planned.layout.summary.below_4g;
    }
    cost
}

/// The bridge of the bus with `map`, unless it does nothing; devices have memory where `on_bus` says, if it is anywhere
/// else than in the guest.
fn host_bridge(map: &AddressMap, on_bus: &[BusWindow]) -> Option<HostBridge> {
    let windows = map.windows.iter().filter_map(|window| {
        Some(BusRange {
            start: window.start.0,
            end: window.end.0,
            bus: map.bus_windows.to_bus(window.start)?.0,
        })
    });
    let windows: Vec<_> = windows.collect();
    let memory = on_bus.iter().map(|range| BusRange {
        start: range.cpu.start.0,
        end: range.cpu.end.0,
        bus: range.bus.0,
    });
    let memory: Vec<_> = memory.collect();
    let is_moved = windows.iter().any(|window| window.start != window.bus);
    let is_told = is_moved || !memory.is_empty() || !map.is_coherent;
    is_told.then(|| HostBridge {
        windows,
        memory,
        is_coherent: map.is_coherent,
        host_page_size: host_page_size(),
    })
}

fn extents(planned: &Planned<'_>) -> Vec<Extent> {
    let regions = planned.layout.memory.regions().iter();
    regions
        .map(|placed| Extent {
            gpa: placed.gpa.0,
            hpa: placed.region.hpa.map(|hpa| hpa.0),
            length: placed.region.len,
            file_pieces: placed.region.parts.len(),
        })
        .collect()
}

/// Ascending.
fn entries(map: &MemoryMap) -> Vec<AddressMapEntry> {
    let mut entries: Vec<_> = map
        .entries()
        .map(|entry| AddressMapEntry {
            start: entry.range.start.0,
            end: entry.range.end.0,
            kind: entry.kind.name(),
        })
        .collect();
    entries.sort_unstable_by_key(|entry| entry.start);
    entries
}

/// Everything that is not RAM, or lies in it, ascending.
fn places(planned: &Planned<'_>) -> Vec<Place> {
    let mut places = Vec::new();
    let mut add = |name: &str, kind, range: &Range<Gpa>| {
        places.push(Place {
            name: name.to_owned(),
            kind,
            start: range.start.0,
            end: range.end.0,
        });
    };
    for (name, range) in layout::BOOT_DATA {
        add(name, "boot", &range);
    }
    if let Some(Placement { kernel, initramfs }) = planned.boot.placement() {
        add("kernel", "kernel", kernel);
        if let Some(initramfs) = initramfs {
            add("initramfs", "initramfs", initramfs);
        }
    }
    for (name, range) in in_guest(planned.guest.bars.clone()) {
        add(&name, "bar", &range);
    }
    if let Some(bus) = &planned.guest.bus.map {
        for window in &bus.windows {
            add("PCI window", "window", window);
        }
        add("PCI config space", "platform", &bus.ecam);
    }
    let low = Gpa(0)..Gpa(low::SIZE);
    for (name, range) in layout::FIXED.iter().filter(|(_, range)| *range != low) {
        add(name.trim_start_matches("the "), "platform", range);
    }
    places.sort_by(|a, b| (a.start, b.end).cmp(&(b.start, a.end)));
    places
}

#[cfg(test)]
mod tests {
    use address::BusAddr;

    use super::*;

    #[test]
    fn a_bridge_is_told_if_it_does_something() {
        let plain = AddressMap::conventional();
        assert_eq!(host_bridge(&plain, &[]), None);
        let apart = AddressMap {
            is_coherent: false,
            ..plain.clone()
        };
        let told = host_bridge(&apart, &[]).unwrap();
        assert!(!told.is_coherent && told.memory.is_empty());
        let (start, end, bus) = (0x1b_0000_0000, 0x1c_0000_0000, 0);
        let moved = AddressMap {
            windows: vec![Gpa(start)..Gpa(end)],
            bus_windows: [BusWindow {
                cpu: Gpa(start)..Gpa(end),
                bus: BusAddr(bus),
            }]
            .into_iter()
            .collect(),
            ..plain
        };
        let memory = BusWindow {
            cpu: Gpa(0)..Gpa(0x10_0000_0000),
            bus: BusAddr(0x10_0000_0000),
        };
        let told = host_bridge(&moved, &[memory]).unwrap();
        assert_eq!(told.windows, [BusRange { start, end, bus }]);
        let bus = 0x10_0000_0000;
        let (start, end) = (0, bus);
        assert_eq!(told.memory, [BusRange { start, end, bus }]);
    }
}
