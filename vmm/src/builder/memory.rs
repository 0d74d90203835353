//! Guest memory: taken, pinned, laid out, mapped.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use address::{Bdf, Gpa, Hpa, Iova};
use iommufd_backend::{IommuSpace, PciSysfs};
use stress_report::units;

use super::devices::{Devices, Reach};
use crate::acpi::{IO_APIC, LOCAL_APIC};
use crate::arch::cpuid;
use crate::config::MemoryConfig;
use crate::description::in_guest;
use crate::error::{Error, process};
use crate::host_map::HostMap;
use crate::kvm::vm::{Memslot, Vm};
use crate::memory::choice::{Choice, Wish};
use crate::memory::guest::GuestRam;
use crate::memory::layout::{Conventional, Layout};
use crate::memory::low;
use crate::memory::plan::{self, Constraints, FileExtent, MemoryPlan, Piece, Run};
use crate::memory::table::{self, RamTable, Summary};
use crate::phases::Phases;
use crate::pinned::{self, PinnedRam};
use crate::window::Places;

/// Memslots kept for mapped BARs: six to a function, two parts each.
pub(crate) const SLOTS_PER_DEVICE: usize = 12;

/// Guest RAM in place: pinned, mapped for the devices, and where the guest expects it.
#[derive(Debug)]
pub(crate) struct Memory {
    pub plan: MemoryPlan,
    pub ram: GuestRam,
    /// Where it is; empty where an IOMMU translates for all devices.
    pub table: Arc<RamTable>,
    /// What the table holds.
    pub summary: Summary,
    /// Where the guest is shown the table, if it translates.
    pub window: Option<Places>,
    pub slots: Vec<Memslot>,
    /// The choice of its pages, if there was one.
    pub choice: Option<Choice>,
}

/// Whether kernel and initramfs have places in RAM at these ranges.
pub(crate) type Fits<'a> = &'a dyn Fn(&[Range<Gpa>]) -> bool;

