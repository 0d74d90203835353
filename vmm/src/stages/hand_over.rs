// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The stages up to [`pin`](mod@super::pin) for another process: what came of them is handed over to the one that runs the
//! guest.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use iommufd_backend::{Leftover, PciSysfs, REGIONS, Resource};
use keeper::{Channel, PROGRAM, spawn};

use super::Harness;
use super::inspect::{Inspected, Source};
use super::pin::Pinned;
use crate::bus::address_map::AddressMap;
use crate::config::ValidConfig;
use crate::confine::User;
use crate::error::Error;
use crate::error::explain::process;
use crate::handover::state::{self, Addresses, Dma, Name, Region, State};
use crate::handover::{self, HandoverError, Listener, Receiver};
use crate::memory::pieces;
use crate::passthrough::assigned::AssignedDevice;
use crate::passthrough::dma_path::DmaPath;
use crate::passthrough::inspected::InspectedDevice;
use crate::passthrough::kernel_path::KernelPath;
use crate::run::event_loop::Signals;
use crate::teardown::Resources;

/// What makes this program a helper ([`handover::help`]).
const HELPER: &str = "handover-helper";

/// Devices and memory of a guest that are ready to be handed over. Dropping it gives them back.
#[derive(Debug)]
pub struct Prepared<'a> {
    pinned: Pinned<'a>,
    facts: Facts,
}

impl<'a> Prepared<'a> {
    /// Binds the devices of `config` and pins its memory.
    ///
    /// # Errors
    /// [`Error`]; everything has been released by then.
    pub fn new(config: &'a ValidConfig) -> Result<Self, Error> {
        let inspected = Inspected::new(config, Harness::default())?;
        let facts = inspected.facts()?;
        let pinned = inspected.expect_kvm()?.bind()?.pin()?;
        if let (Some(choice), false) = (&pinned.backing.choice, config.memory.any_pieces) {
            pieces::check(choice, config.memory.page_size())?;
        }
        Ok(Self { pinned, facts })
    }

    /// Waits at the socket `path` until a process of `user`, or of this process's user, asks for them, hands them over, and
    /// shows that process where its memory is. Returns its number, or none if a signal came first: everything has been
    /// given back then.
    ///
    /// # Errors
    /// [`Error`]; everything has been released by then.
    pub fn serve(self, path: &Path, user: Option<&User>) -> Result<Option<u32>, Error> {
        match self.offer(path, user) {
            Ok(Some(receiver)) => {
                self.pinned.resources.part();
                let pid = receiver.pid();
                if let Err(error) = receiver.show_pages() {
                    log::warn!("Process {pid} does not see where its pages are: {error}");
                }
                Ok(Some(pid))
            }
            Ok(None) => {
                let mut resources = self.pinned.resources;
                resources.tear_down().map(|()| None)
            }
            Err(error) => Err(self.pinned.resources.give_back(error)),
        }
    }

    /// Waits for a receiver and sends it everything.
    fn offer(&self, path: &Path, user: Option<&User>) -> Result<Option<Receiver>, Error> {
        let signals = Signals::take()?;
        let failed = |source| HandoverError::HandoverSocket {
            operation: "listen at",
            path: path.to_owned(),
            source,
        };
        let listener = Listener::bind(path, user).map_err(failed)?;
        log::info!(
            "Everything is ready for pinvisor run --handover socket={}",
            path.display()
        );
        let Some(receiver) = listener.wait(&signals).map_err(failed)? else {
            return Ok(None);
        };
        // First: from the moment that it has the devices, its end is what counts.
        if let Some(keeper) = self.pinned.resources.assigned.keeper() {
            keeper.watch(receiver.process())?;
        }
        self.pinned.send(receiver.channel(), &self.facts, None)?;
        Ok(Some(receiver))
    }

    /// Sends them to this process, which executes another program then, and starts the helper that will show it where its
    /// memory is.
    ///
    /// # Errors
    /// [`Error`]; everything has been released by then.
    pub fn to_next_program(self) -> Result<HandedOver, Error> {
        let Self { pinned, facts } = self;
        let (socket, other) = Channel::pair().map_err(process("create a socket"))?;
        let helper = match pinned.backing.extents.is_empty() {
            true => None,
            false => {
                let input = other.as_fd().try_clone_to_owned();
                let started = input.and_then(|input| spawn(PROGRAM, HELPER, input));
                Some(started.map_err(process("start a helper process"))?.id())
            }
        };
        pinned.send(&other, &facts, helper)?;
        let resources = pinned.resources;
        Ok(HandedOver {
            socket,
            maps_later: resources.assigned.spaces.iommu().is_some(),
            resources,
        })
    }
}

/// Devices and memory of a guest that are on their way to the next program of this process. Dropping it gives them back.
#[derive(Debug)]
pub struct HandedOver {
    // First: what is on its way keeps the devices open.
    socket: Channel,
    resources: Resources,
    maps_later: bool,
}

impl HandedOver {
    /// The receiver's end of the socket.
    #[must_use]
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether the receiver still has to map memory for devices behind an IOMMU, which counts as locked.
    #[must_use]
    pub fn maps_later(&self) -> bool {
        self.maps_later
    }

