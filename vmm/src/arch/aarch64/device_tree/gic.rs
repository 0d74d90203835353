// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The interrupt controllers (bindings/interrupt-controller/arm,gic-v3.yaml and arm,gic.yaml).

use std::ops::Range;

use address::Gpa;
use vm_fdt::{Error, FdtWriter};

use super::{GIC, MESSAGES, Platform, name, reg};
use crate::arch::aarch64::gic_version::GicVersion;
use crate::arch::aarch64::{layout, v2m};

/// Where the CPUs of an interrupt of each CPU's own are in its flags, for a GICv2.
const CPUS_SHIFT: u32 = 8;

/// Flags of an interrupt of each CPU's own, besides how it is triggered: with a GICv2, the CPUs.
pub(super) fn private(platform: &Platform) -> u32 {
    match platform.gic {
        GicVersion::V3 => 0,
        GicVersion::V2 => ((1 << platform.cpus.min(8)) - 1) << CPUS_SHIFT,
    }
}

/// Writes the GIC and, in it, what receives messages.
pub(super) fn write(fdt: &mut FdtWriter, version: GicVersion) -> Result<(), Error> {
    let (compatible, second) = match version {
        GicVersion::V2 => ("arm,gic-400", layout::GIC_CPU_INTERFACE),
        GicVersion::V3 => ("arm,gic-v3", layout::GIC_REDISTRIBUTORS),
    };
    let distributor = distributor(version);
    let node = fdt.begin_node(&name("interrupt-controller", &distributor))?;
    fdt.property_string("compatible", compatible)?;
    fdt.property_u32("#interrupt-cells", 3)?;
    fdt.property_null("interrupt-controller")?;
    fdt.property_u32("#address-cells", 2)?;
    fdt.property_u32("#size-cells", 2)?;
    fdt.property_null("ranges")?;
    let registers = [distributor, second].map(|range| reg(&range));
    fdt.property_array_u64("reg", registers.as_flattened())?;
    fdt.property_phandle(GIC)?;
    match version {
        GicVersion::V2 => frame(fdt)?,
        GicVersion::V3 => its(fdt)?,
    }
    fdt.end_node(node)
}

/// The registers of a GICv2's are fewer.
fn distributor(version: GicVersion) -> Range<Gpa> {
    let all = layout::GIC_DISTRIBUTOR;
    match version {
        GicVersion::V2 => all.start..all.start + 0x1000,
        GicVersion::V3 => all,
    }
}

fn its(fdt: &mut FdtWriter) -> Result<(), Error> {
    let node = fdt.begin_node(&name("msi-controller", &layout::ITS))?;
    fdt.property_string("compatible", "arm,gic-v3-its")?;
    fdt.property_null("msi-controller")?;
    fdt.property_u32("#msi-cells", 1)?;
    fdt.property_array_u64("reg", &reg(&layout::ITS))?;
    fdt.property_phandle(MESSAGES)?;
    fdt.end_node(node)
}

/// The frame of GICv2m. Which interrupts it has is in its registers, too.
fn frame(fdt: &mut FdtWriter) -> Result<(), Error> {
    let node = fdt.begin_node(&name("v2m", &layout::MESSAGE_FRAME))?;
    fdt.property_string("compatible", "arm,gic-v2m-frame")?;
    fdt.property_null("msi-controller")?;
    fdt.property_array_u64("reg", &reg(&layout::MESSAGE_FRAME))?;
    fdt.property_u32("arm,msi-base-spi", v2m::FIRST)?;
    fdt.property_u32("arm,msi-num-spis", layout::MESSAGE_SPIS)?;
    fdt.property_phandle(MESSAGES)?;
    fdt.end_node(node)
}
