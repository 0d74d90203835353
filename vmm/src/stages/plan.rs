// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The fifth stage: the guest's addresses are decided. `pinvisor plan` ends here.

use std::sync::Arc;

use address::Gpa;
use devices::guest_table::{Piece, TableError};

use super::inspect::Guest;
use super::pin::Pinned;
use super::warnings::{self, LowAddresses};
use crate::arch::{self, LowMemoryUse, MemoryMap, layout};
use crate::boot::place::Placement;
use crate::boot::{BootError, command_line};
use crate::bus::window::{Places, Window};
use crate::config::Poll;
use crate::error::Error;
use crate::error::explain::chain;
use crate::kvm::vm::Vm;
use crate::memory::backing::Backing;
use crate::memory::layout::Addressing;
use crate::memory::pieces::{self, TooManyPieces};
use crate::memory::plan::{self, Constraints, MemoryPlan, PlanError, Region};
use crate::memory::table::{Draft, RamTable, Summary};
use crate::passthrough::assigned::AssignedDevice;
use crate::passthrough::dma_path::DmaPath;
use crate::teardown::Resources;

/// Memslots kept for mapped BARs of a device: six to a function, two parts each.
const SLOTS_PER_DEVICE: usize = 12;

/// Memslots kept for `devices` of a guest with this number of CPUs. A guarded controller's BARs are not mapped. It has a
/// page of memory for the doorbell of each completion queue and, if it may be polled, of each submission queue.
pub(crate) fn kept_slots(devices: &[AssignedDevice], cpus: u8) -> usize {
    let of = |device: &AssignedDevice| slots_of(&device.dma, cpus);
    devices.iter().map(of).sum()
}

fn slots_of(dma: &DmaPath, cpus: u8) -> usize {
    match dma {
        DmaPath::Guarded(Poll::Off) => cpus.into(),
        DmaPath::Guarded(Poll::Auto | Poll::On) => usize::from(cpus) * 2,
        DmaPath::Iommu | DmaPath::Identity | DmaPath::Translate | DmaPath::Mediate(_) => {
            SLOTS_PER_DEVICE
        }
    }
}

/// A guest whose layout is decided. It may turn out that it cannot be booted in it.
#[derive(Debug)]
pub(crate) struct Planned<'a> {
    pub(crate) guest: Guest<'a>,
    pub(crate) vm: Arc<Vm>,
    pub(crate) resources: Resources,
    pub(crate) backing: Backing,
    pub(crate) layout: GuestLayout,
    pub(crate) boot: Bootability,
}

/// Where a guest's memory is.
#[derive(Debug)]
pub(crate) struct GuestLayout {
    pub memory: MemoryPlan,
    /// Where that memory is in the host; empty where an IOMMU translates for all devices.
    pub table: Arc<RamTable>,
    /// What the table holds.
    pub summary: Summary,
    /// The type of the first MiB in the guest's memory map.
    pub low: LowMemoryUse,
}

/// Whether the kernel can be booted in planned memory.
#[derive(Debug)]
pub(crate) enum Bootability {
    /// It can: kernel and initramfs go here.
    Bootable(Placement),
    /// It could, but its devices might use the host's memory.
    Unsafe(Placement, TooManyPieces),
    /// No room for kernel or initramfs.
    Unplaced(BootError),
}

impl Bootability {
    /// Where kernel and initramfs go, if there is room for them.
    pub fn placement(&self) -> Option<&Placement> {
        match self {
            Self::Bootable(placement) | Self::Unsafe(placement, _) => Some(placement),
            Self::Unplaced(_) => None,
        }
    }

    /// Why the guest cannot be booted, if so, with its causes.
    pub fn obstacle(&self) -> Option<String> {
        match self {
            Self::Bootable(_) => None,
            Self::Unsafe(_, pieces) => Some(pieces.to_string()),
            Self::Unplaced(error) => Some(chain(error)),
        }
    }

    /// Where kernel and initramfs go.
    ///
    /// # Errors
    /// [`BootError::Place`], [`TooManyPieces`]
    pub fn bootable(self) -> Result<Placement, Error> {
        match self {
            Self::Bootable(placement) => Ok(placement),
            Self::Unsafe(_, pieces) => Err(pieces.into()),
            Self::Unplaced(error) => Err(error.into()),
        }
    }
}

impl<'a> Pinned<'a> {
    /// Lays memory out in `vm` and finds places for kernel and initramfs.
    pub fn plan(self, vm: Arc<Vm>) -> Result<Planned<'a>, Error> {
        let Self {
            mut guest,
            mut resources,
            backing,
        } = self;
        let kept = kept_slots(&resources.assigned.devices, guest.config.cpus.get());
        let layout = GuestLayout::new(&mut guest, &vm, &backing, kept)?;
        resources.table = Some(Arc::clone(&layout.table));
        let config = &guest.config.memory;
        let boot = match (guest.files.place(&layout.memory), &backing.choice) {
            (Err(error), _) => Bootability::Unplaced(error),
            (Ok(placement), Some(choice)) if !config.any_pieces => {
                match pieces::check(choice, config.page_size()) {
                    Ok(()) => Bootability::Bootable(placement),
                    Err(pieces) => Bootability::Unsafe(placement, pieces),
                }
            }
            (Ok(placement), _) => Bootability::Bootable(placement),
        };
        Ok(Planned {
            guest,
            vm,
            resources,
            backing,
            layout,
            boot,
        })
    }
}

