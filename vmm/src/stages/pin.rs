// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The fourth stage: guest memory is allocated and pinned, and its physical addresses are known.

use super::bind::Bound;
use super::inspect::Guest;
use crate::config::MemoryLayout;
use crate::error::Error;
use crate::memory::backing::Backing;
use crate::memory::choice::PageRequirements;
use crate::memory::plan::file_parts;
use crate::passthrough::assigned::AddressSpaces;
use crate::teardown::Resources;

/// Bytes below 4 GiB for devices that may reach no others: Linux makes its bounce buffers so large
/// (IO_TLB_DEFAULT_SIZE in include/linux/swiotlb.h).
const WANTED_BELOW_4G: u64 = 64 << 20;

/// A guest whose memory is pinned, and has no guest-physical addresses yet.
#[derive(Debug)]
pub(crate) struct Pinned<'a> {
    pub(super) guest: Guest<'a>,
    pub(super) resources: Resources,
    pub(super) backing: Backing,
}

impl<'a> Bound<'a> {
    /// Takes the guest's memory and pins it.
    pub fn pin(self) -> Result<Pinned<'a>, Error> {
        let Self {
            guest,
            mut resources,
        } = self;
        let config = &guest.config.memory;
        let assigned = &mut resources.assigned;
        let requirements = PageRequirements {
            pages: usize::try_from(config.size / config.page_size().bytes()).unwrap_or(usize::MAX),
            dma: guest.bus.dma(),
            // Elsewhere on the bus, or in the guest, it would be of no use to them.
            below_4g: match assigned.devices.is_empty()
                || guest.bus.dma().is_moved()
                || config.layout == MemoryLayout::Packed
            {
                true => 0,
                false => WANTED_BELOW_4G,
            },
            boot: guest.files.requirements(config.size),
        };
        let backing = match &mut assigned.spaces {
            AddressSpaces::Noiommu(space) | AddressSpaces::Mixed { noiommu: space, .. } => {
                match guest.uses_physical {
                    true => Backing::hugepages(config, space, &requirements)?,
                    false => Backing::scattered(config, space)?,
                }
            }
            AddressSpaces::Synthetic(machine) => {
                Backing::synthetic(config, machine.as_mut(), guest.uses_physical)?
            }
            AddressSpaces::None => Backing::plain(config)?,
            AddressSpaces::Iommu(_) => Backing::unpinned(config)?,
        };
        let own = assigned.pin_own_pages(guest.config.cpus.get())?;
        if let Some(file) = &backing.file {
            assigned.pinned(file, &file_parts(&backing.extents), config.size + own)?;
        }
        Ok(Pinned {
            guest,
            resources,
            backing,
        })
    }
}
