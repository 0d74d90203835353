// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Guest RAM in this process and in KVM.

use std::error::Error;
use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;

use address::Gpa;
use iommufd_backend::{FileRange, Mapping};
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{GuestAddress, GuestMemoryMmap, GuestRegionMmap};

use super::error::LayoutError;
use super::plan::MemoryPlan;
use crate::arch::low;

/// One memslot: a range of guest-physical addresses and the mapping behind it.
#[derive(Debug)]
pub struct Slot {
    gpa: Gpa,
    mapping: Arc<Mapping>,
}

impl Slot {
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
    // Before `slots`: it points into their mappings.
    memory: GuestMemoryMmap,
    slots: Vec<Slot>,
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
    /// Maps `low` at guest-physical 0 and the pieces of `ram` as `plan` says. Host virtual
    /// addresses are congruent to physical ones, so that KVM can use large pages.
    ///
    /// # Errors
    /// [`LayoutError::Backend`], [`LayoutError::GuestRam`]
    pub fn map(low: &File, ram: &File, plan: &MemoryPlan) -> Result<Self, LayoutError> {
        let mut slots = Vec::with_capacity(plan.slots().len() + 1);
        let mut mapping = Mapping::reserve(low::SIZE, 0)?;
        mapping.place(0, FileRange::first(low, low::SIZE), "low guest memory")?;
        slots.push(Slot {
            gpa: Gpa(0),
            mapping: Arc::new(mapping),
        });
        for slot in plan.slots() {
            let run = &slot.run;
            let mut mapping =
                Mapping::reserve(run.length, run.hpa.map_or(slot.gpa.0, |hpa| hpa.0))?;
            for piece in slot.pieces() {
                let part = FileRange {
                    file: ram.as_fd(),
                    offset: piece.file_offset,
                    len: piece.length,
                };
                mapping.place(piece.gpa - slot.gpa, part, "guest memory")?;
            }
            slots.push(Slot {
                gpa: slot.gpa,
                mapping: Arc::new(mapping),
            });
        }
        let memory = assemble(&slots)?;
        Ok(Self { memory, slots })
    }

    /// The guest's memory by guest-physical address.
    #[must_use]
    pub fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    /// The memslots, ascending; the first is low memory.
    #[must_use]
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }
}

fn assemble(slots: &[Slot]) -> Result<GuestMemoryMmap, GuestRamError> {
    let failed = |source: Box<dyn Error + Send + Sync>| GuestRamError {
        slots: slots.len(),
        source,
    };
    let mut regions = Vec::with_capacity(slots.len());
    for slot in slots {
        let length =
            usize::try_from(slot.mapping.length()).map_err(|error| failed(error.into()))?;
        let start =
            usize::try_from(slot.mapping.start().0).map_err(|error| failed(error.into()))?;
        // SAFETY: the mapping is `length` bytes of shared memory, readable and writable, and
        // outlives the region: `GuestRam` owns both and drops the region first, and only lends
        // the region out.
        let region = unsafe {
            MmapRegionBuilder::new(length)
                .with_raw_mmap_pointer(std::ptr::with_exposed_provenance_mut(start))
        }
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        .with_mmap_flags(libc::MAP_SHARED)
        .build()
        .map_err(|error| failed(error.into()))?;
        let region = GuestRegionMmap::new(region, GuestAddress(slot.gpa.0))
            .ok_or_else(|| failed("a region wraps the address space".into()))?;
        regions.push(region);
    }
    GuestMemoryMmap::from_regions(regions).map_err(|error| failed(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_that_overlap_are_refused() {
        let slot = |gpa| Slot {
            gpa: Gpa(gpa),
            mapping: Arc::new(Mapping::reserve(0x2000, 0).unwrap()),
        };
        assert!(assemble(&[slot(0), slot(0x2000)]).is_ok());
        for wrong in [[slot(0), slot(0x1000)], [slot(0x2000), slot(0)]] {
            let refused = assemble(&wrong);
            assert!(matches!(refused, Err(GuestRamError { slots: 2, .. })));
        }
    }
}