impl Memory {
    /// Takes, pins and places guest RAM. `identity` is the layout for devices that use physical
    /// addresses, where pages are chosen so that `fits` is true.
    pub fn prepare(
        config: &MemoryConfig,
        (identity, fits): (&dyn Layout, Fits<'_>),
        devices: &mut Devices,
        (vm, host_map): (&Arc<Vm>, &HostMap),
        phases: &mut Phases,
    ) -> Result<Self, Error> {
        let at_identity = devices.need_identity();
        if identity.needs_identity() && !at_identity {
            return Err(Error::NoIdentity);
        }
        let wish = Wish {
            pages: usize::try_from(config.size / config.page_size().bytes()).unwrap_or(usize::MAX),
            below_4g: match devices.held.devices.is_empty() {
                true => 0,
                false => WANTED_BELOW_4G,
            },
            fits,
        };
        let pinned = match (&mut devices.held.noiommu, &mut devices.software) {
            (Some(space), _) if !at_identity => Some(PinnedRam::scattered(config, space)?),
            (Some(space), _) => Some(PinnedRam::hugepages(config, space, &wish)?),
            (None, Some(machine)) => {
                let memory = &mut machine.memory;
                Some(PinnedRam::synthetic(config, memory, at_identity)?)
            }
            (None, None) => None,
        };
        let PinnedRam {
            file,
            extents,
            choice,
        } = match pinned {
            Some(pinned) => pinned,
            None => PinnedRam {
                file: pinned::unpinned(config)?,
                extents: Vec::new(),
                choice: None,
            },
        };
        devices.held.pinned(&file, config.size)?;
        phases.done("pin");
        let (runs, layout): (_, &dyn Layout) = if at_identity {
            (plan::runs(&extents), identity)
        } else {
            (whole(config.size), &Conventional)
        };
        let constraints = constraints(vm, host_map, devices.held.devices.len());
        let plan = MemoryPlan::new(runs, layout, &constraints)?;
        describe(&plan);
        let (table, window) = fill(&plan, &extents, (devices, host_map))?;
        let summary = Summary::of(&table)?;
        if !extents.is_empty() {
            log::info!("physical memory: {} pieces", summary.pieces);
        }
        phases.done("lay out");
        if let Some(space) = &devices.held.iommu {
            map_for_devices(space, &file, &plan).map_err(pinned::of_all(config.size))?;
        }
        let low = low::allocate().map_err(process("make low guest memory"))?;
        let ram = GuestRam::map((&low, low::SIZE), &file, &plan)?;
        let slots = ram
            .slots()
            .iter()
            .map(|slot| vm.map(slot.gpa(), slot.mapping()))
            .collect::<Result<_, _>>()?;
        phases.done("map");
        Ok(Self {
            plan,
            ram,
            table: Arc::new(table),
            summary,
            window,
            slots,
            choice,
        })
    }
}

/// The table of the memory of `plan`, and where a guest that translates is shown it.
fn fill(
    plan: &MemoryPlan,
    extents: &[FileExtent],
    (devices, host_map): (&Devices, &HostMap),
) -> Result<(RamTable, Option<Places>), Error> {
    let mut window = None;
    let table = table::fill(plan, extents, |size| {
        let translates = |reach: &Reach| matches!(reach, Reach::Translate);
        if !devices.reaches.iter().any(translates) {
            return Ok(Gpa(0));
        }
        let bars = in_guest(devices.bars()).into_iter().map(|(_, bar)| bar);
        let places = Places::find(size, host_map, &bars.collect::<Vec<_>>())?;
        Ok(window.insert(places).table)
    })?;
    Ok((table, window))
}

/// All of a file as one run.
fn whole(length: u64) -> Vec<Run> {
    let piece = Piece {
        file_offset: 0,
        length,
    };
    vec![Run {
        hpa: None,
        length,
        pieces: vec![piece],
    }]
}

fn constraints(vm: &Vm, host_map: &HostMap, devices: usize) -> Constraints {
    let mut taken = vec![
        ("low memory", Gpa(0)..Gpa(low::SIZE)),
        ("PCI config space", host_map.ecam.clone()),
        ("the I/O APIC", IO_APIC),
        ("the local APICs", LOCAL_APIC),
        ("KVM's own pages", Vm::reserved()),
    ];
    let windows = host_map.windows.iter();
    taken.extend(windows.map(|window| ("a PCI window", window.clone())));
    Constraints {
        taken,
        address_bits: cpuid::address_bits(vm.cpuid()),
        slots: vm
            .most_slots()
            .saturating_sub(1 + devices * SLOTS_PER_DEVICE),
    }
}

fn describe(plan: &MemoryPlan) {
    for slot in plan.slots() {
        let length = slot.run.length;
        match slot.run.hpa {
            Some(hpa) => log::info!("extent gpa={} hpa={hpa} len={length:#x}", slot.gpa),
            None => log::info!("memory gpa={} len={length:#x}", slot.gpa),
        }
    }
    log::info!(
        "guest memory: {} MiB in {} pieces",
        plan.size() >> 20,
        plan.slots().len()
    );
}

/// Lets devices behind an IOMMU address guest memory by guest-physical addresses. Low memory is
/// not for DMA.
fn map_for_devices(space: &IommuSpace, file: &File, plan: &MemoryPlan) -> Result<(), Error> {
    for slot in plan.slots() {
        let mut iova = Iova(slot.gpa.0);
        for piece in &slot.run.pieces {
            space.map(iova, file, piece.file_offset, piece.length)?;
            iova = iova + piece.length;
        }
    }
    Ok(())
}

/// Bytes below 4 GiB for devices that may reach no others: Linux makes its bounce buffers so large
/// (IO_TLB_DEFAULT_SIZE in include/linux/swiotlb.h).
const WANTED_BELOW_4G: u64 = 64 << 20;

/// Devices that may not address all 64 bits, of those that use physical addresses, where the guest has memory up to
/// `end`: each with the bits that its last driver on the host asked for.
fn narrow_devices(devices: &Devices, end: Hpa) -> impl Iterator<Item = (Bdf, u32)> {
    let all = devices.held.devices.iter().zip(&devices.reaches);
    let physical = all.filter(|(_, reach)| !matches!(reach, Reach::Iommu));
    physical.filter_map(move |(bound, _)| {
        let bdf = bound.device.bdf();
        let width = PciSysfs::default().dma_width(bdf);
        (!width.reaches(end)).then(|| (bdf, width.bits()))
    })
}

/// What a device misses that may not address all 64 bits.
pub(super) fn narrow_warnings(summary: Summary, devices: &Devices) -> Vec<String> {
    if summary.pieces == 0 || summary.below_4g > 0 {
        return Vec::new();
    }
    log::info!("no guest memory lies below 4 GiB");
    let warning = |(bdf, bits)| {
        format!(
            "{bdf}: may address {bits} bits only, as far as the host's drivers have told, and no guest memory lies \
             below 4 GiB: its driver may fail. Hugepages below 4 GiB, reserved early, would help"
        )
    };
    narrow_devices(devices, summary.end).map(warning).collect()
}

/// What such a device misses where memory below 4 GiB has no room for what Linux wants in one piece for
/// its bounce buffers; `missed` are these bytes, and those of the largest piece.
pub(super) fn bounce_warnings(
    missed: Option<(u64, u64)>,
    summary: Summary,
    devices: &Devices,
) -> Vec<String> {
    // Without any memory there, that is what is told.
    let Some((need, largest)) = missed.filter(|_| summary.below_4g > 0) else {
        return Vec::new();
    };
    let warning = |(bdf, bits)| {
        format!(
            "{bdf}: may address {bits} bits only, as far as the host's drivers have told: Linux wants {} in one piece \
             below 4 GiB for its bounce buffers, and the largest that is free there has {}: its driver may fail. \
             swiotlb=N on the kernel's command line makes them smaller (N times 2 KiB)",
            units::memory(need),
            units::memory(largest)
        )
    };
    narrow_devices(devices, summary.end).map(warning).collect()
}