impl GuestLayout {
    fn new(guest: &mut Guest<'_>, vm: &Vm, backing: &Backing, kept: usize) -> Result<Self, Error> {
        let config = guest.config;
        let constraints = constraints(guest, vm, kept);
        let memory = match guest.uses_physical {
            true => {
                let regions = plan::regions(&backing.extents);
                guest.layouts.lay_out(regions, &constraints)
            }
            false => {
                let regions = vec![Region::of_file(config.memory.size)];
                MemoryPlan::new(regions, guest.layouts.conventional(), &constraints)
            }
        }?;
        log_plan(&memory);
        let draft = Draft::new(&memory, &backing.extents)?;
        let mut place = Gpa(0);
        if guest.translates {
            let places = Places::find(draft.bar_size(), &mut guest.bus)?;
            guest.functions.push(Box::new(Window(places)));
            place = places.table;
        }
        let table = draft.build(place)?;
        if !guest.uses_physical {
            log_pieces(&table)?;
        }
        let summary = Summary::of(&table, guest.bus.dma())?;
        if !backing.extents.is_empty() {
            log::info!("physical memory: {} pieces", summary.pieces);
        }
        // Pages below 1 MiB are not pinned, so that drivers must not be given them for DMA.
        let low = match guest.uses_physical || guest.guards {
            true => LowMemoryUse::identity(config.low_memory, guest.release),
            false => LowMemoryUse::conventional(config.low_memory),
        };
        Ok(Self {
            memory,
            table: Arc::new(table),
            summary,
            low,
        })
    }
}

impl Planned<'_> {
    /// The memory map that the guest is given, if its kernel has a place.
    ///
    /// # Errors
    /// [`PlanError`]
    pub fn memory_map(&self) -> Result<Option<MemoryMap>, PlanError> {
        let map = |placement: &Placement| {
            let bus = self.guest.bus.map.as_ref();
            let kernel = placement.kernel.start;
            arch::memory_map(&self.layout.memory, bus, kernel, self.layout.low)
        };
        self.boot.placement().map(map).transpose()
    }

    /// What may go wrong in the guest.
    pub fn warnings(&self) -> Result<Vec<String>, Error> {
        let ranges = self.layout.memory.ranges();
        let command_line = &self.guest.config.command_line;
        let devices = warnings::physical(&self.resources.assigned.devices);
        let low = LowAddresses::of(&self.layout.memory, self.guest.bus.dma());
        let mut all = warnings::narrow(self.layout.summary, &devices, low);
        if let Some(map) = self.memory_map()? {
            let required = self.guest.files.requirements(self.guest.config.memory.size);
            all.extend(arch::memory_warnings(
                &self.layout.memory,
                &map,
                required.kernel.pieces,
            ));
        }
        if self.guest.release.is_none() {
            return Ok(all);
        }
        let is_identity = self.layout.memory.addressing() == Addressing::Identity;
        if let (Some(placement), true) = (self.boot.placement(), is_identity) {
            let taken: Vec<_> = [placement.kernel.clone()]
                .into_iter()
                .chain(placement.initramfs.clone())
                .collect();
            let missed = command_line::bounce_buffers(command_line, &ranges, &taken);
            all.extend(warnings::bounce(missed, self.layout.summary, &devices));
        }
        let layout = command_line::Layout {
            ranges: &ranges,
            is_identity,
        };
        all.extend(command_line::warnings(command_line, layout));
        Ok(all)
    }

    /// Gives everything back. Returns why the guest cannot be booted, if so.
    ///
    /// # Errors
    /// As [`Resources::tear_down`].
    pub fn take_apart(mut self) -> Result<Option<Error>, Error> {
        self.resources.tear_down()?;
        Ok(self.boot.bootable().err())
    }
}

/// Memory has the memslots that are not `kept` for devices.
fn constraints(guest: &Guest<'_>, vm: &Vm, kept: usize) -> Constraints {
    let mut taken = layout::FIXED.to_vec();
    if let Some(bus) = &guest.bus.map {
        taken.push(("PCI config space", bus.ecam.clone()));
        let windows = bus.windows.iter();
        taken.extend(windows.map(|window| ("a PCI window", window.clone())));
    }
    Constraints {
        taken,
        address_bits: vm.cpu().address_bits(),
        slots: vm.most_slots().saturating_sub(1 + kept),
        kept,
        dma: guest.bus.dma().clone(),
    }
}

/// Logs where memory is that is not at its physical address.
fn log_pieces(table: &RamTable) -> Result<(), TableError> {
    if !log::log_enabled!(log::Level::Debug) {
        return Ok(());
    }
    for piece in table.pieces() {
        let Piece { gpa, hpa, len } = piece?;
        log::debug!("extent gpa={gpa} hpa={hpa} len={len:#x}");
    }
    Ok(())
}

fn log_plan(plan: &MemoryPlan) {
    for placed in plan.regions() {
        let len = placed.region.len;
        match placed.region.hpa {
            Some(hpa) => log::info!("extent gpa={} hpa={hpa} len={len:#x}", placed.gpa),
            None => log::info!("memory gpa={} len={len:#x}", placed.gpa),
        }
    }
    log::info!(
        "guest memory: {} MiB in {} pieces",
        plan.size() >> 20,
        plan.regions().len()
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guarded_controller_has_a_memslot_for_each_doorbell_in_memory_and_no_mapped_bar() {
        assert_eq!(slots_of(&DmaPath::Guarded(Poll::Off), 32), 32);
        assert_eq!(slots_of(&DmaPath::Guarded(Poll::Auto), 32), 64);
        assert_eq!(slots_of(&DmaPath::Guarded(Poll::On), 1), 2);
        assert_eq!(slots_of(&DmaPath::Identity, 32), 12);
    }
}
