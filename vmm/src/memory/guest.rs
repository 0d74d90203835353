// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Guest RAM in this process and in KVM.

use std::error::Error;
use std::fs::File;
use std::sync::Arc;

use address::Gpa;
use iommufd_backend::{FileRange, Mapping};
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{GuestAddress, GuestMemoryMmap, GuestRegionMmap};

use super::error::LayoutError;
use super::plan::MemoryPlan;
use crate::arch::low;

/// Memory at guest-physical addresses, one memslot, and the mapping behind it.
#[derive(Debug)]
pub struct MappedRegion {
    gpa: Gpa,
    mapping: Arc<Mapping>,
}

impl MappedRegion {
    /// First guest-physical address.
    #[must_use]
    pub fn gpa(&self) -> Gpa {
        self.gpa
    }

    /// The memory in this process.
    #[must_use]
    pub fn mapping(&self) -> Arc<Mapping> {
        Arc::clone(&self.mapping)
    }
}

/// The guest's RAM, mapped; none by default. Dropping it unmaps what no memslot uses any more.
#[derive(Debug, Default)]
pub struct GuestRam {
    // Before `regions`: it points into their mappings.
    memory: GuestMemoryMmap,
    regions: Vec<MappedRegion>,
}

/// A guest's RAM for a thread that may outlive its [`GuestRam`].
#[derive(Debug)]
pub struct SharedRam {
    // Before the mappings: it points into them.
    memory: GuestMemoryMmap,
    _mappings: Vec<Arc<Mapping>>,
}

impl SharedRam {
    /// The guest's memory by guest-physical address.
    #[must_use]
    pub fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }
}

/// The mappings do not make a guest memory.
#[derive(Debug, thiserror::Error)]
#[error("Cannot assemble guest memory of {slots} memslots")]
pub struct GuestRamError {
    /// Memslots in all.
    pub slots: usize,
    /// Why not.
    pub source: Box<dyn Error + Send + Sync>,
}

impl GuestRam {
    /// Maps `low` at guest-physical 0 and the pieces of `ram` as `plan` says; without a file, memory is taken where
    /// `plan` has it. Host virtual addresses are congruent to physical ones, so that KVM can use large pages.
    ///
    /// # Errors
    /// [`LayoutError::Backend`], [`LayoutError::GuestRam`]
    pub fn map(low: &File, ram: Option<&File>, plan: &MemoryPlan) -> Result<Self, LayoutError> {
        let mut regions = Vec::with_capacity(plan.regions().len() + 1);
        let mut mapping = Mapping::reserve(low::SIZE, 0)?;
        mapping.place(0, FileRange::first(low, low::SIZE), "low guest memory")?;
        regions.push(MappedRegion {
            gpa: Gpa(0),
            mapping: Arc::new(mapping),
        });
        for placed in plan.regions() {
            let region = &placed.region;
            let physical = region.hpa.map_or(placed.gpa.0, |hpa| hpa.0);
            let mut mapping = Mapping::reserve(region.len, physical)?;
            match ram {
                Some(ram) => {
                    for part in placed.parts() {
                        let source = FileRange::new(ram, &part.file);
                        mapping.place(part.gpa - placed.gpa, source, "guest memory")?;
                    }
                }
                None => mapping.allocate("guest memory")?,
            }
            regions.push(MappedRegion {
                gpa: placed.gpa,
                mapping: Arc::new(mapping),
            });
        }
        let memory = assemble(&regions)?;
        Ok(Self { memory, regions })
    }

    /// The guest's memory by guest-physical address.
    #[must_use]
    pub fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    /// The guest's memory for a thread of its own, mapped as long as that has it.
    #[must_use]
    pub fn share(&self) -> SharedRam {
        SharedRam {
            memory: self.memory.clone(),
            _mappings: self.regions.iter().map(MappedRegion::mapping).collect(),
        }
    }

    /// All regions, ascending; the first is low memory.
    #[must_use]
    pub fn regions(&self) -> &[MappedRegion] {
        &self.regions
    }
}

fn assemble(regions: &[MappedRegion]) -> Result<GuestMemoryMmap, GuestRamError> {
    let failed = |source: Box<dyn Error + Send + Sync>| GuestRamError {
        slots: regions.len(),
        source,
    };
    let mut mapped = Vec::with_capacity(regions.len());
    for region in regions {
        let len = usize::try_from(region.mapping.len()).map_err(|error| failed(error.into()))?;
        let start =
            usize::try_from(region.mapping.start().0).map_err(|error| failed(error.into()))?;
        // SAFETY: the mapping is `len` bytes of memory, readable and writable, and
        // outlives `memory`: `GuestRam` owns both and drops `memory` first, and only lends it
        // out, but to `SharedRam`, which owns the mapping as well and drops its clone first.
        let memory = unsafe {
            MmapRegionBuilder::new(len)
                .with_raw_mmap_pointer(std::ptr::with_exposed_provenance_mut(start))
        }
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        .with_mmap_flags(libc::MAP_SHARED)
        .build()
        .map_err(|error| failed(error.into()))?;
        let memory = GuestRegionMmap::new(memory, GuestAddress(region.gpa.0))
            .ok_or_else(|| failed("a region wraps the address space".into()))?;
        mapped.push(memory);
    }
    GuestMemoryMmap::from_regions(mapped).map_err(|error| failed(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_that_overlap_are_refused() {
        let region = |gpa| MappedRegion {
            gpa: Gpa(gpa),
            mapping: Arc::new(Mapping::reserve(0x2000, 0).unwrap()),
        };
        assert!(assemble(&[region(0), region(0x2000)]).is_ok());
        for wrong in [[region(0), region(0x1000)], [region(0x2000), region(0)]] {
            let refused = assemble(&wrong);
            assert!(matches!(refused, Err(GuestRamError { slots: 2, .. })));
        }
    }
}
