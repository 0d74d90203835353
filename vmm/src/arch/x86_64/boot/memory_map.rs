// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The memory map of a guest, and warnings about it.

use address::Gpa;

use super::low_memory::LowMemoryUse;
use crate::arch::x86_64::e820::{ENTRIES_WITHOUT_NUMA, Entry, Kind, MemoryMap, SAFE_EXTENTS};
use crate::arch::x86_64::low;
use crate::bus::address_map::AddressMap;
use crate::memory::plan::{MemoryPlan, PlanError};

/// The memory map of a guest with its kernel at `kernel`, this use of low memory, and a PCI bus if there is one.
pub(crate) fn memory_map(
    plan: &MemoryPlan,
    bus: Option<&AddressMap>,
    kernel: Gpa,
    low: LowMemoryUse,
) -> Result<MemoryMap, PlanError> {
    let mut fixed = low::memory_map(low.kind).to_vec();
    fixed.extend(bus.map(|bus| Entry {
        range: bus.ecam.clone(),
        kind: Kind::Reserved,
    }));
    MemoryMap::new(plan, fixed, kernel)
}

/// What may come of memory in as many pieces as `plan` has, which `map` describes, whatever the kernel lists.
pub(crate) fn warnings(plan: &MemoryPlan, map: &MemoryMap, _: usize) -> Vec<String> {
    let mut warnings = Vec::new();
    if map.len() > ENTRIES_WITHOUT_NUMA {
        warnings.push(format!(
            "The guest's memory map has {} entries; a kernel built without NUMA uses only {} of \
             them",
            map.len(),
            ENTRIES_WITHOUT_NUMA
        ));
    }
    let pieces = plan.regions().len();
    if pieces > SAFE_EXTENTS {
        warnings.push(format!(
            "Guest memory is in {pieces} pieces, more than the {SAFE_EXTENTS} that are safe: a \
             device of a Linux guest may access the host's memory below 1 MiB"
        ));
    }
    warnings
}
