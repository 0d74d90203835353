// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The sixth stage: guest memory is mapped for devices behind an IOMMU, in this process and in KVM.

use std::fs::File;
use std::sync::Arc;

use address::Iova;
use iommufd_backend::{Error as Backend, FileRange, IommuSpace};

use super::inspect::Guest;
use super::plan::{GuestLayout, Planned};
use crate::arch::low;
use crate::boot::place::Placement;
use crate::error::Error;
use crate::error::explain::process;
use crate::kvm::vm::Vm;
use crate::memory::backing;
use crate::memory::guest::GuestRam;
use crate::memory::moved;
use crate::memory::plan::MemoryPlan;
use crate::teardown::Resources;

/// A guest with memory where it expects it.
#[derive(Debug)]
pub(crate) struct Mapped<'a> {
    pub(super) guest: Guest<'a>,
    pub(super) vm: Arc<Vm>,
    pub(super) resources: Resources,
    pub(super) layout: GuestLayout,
    pub(super) placement: Placement,
}

impl<'a> Planned<'a> {
    /// Maps memory, unless the guest cannot be booted in it.
    pub fn map(self) -> Result<Mapped<'a>, Error> {
        let Self {
            guest,
            vm,
            mut resources,
            backing,
            layout,
            boot,
        } = self;
        let placement = boot.bootable()?;
        if let (Some(space), Some(file)) = (resources.assigned.spaces.iommu(), &backing.file) {
            let size = guest.config.memory.size;
            map_for_devices(space, file, &layout.memory).map_err(backing::of_all(size))?;
        }
        let low = low::allocate().map_err(process("allocate low guest memory"))?;
        resources.page_size = backing.page_size;
        resources.ram = GuestRam::map(low.as_ref(), backing.file.as_ref(), &layout.memory)?;
        if resources.assigned.spaces.addresses().is_some() {
            resources.pagemap = moved::pagemap();
        }
        for region in resources.ram.regions() {
            let memslot = vm.map(region.gpa(), region.mapping())?;
            resources.memslots.push(memslot);
        }
        Ok(Mapped {
            guest,
            vm,
            resources,
            layout,
            placement,
        })
    }
}

/// Lets devices behind an IOMMU address guest memory by guest-physical addresses. Low memory is not for DMA.
fn map_for_devices(space: &IommuSpace, file: &File, plan: &MemoryPlan) -> Result<(), Backend> {
    for placed in plan.parts() {
        space.map(Iova(placed.gpa.0), FileRange::new(file, &placed.file))?;
    }
    Ok(())
}
