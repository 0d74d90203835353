// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A plan for tests.

use std::ops::Range;

use address::Gpa;

use super::{
    AddressMapEntry, BusRange, Choice, Device, Extent, FORMAT, HostBridge, Memory, Memslots, Mode,
    Place, Plan,
};
use crate::arch::Overhead;

/// A guest on scattered memory: a block of 128 MiB, and 40 singles.
pub fn sample() -> Plan {
    let block = Gpa(0x1_0800_0000)..Gpa(0x1_1000_0000);
    let single = |number: u64| Gpa(0x1_2000_0000 + number * 0x60_0000);
    let singles = (0..40).map(|number| single(number)..single(number) + (2 << 20));
    let ranges: Vec<Range<Gpa>> = [block].into_iter().chain(singles).collect();
    let cost = Overhead::of(&ranges);
    let length = ranges.iter().map(|range| range.end - range.start).sum();
    let naive = Overhead {
        extents: 97,
        sections: 21,
        ..cost
    };
    let extent = |range: &Range<Gpa>| Extent {
        gpa: range.start.0,
        hpa: Some(range.start.0),
        length: range.end - range.start,
        file_pieces: 1,
    };
    Plan {
        format: FORMAT,
        memory: Memory {
            length,
            layout: "identity",
            hugepage_size: Some(2 << 20),
            physical_pieces: ranges.len(),
        },
        extents: ranges.iter().map(extent).collect(),
        cost: cost.into(),
        cost_in_one_extent: Overhead::of_one_extent(length).into(),
        choice: Some(Choice {
            pinned: 150,
            kept: 104,
            naive: naive.into(),
            chosen: cost.into(),
        }),
        memslots: Memslots {
            ram: ranges.len() + 1,
            kept_for_bars: 12,
            limit: 32764,
        },
        memory_map: vec![AddressMapEntry {
            start: 0,
            end: 0xa_0000,
            kind: "ram",
        }],
        places: places(),
        host_bridge: Some(HostBridge {
            windows: vec![BusRange {
                start: 0x6_0000_0000,
                end: 0x6_4000_0000,
                bus: 0xc000_0000,
            }],
            memory: vec![BusRange {
                start: 0,
                end: 0xc000_0000,
                bus: 0,
            }],
            is_coherent: false,
            host_page_size: 4096,
        }),
        devices: vec![device()],
        warnings: vec!["one".to_owned()],
        error: None,
    }
}

fn places() -> Vec<Place> {
    let place = |name: &str, kind, start, end| Place {
        name: name.to_owned(),
        kind,
        start,
        end,
    };
    vec![
        place("zero page", "boot", 0x7000, 0x8000),
        place("PCI window", "window", 0x8000_0000, 0xb000_0000),
        place("PCI config space", "platform", 0xb000_0000, 0xb010_0000),
        place("PCI window", "window", 0xc000_0000, 0xfec0_0000),
        place("0000:01:00.0 BAR0", "bar", 0xfe80_0000, 0xfe80_4000),
        place("I/O APIC", "platform", 0xfec0_0000, 0xfec0_1000),
        place("kernel", "kernel", 0x1_0800_0000, 0x1_0c00_0000),
        place("initramfs", "initramfs", 0x1_0fc0_0000, 0x1_1000_0000),
        place("PCI window", "window", 0xc0_0000_0000, 0xc8_0000_0000),
    ]
}

fn device() -> Device {
    Device {
        bdf: "0000:01:00.0".to_owned(),
        dma: "identity",
        dma_bits: Some(32),
        modes: vec![Mode {
            name: "iommu",
            possible: false,
            why: "there is none".to_owned(),
        }],
    }
}
