// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The PCI bus (bindings/pci/host-generic-pci.yaml; Open Firmware, PCI Bus Binding 2.1).

use std::ops::Range;

use address::Gpa;
use devices::pci::{BusWindow, Pin};
use vm_fdt::{Error, FdtWriter};

use super::{GIC, HIGH, MESSAGES, SHARED, name, reg};
use crate::arch::aarch64::gic_version::GicVersion;
use crate::arch::aarch64::layout::{INTX_GSIS, PORTS};
use crate::bus::address_map::AddressMap;
use crate::halves;

/// First cell of an address on the bus: which space it is in (PCI Bus Binding, section 2.2.1.1).
const SPACE_PORTS: u32 = 1 << 24;
const SPACE_MEMORY_32: u32 = 2 << 24;
const SPACE_MEMORY_64: u32 = 3 << 24;
/// Addresses of 32 bits end here.
const LIMIT_4G: u64 = 1 << 32;

/// Where the number of a device is in the first cell.
const DEVICE_SHIFT: u32 = 11;
/// Devices after which the order of their interrupts repeats.
const SWIZZLE: u8 = 4;
/// Requester ids of a bus and all behind it.
const REQUESTERS: u32 = 0x1_0000;

/// Writes the root bridge, behind which devices have RAM where `on_bus` says.
pub(super) fn write(
    fdt: &mut FdtWriter,
    map: &AddressMap,
    on_bus: &[BusWindow],
    gic: GicVersion,
) -> Result<(), Error> {
    let node = fdt.begin_node(&name("pcie", &map.ecam))?;
    fdt.property_string("compatible", "pci-host-ecam-generic")?;
    fdt.property_string("device_type", "pci")?;
    fdt.property_array_u64("reg", &reg(&map.ecam))?;
    fdt.property_array_u32("bus-range", &[0, 0])?;
    fdt.property_u32("linux,pci-domain", 0)?;
    fdt.property_u32("#address-cells", 3)?;
    fdt.property_u32("#size-cells", 2)?;
    fdt.property_array_u32("ranges", &ranges(map))?;
    let memory = dma_ranges(on_bus);
    if !memory.is_empty() {
        fdt.property_array_u32("dma-ranges", &memory)?;
    }
    fdt.property_u32("#interrupt-cells", 1)?;
    let mask = u32::from(SWIZZLE - 1) << DEVICE_SHIFT;
    fdt.property_array_u32("interrupt-map-mask", &[mask, 0, 0, 7])?;
    fdt.property_array_u32("interrupt-map", &interrupts())?;
    match gic {
        // The id that the ITS is given is the requester id.
        GicVersion::V3 => fdt.property_array_u32("msi-map", &[0, MESSAGES, 0, REQUESTERS])?,
        GicVersion::V2 => fdt.property_u32("msi-parent", MESSAGES)?,
    }
    if map.is_coherent {
        fdt.property_null("dma-coherent")?;
    }
    fdt.end_node(node)
}

/// What the bridge decodes: address on the bus, address of the CPU's, length.
fn ranges(map: &AddressMap) -> Vec<u32> {
    let mut cells = range(SPACE_PORTS, 0, &PORTS).to_vec();
    for window in &map.windows {
        // Each is a part of a window of the host's.
        let Some(bus) = map.bus_windows.to_bus(window.start) else {
            continue;
        };
        let end = bus.0.saturating_add(window.end - window.start);
        let space = match end <= LIMIT_4G {
            true => SPACE_MEMORY_32,
            false => SPACE_MEMORY_64,
        };
        cells.extend(range(space, bus.0, window));
    }
    cells
}

/// Where RAM is for devices.
fn dma_ranges(on_bus: &[BusWindow]) -> Vec<u32> {
    let cells = on_bus
        .iter()
        .flat_map(|memory| range(SPACE_MEMORY_64, memory.bus.0, &memory.cpu));
    cells.collect()
}

fn range(space: u32, bus: u64, cpu: &Range<Gpa>) -> [u32; 7] {
    let (bus_low, bus_high) = halves(bus);
    let (cpu_low, cpu_high) = halves(cpu.start.0);
    let (len_low, len_high) = halves(cpu.end - cpu.start);
    [
        space, bus_high, bus_low, cpu_high, cpu_low, len_high, len_low,
    ]
}

/// Which interrupt each pin of each device raises: address on the bus and pin, controller, address in it and
/// specifier.
fn interrupts() -> Vec<u32> {
    let mut cells = Vec::new();
    for device in 0..SWIZZLE {
        for pin in Pin::ALL {
            let gsi = INTX_GSIS[usize::from(pin.line(device))];
            let address = u32::from(device) << DEVICE_SHIFT;
            cells.extend([address, 0, 0, pin.register().into()]);
            cells.extend([GIC, 0, 0, SHARED, gsi, HIGH]);
        }
    }
    cells
}
