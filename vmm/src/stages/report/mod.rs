// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a plan reports. The fields, as JSON, are described in docs/guide/plan.md. Their names and
//! meanings do not change unless [`FORMAT`] does.

mod gather;
mod modes;
#[cfg(any(test, feature = "testing"))]
mod sample;

pub(crate) use gather::plan;
#[cfg(any(test, feature = "testing"))]
pub use sample::sample;

use serde::Serialize;

use crate::arch::Overhead;

/// Number of the format.
pub const FORMAT: u32 = 1;

/// A guest's layout. Addresses and lengths are in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// [`FORMAT`].
    pub format: u32,
    /// Guest RAM above the first MiB.
    pub memory: Memory,
    /// Its pieces, ascending: one memslot each.
    pub extents: Vec<Extent>,
    /// What they cost the guest's kernel.
    pub cost: Cost,
    /// What as much memory would cost in one piece.
    pub cost_in_one_extent: Cost,
    /// How pages were chosen, where they were.
    pub choice: Option<Choice>,
    /// KVM's memslots.
    pub memslots: Memslots,
    /// The guest's memory map (E820); empty if the kernel has no place.
    pub memory_map: Vec<AddressMapEntry>,
    /// Where everything else is.
    pub places: Vec<Place>,
    /// The host bridge of the devices, where it translates addresses or DMA bypasses the CPU's caches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_bridge: Option<HostBridge>,
    /// The devices, in the order in which they were named.
    pub devices: Vec<Device>,
    /// What may go wrong.
    pub warnings: Vec<String>,
    /// Why the guest cannot be run, if it cannot.
    pub error: Option<String>,
}

/// What guest RAM is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Bytes.
    pub length: u64,
    /// `identity`: guest-physical addresses are host-physical ones; `packed`: they are not, and the guest's device tree
    /// translates; `conventional`: they are not.
    pub layout: &'static str,
    /// Bytes of a hugepage, if memory is made of them.
    pub hugepage_size: Option<u64>,
    /// Pieces of host-physical memory that are known.
    pub physical_pieces: usize,
}

/// A piece of guest RAM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Extent {
    /// First guest-physical address.
    pub gpa: u64,
    /// First host-physical address, if it is one piece of host-physical memory.
    pub hpa: Option<u64>,
    /// Bytes.
    pub length: u64,
    /// Pieces of the backing file that it is put together of.
    pub file_pieces: usize,
}

/// What a layout costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Pieces of memory.
    pub extents: usize,
    /// Bytes of the largest one.
    pub largest: u64,
    /// Bytes below 4 GiB.
    pub below_4g: u64,
    /// Sections of 128 MiB that have memory, besides the first one.
    pub sections: u64,
    /// Bytes of `struct page`s for these.
    pub memmap: u64,
    /// Bytes of page tables for the guest's direct map.
    pub page_tables: u64,
}

impl From<Overhead> for Cost {
    fn from(overhead: Overhead) -> Self {
        Self {
            extents: overhead.extents,
            largest: overhead.largest,
            below_4g: overhead.below_4g,
            sections: overhead.sections,
            memmap: overhead.memmap(),
            page_tables: overhead.page_tables,
        }
    }
}

/// A choice of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Choice {
    /// Hugepages that were taken to choose from.
    pub pinned: usize,
    /// Those that were kept.
    pub kept: usize,
    /// What the first ones that the pool gave would cost.
    pub naive: Cost,
    /// What the chosen ones cost.
    pub chosen: Cost,
}

/// KVM's memslots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Memslots {
    /// For RAM, low memory among it.
    pub ram: usize,
    /// Kept for mapped BARs, and for doorbells of guarded controllers.
    pub kept_for_bars: usize,
    /// How many there may be.
    pub limit: usize,
}

/// An entry of the memory map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AddressMapEntry {
    /// First address.
    pub start: u64,
    /// Behind the last one.
    pub end: u64,
    /// `ram` or `reserved`.
    pub kind: &'static str,
}

/// Something that has a place in guest-physical address space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// What it is.
    pub name: String,
    /// `boot`, `kernel`, `initramfs`, `bar`, `window` or `platform`.
    pub kind: &'static str,
    /// First address.
    pub start: u64,
    /// Behind the last one.
    pub end: u64,
}

/// What the devices' host bridge does in the guest: the same as on the host, and it translates packed memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostBridge {
    /// Where BARs may be.
    pub windows: Vec<BusRange>,
    /// The guest's memory that devices reach; empty if that is all of it, at the guest's addresses.
    pub memory: Vec<BusRange>,
    /// Whether DMA sees the CPU's caches.
    pub is_coherent: bool,
    /// Bytes of a page of the host kernel's.
    pub host_page_size: u64,
}

/// A range of addresses that the CPU has, and where it is on the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct BusRange {
    /// First address.
    pub start: u64,
    /// Behind the last one.
    pub end: u64,
    /// The first one on the bus.
    pub bus: u64,
}

/// A passed-through device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Device {
    /// Its name.
    pub bdf: String,
    /// The mode that was asked for or taken: one of those in `modes`.
    pub dma: &'static str,
    /// The address bits that its last driver on the host used, 32 if it had none; `None` if the
    /// kernel does not report it.
    pub dma_bits: Option<u32>,
    /// What would be possible.
    pub modes: Vec<Mode>,
}

/// A way of a device to guest memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mode {
    /// `iommu`, `identity`, `translate` or `mediate`.
    pub name: &'static str,
    /// Whether it is there, on this machine and with the guest's other devices.
    pub possible: bool,
    /// Why, or on what condition.
    pub why: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_the_json_is_documented() {
        let value = serde_json::to_value(sample()).unwrap();
        let documented = include_str!("../../../../docs/guide/plan.md");
        let mut names = Vec::new();
        collect(&value, &mut names);
        for name in names {
            assert!(documented.contains(&format!("`{name}`")), "{name}");
        }
        assert!(documented.contains(&format!("| `format` | {FORMAT};")));
    }

    fn collect(value: &serde_json::Value, names: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(fields) => {
                for (name, value) in fields {
                    names.push(name.clone());
                    collect(value, names);
                }
            }
            serde_json::Value::Array(values) => {
                values.iter().for_each(|value| collect(value, names));
            }
            _ => {}
        }
    }
}