    /// Gives everything back, as nothing was received.
    ///
    /// # Errors
    /// As that of a run's end.
    pub fn take_back(self) -> Result<(), Error> {
        let Self {
            socket,
            mut resources,
            ..
        } = self;
        drop(socket);
        resources.tear_down()
    }
}

/// What is known of devices before they are bound, and not kept after that.
#[derive(Debug)]
struct Facts {
    regions: Vec<[Option<Resource>; REGIONS]>,
    leftovers: Vec<Leftover>,
    addresses: Option<AddressMap>,
}

impl Inspected<'_> {
    /// # Errors
    /// [`HandoverError::HandoverOfGroups`]
    fn facts(&self) -> Result<Facts, HandoverError> {
        let devices = match &self.source {
            Source::Devices {
                path: KernelPath::Group(_),
                ..
            } => return Err(HandoverError::HandoverOfGroups),
            Source::Devices { devices, .. } => devices.as_slice(),
            Source::None | Source::Synthetic(_) => &[],
        };
        let sysfs = PciSysfs::default();
        let leftover = |device: &InspectedDevice| device.leftover(&sysfs, false);
        Ok(Facts {
            regions: devices.iter().map(|device| device.regions).collect(),
            leftovers: devices.iter().map(leftover).collect(),
            addresses: self.guest.bus.map.clone(),
        })
    }
}

impl Pinned<'_> {
    /// Sends everything of the guest's through `channel`.
    fn send(&self, channel: &Channel, facts: &Facts, helper: Option<u32>) -> Result<(), Error> {
        let mut files = Outgoing::default();
        let state = self.state(&mut files, facts, helper);
        let sent = handover::send(channel, &state, &files.0);
        Ok(sent.map_err(process("hand over devices and memory"))?)
    }

    fn state<'f>(&'f self, files: &mut Outgoing<'f>, facts: &Facts, helper: Option<u32>) -> State {
        let assigned = &self.resources.assigned;
        let spaces = &assigned.spaces;
        let Facts {
            regions,
            leftovers,
            addresses,
        } = facts;
        let devices = assigned.devices.iter().zip(regions).zip(leftovers);
        let extents = self.backing.extents.iter();
        State {
            iommufd: assigned.iommufd().map(|iommufd| files.add(iommufd.as_fd())),
            devices: devices
                .map(|((device, regions), known)| to_state(device, regions, known, files))
                .collect(),
            noiommu: spaces.noiommu_ids().and_then(|ids| {
                let (ioas, hwpt) = (ids.ioas, ids.hwpt?);
                Some(state::Noiommu { ioas, hwpt })
            }),
            iommu_ioas: spaces.iommu().map(|space| space.to_hand_over()),
            keeper: assigned.keeper().map(|keeper| state::Keeper {
                channel: files.add(keeper.channel()),
                process: files.add(keeper.process()),
                pid: keeper.pid(),
            }),
            helper,
            memory: self.backing.file.as_ref().map(|file| state::Memory {
                file: files.add(file.as_fd()),
                page_size: self.backing.page_size,
                extents: extents
                    .map(|extent| (extent.offset, extent.hpa.0, extent.len))
                    .collect(),
            }),
            addresses: addresses.as_ref().map(Addresses::from),
        }
    }
}

/// Files in the order of their numbers, from 1 on.
#[derive(Default)]
struct Outgoing<'a>(Vec<BorrowedFd<'a>>);

impl<'a> Outgoing<'a> {
    /// Adds `file`, and returns its number.
    fn add(&mut self, file: BorrowedFd<'a>) -> usize {
        self.0.push(file);
        self.0.len()
    }
}

fn to_state<'a>(
    assigned: &'a AssignedDevice,
    regions: &[Option<Resource>; REGIONS],
    known: &Leftover,
    files: &mut Outgoing<'a>,
) -> state::Device {
    let (file, id) = match assigned.device.to_hand_over() {
        Some((file, id)) => (files.add(file), id),
        // Groups are refused before.
        None => (0, 0),
    };
    state::Device {
        bdf: Name(assigned.bdf()),
        file,
        id,
        iommu: matches!(assigned.dma, DmaPath::Iommu),
        dma: match assigned.dma {
            DmaPath::Iommu => Dma::Iommu,
            DmaPath::Identity => Dma::Identity,
            DmaPath::Translate => Dma::Translate,
            DmaPath::Mediate(_) => Dma::Mediate,
            DmaPath::Guarded(_) => Dma::Guarded,
        },
        regions: regions.map(|region| region.map(Region::from)),
        dma_width: assigned.dma_width.known(),
        reset: (&assigned.reset).into(),
        parent: known.parent.map(Name),
        seen_in_slot: known.seen_in_slot,
        own_pages: assigned.own_pages.as_ref().map(|pool| state::OwnPages {
            file: files.add(pool.file().file),
            hpas: pool.hpas().iter().map(|hpa| hpa.0).collect(),
        }),
    }
}
