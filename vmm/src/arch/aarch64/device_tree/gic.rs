// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The interrupt controllers.

use vm_fdt::{Error, FdtWriter};

use super::{GIC, ITS, name, reg};
use crate::arch::aarch64::layout;

/// Writes the GIC and, in it, its ITS.
pub(super) fn write(fdt: &mut FdtWriter) -> Result<(), Error> {
    let node = fdt.begin_node(&name("interrupt-controller", &layout::GIC_DISTRIBUTOR))?;
    fdt.property_string("compatible", "arm,gic-v3")?;
    fdt.property_u32("#interrupt-cells", 3)?;
    fdt.property_null("interrupt-controller")?;
    fdt.property_u32("#address-cells", 2)?;
    fdt.property_u32("#size-cells", 2)?;
    fdt.property_null("ranges")?;
    let registers = [layout::GIC_DISTRIBUTOR, layout::GIC_REDISTRIBUTORS].map(|range| reg(&range));
    fdt.property_array_u64("reg", registers.as_flattened())?;
    fdt.property_phandle(GIC)?;
    its(fdt)?;
    fdt.end_node(node)
}

fn its(fdt: &mut FdtWriter) -> Result<(), Error> {
    let node = fdt.begin_node(&name("msi-controller", &layout::ITS))?;
    fdt.property_string("compatible", "arm,gic-v3-its")?;
    fdt.property_null("msi-controller")?;
    fdt.property_u32("#msi-cells", 1)?;
    fdt.property_array_u64("reg", &reg(&layout::ITS))?;
    fdt.property_phandle(ITS)?;
    fdt.end_node(node)
}
