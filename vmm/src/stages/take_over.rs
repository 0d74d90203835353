// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The stages up to [`pin`](mod@super::pin) in a process without privilege: another process has gone through them, and hands
//! over what came of it.

use std::sync::Arc;

use iommufd_backend::{
    CdevKind, DmaWidth, IommuSpace, Iommufd, Leftover, NoiommuIds, NoiommuSpace, OwnPages,
    PciSysfs, REGIONS, ResetMethod, Resource, VfioDevice,
};
use keeper::Keeper;

use super::inspect::{Boot, Inspected, Source};
use super::pin::Pinned;
use crate::bus::address_map::AddressMap;
use crate::bus::slots::PciSlot;
use crate::config::{self, DeviceConfig, ValidConfig};
use crate::error::Error;
use crate::handover::state::{self, Dma, State};
use crate::handover::{self, Files, HandoverError, Packet, PageView, Socket};
use crate::memory::backing::{self, Backing};
use crate::memory::layout::Layout;
use crate::passthrough::assigned::{AddressSpaces, Assigned, AssignedDevice, TakenOver};
use crate::passthrough::dma_path::DmaPath;
use crate::passthrough::guarded::Pool;
use crate::passthrough::host_infos;
use crate::passthrough::inspected::InspectedDevice;
use crate::passthrough::kernel_path::KernelPath;
use crate::passthrough::profile::profile_for;
use crate::run::limits;
use crate::teardown::Resources;

impl<'a> Pinned<'a> {
    /// Receives the devices and the memory of a guest from `socket`, and checks them by `config`. It opens no file of
    /// the host's that needs privilege, and asks the kernel for no address.
    ///
    /// # Errors
    /// [`HandoverError::Handover`] if they do not fit; what the files of `config` cause. Their devices and memory are
    /// released by then, or left to the keeper.
    pub fn take_over(
        config: &'a ValidConfig,
        layout: Option<&'a dyn Layout>,
        socket: Socket,
    ) -> Result<Self, Error> {
        limits::raise_open_files();
        let boot = Boot::open(config)?;
        let packet = socket.receive()?;
        handover::check(&packet.state, config)?;
        let Packet {
            channel,
            state,
            mut files,
        } = packet;
        let sysfs = PciSysfs::default();
        let iommufd = state.iommufd.map(|number| files.iommufd(number));
        let iommufd = iommufd
            .transpose()?
            .map(|file| Arc::new(Iommufd::from(file)));
        let inspected = inspected(config, &state, &sysfs)?;
        let assigned = assigned(&state, &mut files, &inspected, (iommufd.as_ref(), &sysfs))?;
        let backing = backing(config, &state, &mut files)?;
        files.finish()?;
        let source = match iommufd {
            Some(iommufd) => Source::Devices {
                path: KernelPath::Cdev(iommufd),
                devices: inspected,
            },
            None => Source::None,
        };
        let map = state.addresses.map(AddressMap::from);
        let Inspected { guest, .. } = Inspected::of(config, layout, boot, (source, map))?;
        let mut resources = Resources::new(assigned);
        resources.view = PageView::Helper {
            channel,
            child: state.helper,
        };
        Ok(Self {
            guest,
            resources,
            backing,
        })
    }
}

/// The devices of `state` as they were before they were bound.
fn inspected(
    config: &ValidConfig,
    state: &State,
    sysfs: &PciSysfs,
) -> Result<Vec<InspectedDevice>, Error> {
    let all = state.devices.iter().zip(&config.devices);
    all.zip(config.slots())
        .map(|((device, named), slot)| inspect(device, named, *slot, sysfs))
        .collect()
}

fn inspect(
    device: &state::Device,
    named: &DeviceConfig,
    slot: PciSlot,
    sysfs: &PciSysfs,
) -> Result<InspectedDevice, Error> {
    let bdf = device.bdf.0;
    let dma = match device.dma {
        Dma::Iommu => DmaPath::Iommu,
        Dma::Identity => DmaPath::Identity,
        Dma::Translate => DmaPath::Translate,
        Dma::Guarded => DmaPath::Guarded(named.poll.unwrap_or_default()),
        Dma::Mediate => {
            let profile = profile_for(sysfs, bdf, config::profile(named)?)?;
            DmaPath::Mediate(Some(profile))
        }
    };
    Ok(InspectedDevice {
        bdf,
        slot,
        kind: match device.iommu {
            true => CdevKind::Iommu,
            false => CdevKind::Noiommu,
        },
        dma,
        accepts_no_reset: named.allow_no_reset,
        regions: device.regions.map(|region| region.map(Resource::from)),
        dma_width: DmaWidth::taken_over(device.dma_width),
    })
}

