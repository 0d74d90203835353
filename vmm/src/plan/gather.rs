//! From a guest that is prepared to what is told of it.

use std::ops::Range;

use address::Gpa;

use super::modes;
use super::report::{AddressMapEntry, Choice, Extent, FORMAT, Memory, Memslots, Place, Plan};
use crate::acpi::{IO_APIC, LOCAL_APIC};
use crate::boot::place::Placement;
use crate::builder::{Prepared, SLOTS_PER_DEVICE, memory_map};
use crate::config::Config;
use crate::description::in_guest;
use crate::error::Error;
use crate::kvm::vm::Vm;
use crate::memory::e820::{Kind, MemoryMap};
use crate::memory::low;
use crate::memory::overhead::Overhead;

/// The plan of `prepared`.
pub fn plan(config: &Config, prepared: &Prepared) -> Result<Plan, Error> {
    let memory = &prepared.memory;
    let identity = prepared.devices.need_identity();
    let mut map = Vec::new();
    if let Ok(placement) = &prepared.placement {
        let start = placement.kernel.start;
        let found = memory_map(&memory.plan, &prepared.host_map, (start, prepared.low))?;
        map = entries(&found);
    }
    let choice = memory.choice.as_ref().map(|choice| Choice {
        pinned: choice.pinned,
        kept: choice.kept.len(),
        naive: choice.naive.into(),
        chosen: choice.chosen.into(),
    });
    let hugepages = identity || config.memory.hugepage_size.is_some();
    let devices = modes::devices(&prepared.devices)?;
    Ok(Plan {
        format: FORMAT,
        memory: Memory {
            length: memory.plan.size(),
            layout: if identity { "identity" } else { "conventional" },
            hugepage_size: hugepages.then(|| config.memory.page_size().bytes()),
            physical_pieces: memory.summary.pieces,
        },
        extents: extents(prepared),
        cost: Overhead::of(&memory.plan.ranges()).into(),
        cost_in_one_extent: Overhead::of_one_extent(memory.plan.size()).into(),
        choice,
        memslots: Memslots {
            ram: memory.slots.len(),
            kept_for_bars: devices.len() * SLOTS_PER_DEVICE,
            limit: prepared.vm.most_slots(),
        },
        memory_map: map,
        places: places(prepared),
        devices,
        warnings: prepared.warnings(&config.command_line)?,
        error: prepared.obstacle().map(Error::chain),
    })
}

fn extents(prepared: &Prepared) -> Vec<Extent> {
    let slots = prepared.memory.plan.slots().iter();
    slots
        .map(|slot| Extent {
            gpa: slot.gpa.0,
            hpa: slot.run.hpa.map(|hpa| hpa.0),
            length: slot.run.length,
            file_pieces: slot.run.pieces.len(),
        })
        .collect()
}

/// Ascending.
fn entries(map: &MemoryMap) -> Vec<AddressMapEntry> {
    let all = map.first.iter().chain(&map.more);
    let mut entries: Vec<_> = all
        .map(|entry| AddressMapEntry {
            start: entry.range.start.0,
            end: entry.range.end.0,
            kind: match entry.kind {
                Kind::Ram => "ram",
                Kind::Reserved => "reserved",
            },
        })
        .collect();
    entries.sort_unstable_by_key(|entry| entry.start);
    entries
}

/// Everything that is not RAM, or lies in it, ascending.
fn places(prepared: &Prepared) -> Vec<Place> {
    let mut places = Vec::new();
    let mut add = |name: &str, kind, range: &Range<Gpa>| {
        places.push(Place {
            name: name.to_owned(),
            kind,
            start: range.start.0,
            end: range.end.0,
        });
    };
    for (name, range) in [
        ("zero page", low::ZERO_PAGE..low::PAGE_TABLES.start),
        ("page tables", low::PAGE_TABLES),
        ("command line", low::COMMAND_LINE),
        ("setup_data", low::SETUP_DATA),
        ("ACPI tables", low::ACPI),
    ] {
        add(name, "boot", &range);
    }
    if let Ok(Placement { kernel, initramfs }) = &prepared.placement {
        add("kernel", "kernel", kernel);
        if let Some(initramfs) = initramfs {
            add("initramfs", "initramfs", initramfs);
        }
    }
    for (name, range) in in_guest(prepared.devices.bars()) {
        add(&name, "bar", &range);
    }
    for window in &prepared.host_map.windows {
        add("PCI window", "window", window);
    }
    for (name, range) in [
        ("PCI config space", prepared.host_map.ecam.clone()),
        ("I/O APIC", IO_APIC),
        ("local APICs", LOCAL_APIC),
        ("KVM's own pages", Vm::reserved()),
    ] {
        add(name, "platform", &range);
    }
    places.sort_by(|a, b| (a.start, b.end).cmp(&(b.start, a.end)));
    places
}