/// The devices of `state`, of which there is one if there is an `iommufd`, and what they are attached to.
fn assigned(
    state: &State,
    files: &mut Files,
    inspected: &[InspectedDevice],
    (iommufd, sysfs): (Option<&Arc<Iommufd>>, &PciSysfs),
) -> Result<Assigned, Error> {
    let Some(iommufd) = iommufd else {
        return Ok(Assigned::default());
    };
    let mut bound = Vec::new();
    for (device, inspected) in state.devices.iter().zip(inspected) {
        let bdf = inspected.bdf;
        let file = (files.device(device.file, bdf, sysfs)?, device.id);
        let device = VfioDevice::taken_over(bdf, inspected.kind, file, Arc::clone(iommufd))?;
        check_regions(&device, &inspected.regions)?;
        bound.push(device);
    }
    let resets = state.devices.iter().map(|device| device.reset.clone());
    let methods: Vec<_> = resets.map(ResetMethod::from).collect();
    // What the kernel reports for an open device needs no privilege, and no sender can make it up.
    let infos = host_infos(&bound, inspected, &methods)?;
    let mut devices = Vec::new();
    let each = bound.into_iter().zip(infos).zip(methods);
    for (((device, info), reset), (inspected, state)) in
        each.zip(inspected.iter().zip(&state.devices))
    {
        devices.push(AssignedDevice {
            device: Arc::new(device),
            info,
            slot: inspected.slot,
            dma: inspected.dma.clone(),
            dma_width: inspected.dma_width,
            reset,
            own_pages: own_pages(state, files)?,
        });
    }
    let memory = state.memory.as_ref();
    let guest_bytes: u64 = memory
        .iter()
        .flat_map(|memory| memory.extents.iter().map(|&(_, _, len)| len))
        .sum();
    let own = devices.iter().flat_map(|device| &device.own_pages);
    let bytes = guest_bytes + own.map(|pool| pool.len()).sum::<u64>();
    Ok(Assigned::taken_over(TakenOver {
        spaces: spaces(state, iommufd),
        keeper: keeper(state, files)?,
        iommufd: Some(Arc::clone(iommufd)),
        bytes,
        known: leftovers(state, inspected),
        devices,
    }))
}

/// Whether sysfs showed the sender the same regions that VFIO has.
fn check_regions(
    device: &VfioDevice,
    regions: &[Option<Resource>; REGIONS],
) -> Result<(), HandoverError> {
    for (index, region) in (0..).zip(regions) {
        let found = device.region(index).map_or(0, |region| region.size);
        let Some(Resource { start, size, .. }) = region else {
            continue;
        };
        // VFIO may show none of what sysfs lists, and no region is at the end of all addresses.
        let is_same = found == 0 || found == *size;
        let has_end = start.is_none_or(|start| start.checked_add(*size).is_some());
        if !is_same || !has_end {
            return Err(HandoverError::wrong(format!(
                "{}: region {index} has {found} bytes, not {size}",
                device.bdf()
            )));
        }
    }
    Ok(())
}

fn own_pages(device: &state::Device, files: &mut Files) -> Result<Option<Arc<Pool>>, Error> {
    let Some(pages) = &device.own_pages else {
        return Ok(None);
    };
    let file = files.take(pages.file, "queue memory")?;
    let hpas = pages.hpas.iter().copied().map(address::Hpa).collect();
    Ok(Some(Pool::new(OwnPages::taken_over(file, hpas)?)))
}

fn spaces(state: &State, iommufd: &Arc<Iommufd>) -> AddressSpaces {
    let in_noiommu = state.devices.iter().filter(|device| !device.iommu);
    let noiommu = state.noiommu.as_ref().map(|space| {
        let ids = NoiommuIds {
            ioas: space.ioas,
            hwpt: Some(space.hwpt),
        };
        let attached = in_noiommu.map(|device| device.bdf.0).collect();
        NoiommuSpace::taken_over(Arc::clone(iommufd), ids, attached)
    });
    let iommu = state
        .iommu_ioas
        .map(|ioas| IommuSpace::taken_over(Arc::clone(iommufd), ioas));
    match (noiommu, iommu) {
        (Some(noiommu), Some(iommu)) => AddressSpaces::Mixed { noiommu, iommu },
        (Some(noiommu), None) => AddressSpaces::Noiommu(noiommu),
        (None, Some(iommu)) => AddressSpaces::Iommu(iommu),
        (None, None) => AddressSpaces::None,
    }
}

fn keeper(state: &State, files: &mut Files) -> Result<Option<Keeper>, HandoverError> {
    let Some(state::Keeper {
        channel,
        process,
        pid,
    }) = &state.keeper
    else {
        return Ok(None);
    };
    let channel = files.take(*channel, "the connection to the keeper")?;
    let process = files.process(*process, "the process of the keeper")?;
    match Keeper::taken_over(channel, process, *pid) {
        Some(keeper) => Ok(Some(keeper)),
        None => Err(HandoverError::wrong(format!(
            "the keeper has the process number {pid}"
        ))),
    }
}

/// The devices in noiommu mode, as they were before they were bound.
fn leftovers(state: &State, inspected: &[InspectedDevice]) -> Vec<Leftover> {
    let all = state.devices.iter().zip(inspected);
    all.filter(|(device, _)| !device.iommu)
        .map(|(device, inspected)| Leftover {
            bdf: inspected.bdf,
            parent: device.parent.map(|name| name.0),
            seen_in_slot: device.seen_in_slot,
            accepted: inspected.accepts_no_reset,
            through_group: false,
        })
        .collect()
}

/// Guest memory, which is taken here if no device needs it.
fn backing(config: &ValidConfig, state: &State, files: &mut Files) -> Result<Backing, Error> {
    let Some(memory) = &state.memory else {
        // Hugepages are checked as they are taken.
        if config.memory.hugepage_size.is_none() {
            backing::check(&config.memory, false)?;
        }
        return Ok(Backing::plain(&config.memory)?);
    };
    let (file, len) = files.memory(memory.file, memory.page_size)?;
    Ok(Backing {
        extents: handover::extents(state, memory, len, config.memory.size)?,
        file: Some(file),
        page_size: memory.page_size,
        choice: None,
    })
}
