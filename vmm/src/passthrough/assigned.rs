// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The devices of one guest, the address spaces that they are attached to, and the steps in which
//! both are released. [`teardown`](crate::teardown) has the order.

mod error;
mod taken_over;

use std::fs::File;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use address::Bdf;
use devices::vfio_pci::HostInfo;
use host::SysRoot;
use iommufd_backend::{
    AddressSource, Because, CdevKind, DmaWidth, Error as Backend, FileRange, IommuSpace, Iommufd,
    Leftover, NoiommuSpace, PciSysfs, Quiet, ResetMethod, VfioDevice, in_parallel, quiesce,
};
use keeper::{Keeper, KeeperError, Kept, Status};

use super::dma_path::DmaPath;
use super::guarded::{self, Pool};
use super::inspected::InspectedDevice;
use super::kernel_path::KernelPath;
use crate::bus::slots::PciSlot;
use crate::bus::synthetic::SyntheticMachine;
use crate::config::DeviceConfig;
use crate::error::explain::{ProcessError, chain};

pub use error::KeepError;
pub(crate) use taken_over::TakenOver;

/// A bound device and what is known of it.
#[derive(Debug)]
pub(crate) struct AssignedDevice {
    pub device: Arc<VfioDevice>,
    /// Its regions and interrupts.
    pub info: HostInfo,
    /// Its place on the guest's bus.
    pub slot: PciSlot,
    /// How its DMA reaches guest memory.
    pub dma: DmaPath,
    /// How wide its addresses are.
    pub dma_width: DmaWidth,
    pub reset: ResetMethod,
    /// The monitor's memory that it accesses, if it is guarded, from the time that memory is pinned.
    pub own_pages: Option<Arc<Pool>>,
}

impl AssignedDevice {
    pub fn bdf(&self) -> Bdf {
        self.device.bdf()
    }

    /// The device and the way to reset it.
    pub fn with_method(&self) -> (&VfioDevice, &ResetMethod) {
        (&self.device, &self.reset)
    }
}

/// What the devices of a guest are attached to. Devices with and without an IOMMU never share a space: nothing
/// would keep one in noiommu mode inside it.
#[derive(Debug, Default)]
pub(crate) enum AddressSpaces {
    /// No device is attached.
    #[default]
    None,
    /// Devices in noiommu mode.
    Noiommu(NoiommuSpace),
    /// Devices behind an IOMMU.
    Iommu(IommuSpace),
    /// Both.
    Mixed {
        noiommu: NoiommuSpace,
        iommu: IommuSpace,
    },
    /// Software in place of devices and of physical memory.
    Synthetic(Box<dyn SyntheticMachine>),
}

impl AddressSpaces {
    /// Attaches `device` to the space for its kind, which is made for the first one.
    ///
    /// # Errors
    /// [`Backend`]
    pub fn attach(&mut self, device: &VfioDevice, path: &KernelPath) -> Result<(), Backend> {
        let bdf = device.bdf();
        match device.kind() {
            CdevKind::Noiommu => {
                if self.noiommu().is_none() {
                    let noiommu = path.noiommu_space()?;
                    *self = match std::mem::take(self) {
                        Self::Iommu(iommu) => Self::Mixed { noiommu, iommu },
                        _ => Self::Noiommu(noiommu),
                    };
                }
                if let Some(space) = self.noiommu() {
                    space.attach(device)?;
                }
                log::info!("{bdf}: bound, in noiommu mode");
            }
            CdevKind::Iommu => {
                if let (None, Some(iommufd)) = (self.iommu(), path.iommufd()) {
                    let iommu = IommuSpace::new(Arc::clone(iommufd))?;
                    *self = match std::mem::take(self) {
                        Self::Noiommu(noiommu) => Self::Mixed { noiommu, iommu },
                        _ => Self::Iommu(iommu),
                    };
                }
                if let Some(space) = self.iommu() {
                    space.attach(device)?;
                }
                log::info!("{bdf}: bound, behind an IOMMU");
            }
        }
        Ok(())
    }

    /// The name of what translates or does not, for reports.
    pub fn name(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Iommu(_) => "iommu",
            Self::Noiommu(_) => "noiommu",
            Self::Mixed { .. } => "noiommu and iommu",
            Self::Synthetic(_) => "software",
        }
    }

    /// The space of devices in noiommu mode.
    pub fn noiommu(&mut self) -> Option<&mut NoiommuSpace> {
        match self {
            Self::Noiommu(space) | Self::Mixed { noiommu: space, .. } => Some(space),
            Self::None | Self::Iommu(_) | Self::Synthetic(_) => None,
        }
    }

    /// The source of the physical addresses of guest memory that devices use; `None` if they use none.
    pub fn addresses(&self) -> Option<AddressSource> {
        match self {
            Self::Noiommu(space) | Self::Mixed { noiommu: space, .. } => Some(space.addresses()),
            Self::None | Self::Iommu(_) | Self::Synthetic(_) => None,
        }
    }

    /// The space of devices behind an IOMMU.
    pub fn iommu(&self) -> Option<&IommuSpace> {
        match self {
            Self::Iommu(space) | Self::Mixed { iommu: space, .. } => Some(space),
            Self::None | Self::Noiommu(_) | Self::Synthetic(_) => None,
        }
    }

    /// The synthetic machine.
    pub fn synthetic(&mut self) -> Option<&mut dyn SyntheticMachine> {
        match self {
            Self::Synthetic(machine) => Some(machine.as_mut()),
            _ => None,
        }
    }

    /// Takes the space of devices behind an IOMMU out.
    fn take_iommu(&mut self) -> Option<IommuSpace> {
        let (rest, taken) = match std::mem::take(self) {
            Self::Iommu(iommu) => (Self::None, Some(iommu)),
            Self::Mixed { noiommu, iommu } => (Self::Noiommu(noiommu), Some(iommu)),
            rest => (rest, None),
        };
        *self = rest;
        taken
    }

    /// Takes the space of devices in noiommu mode out.
    fn take_noiommu(&mut self) -> Option<NoiommuSpace> {
        let (rest, taken) = match std::mem::take(self) {
            Self::Noiommu(noiommu) => (Self::None, Some(noiommu)),
            Self::Mixed { noiommu, iommu } => (Self::Iommu(iommu), Some(noiommu)),
            rest => (rest, None),
        };
        *self = rest;
        taken
    }
}

/// The devices of one guest and their address spaces.
#[derive(Debug, Default)]
pub(crate) struct Assigned {
    pub devices: Vec<AssignedDevice>,
    pub spaces: AddressSpaces,
    /// Keeps memory pinned should this process fail to make all devices quiet. Only devices in noiommu mode need
    /// one.
    keeper: Option<Keeper>,
    /// Keeps memory pinned as long as this process has it; `None` where this process and the keeper pin it.
    iommufd: Option<Arc<Iommufd>>,
    /// What the devices in noiommu mode may write to, in bytes; 0 as long as nothing is pinned.
    bytes: u64,
    evidence: Vec<Quiet>,
    /// The devices in noiommu mode, as they were before they were bound.
    known: Vec<Leftover>,
    /// Those that could not be made quiet while they were open.
    unquiet: Vec<Leftover>,
}

impl Assigned {
    /// No device yet; `inspected` are those that will be opened by `path`. The keeper of those in noiommu mode
    /// is started here, before any of them is open.
    ///
    /// # Errors
    /// [`KeeperError`]
    pub fn new(
        path: &KernelPath,
        inspected: &[InspectedDevice],
        sysfs: &PciSysfs,
    ) -> Result<Self, KeeperError> {
        let iommufd = path.iommufd();
        let noiommu = inspected
            .iter()
            .filter(|device| device.kind == CdevKind::Noiommu);
        let known: Vec<_> = noiommu
            .map(|device| device.leftover(sysfs, iommufd.is_none()))
            .collect();
        let keeper = match known.as_slice() {
            [] => None,
            devices => Some(Keeper::start(iommufd.map(AsFd::as_fd), devices)?),
        };
        Ok(Self {
            keeper,
            iommufd: iommufd.cloned(),
            known,
            ..Self::default()
        })
    }

    /// A synthetic machine, and no device of the host.
    pub fn synthetic(machine: Box<dyn SyntheticMachine>) -> Self {
        Self {
            spaces: AddressSpaces::Synthetic(machine),
            ..Self::default()
        }
    }

    /// Pins the monitor's memory for those devices that are guarded, for a guest with so many CPUs. Returns its bytes.
    ///
    /// # Errors
    /// [`Backend`]
    pub fn pin_own_pages(&mut self, cpus: u8) -> Result<u64, Backend> {
        let mut bytes = 0;
        for device in &mut self.devices {
            let (DmaPath::Guarded(_), Some(space)) = (&device.dma, self.spaces.noiommu()) else {
                continue;
            };
            let pool = guarded::pin_pages(space, cpus, bytes)?;
            bytes += pool.len();
            device.own_pages = Some(pool);
        }
        Ok(bytes)
    }

    /// Reports memory that is pinned now to the keeper: `bytes`, which are `parts` of `file` and the monitor's own. Where
    /// the kernel would unpin it when this process is killed, the keeper pins it as well. Devices must not be given its
    /// addresses before.
    ///
    /// # Errors
    /// [`KeeperError`]
    pub fn pinned(
        &mut self,
        file: &File,
        parts: &[Range<u64>],
        bytes: u64,
    ) -> Result<(), KeeperError> {
        let Some(keeper) = &self.keeper else {
            return Ok(());
        };
        if self.iommufd.is_none() {
            keeper.pin(file.as_fd(), parts)?;
            let own = self.devices.iter().flat_map(|device| &device.own_pages);
            for FileRange { file, offset, len } in own.map(|pool| pool.file()) {
                keeper.pin(file, &[offset..offset + len])?;
            }
            log::debug!("keeper: {} MiB are pinned there, too", bytes >> 20);
        }
        keeper.memory(file.as_fd(), bytes)?;
        self.bytes = bytes;
        Ok(())
    }

    /// The directory where this process would be found if it had to keep memory in place of its keeper, if it has one.
    pub fn published(&self) -> Option<OwnedFd> {
        self.keeper.as_ref()?;
        let opened = keeper::open_directory();
        opened
            .inspect_err(|error| log::debug!("{}: {error}", keeper::DIRECTORY))
            .ok()
    }

    /// Ends all DMA of the devices for good. The guest must not be able to turn bus mastering on
    /// again by then. Returns what failed; the other devices are made quiet nevertheless.
    pub fn quiesce(&mut self) -> Vec<Backend> {
        if !self.evidence.is_empty() || !self.unquiet.is_empty() {
            return Vec::new();
        }
        let with_methods: Vec<_> = self
            .devices
            .iter()
            .map(AssignedDevice::with_method)
            .collect();
        let mut errors = Vec::new();
        for (assigned, result) in self.devices.iter().zip(quiesce(&with_methods)) {
            let bdf = assigned.bdf();
            match result {
                Ok(quiet) => {
                    report(&quiet);
                    self.evidence.push(quiet);
                }
                Err(error) => {
                    let known = self.known.iter().filter(|known| known.bdf == bdf);
                    self.unquiet.extend(known.cloned());
                    errors.push(error);
                }
            }
        }
        errors
    }

    /// Closes the devices, all at once: the kernel resets each of them then. If one is still in use, memory stays pinned: when this process ends, the kernel closes
    /// the device and the keeper looks at it.
    ///
    /// # Errors
    /// [`ProcessError`]
    pub fn close(&mut self) -> Result<(), ProcessError> {
        let mut unused = Vec::new();
        let mut in_use = false;
        for AssignedDevice { device, .. } in self.devices.drain(..) {
            let bdf = device.bdf();
            match Arc::into_inner(device) {
                Some(device) => unused.push((bdf, Mutex::new(Some(device)))),
                None => {
                    log::error!(
                        "{bdf} is still in use: guest memory stays pinned until the process exits"
                    );
                    in_use = true;
                }
            }
        }
        in_parallel(&unused, |(bdf, device)| {
            let device = device.lock().unwrap_or_else(PoisonError::into_inner).take();
            drop(device);
            log::debug!("{bdf}: closed");
        });
        if !in_use {
            return Ok(());
        }
        self.part();
        Err(ProcessError {
            operation: "close all devices",
            source: "one is still in use".into(),
        })
    }

    /// Ends the I/O page tables of devices behind an IOMMU, which are closed.
    ///
    /// # Errors
    /// [`Backend`]
    pub fn release_iommu(&mut self) -> Result<(), Backend> {
        let iommu = self.spaces.take_iommu();
        iommu.map_or(Ok(()), IommuSpace::release)
    }

    /// Verifies that all devices, which are closed, are quiet. Those that were not when they were open are made
    /// so by the keeper, through sysfs; failing that, it keeps the memory.
    ///
    /// # Errors
    /// [`KeepError::MemoryKept`]
    pub fn verify(&mut self) -> Result<(), KeepError> {
        let kept = self.settle();
        let Some(first) = kept.first().map(|first| first.bdf) else {
            return Ok(());
        };
        let error = self.keep(first, kept);
        self.part();
        Err(error)
    }

    /// Gives the memory back that was pinned for devices in noiommu mode, which are quiet.
    ///
    /// # Errors
    /// [`Backend`]
    pub fn unpin(&mut self) -> Result<(), Backend> {
        let noiommu = self.spaces.take_noiommu().filter(|_| self.bytes > 0);
        let released = noiommu.map_or(Ok(()), |space| space.release(&self.evidence));
        // Without evidence for a device memory is not to go with this process.
        if !matches!(released, Err(Backend::NotQuiet { .. }))
            && let Some(keeper) = self.keeper.take()
        {
            self.iommufd = None;
            keeper.released();
        }
        released
    }

    /// Has nothing to do with the memory any more, which stays pinned.
    fn part(&mut self) {
        drop(self.spaces.take_noiommu());
        self.keeper = None;
        self.unquiet.clear();
    }

    /// Makes the devices quiet that were not when they were closed, and returns those for which
    /// there is no evidence.
    fn settle(&mut self) -> Vec<Kept> {
        let unquiet = std::mem::take(&mut self.unquiet);
        if unquiet.is_empty() {
            return Vec::new();
        }
        let no_keeper = |why: &str| {
            let kept = unquiet.iter().map(|device| Kept::new(device, why.into()));
            (Vec::new(), kept.collect())
        };
        let (quiet, mut kept) = match &self.keeper {
            Some(keeper) => keeper
                .settle(&unquiet)
                .unwrap_or_else(|error| no_keeper(&chain(&error))),
            None => no_keeper("no keeper runs that could reset it"),
        };
        quiet.iter().for_each(report);
        self.evidence.extend(quiet);
        // No device can write to memory whose address it was never given.
        if self.bytes == 0 {
            kept.clear();
        }
        kept
    }

    /// Leaves the memory to the keeper, or stays in its place.
    fn keep(&mut self, first: Bdf, devices: Vec<Kept>) -> KeepError {
        let status = Status {
            bytes: self.bytes,
            devices,
        };
        let error = |process, status| KeepError::MemoryKept {
            bdf: first,
            process,
            status,
        };
        let asked = self
            .keeper
            .as_ref()
            .map(|keeper| (keeper.pid(), keeper.keep(status.devices.clone())));
        let failed = match asked {
            Some((process, Ok(found))) => {
                if !found {
                    log::warn!("pinvisor list and release do not find process {process}");
                }
                return error(process, status);
            }
            Some((_, Err(failed))) => failed.to_string(),
            None => "there is none".to_owned(),
        };
        log::error!(
            "The keeper did not take over the memory: {failed}; this process keeps it and does not \
             exit"
        );
        let error = error(std::process::id(), status.clone());
        log::error!("{}", chain(&error));
        keeper::keep_here(status);
        error
    }
}

/// Logs how a device was made quiet.
fn report(quiet: &Quiet) {
    let bdf = quiet.bdf();
    match quiet.because() {
        Because::Accepted => log::warn!(
            "{bdf}: was not reset: it keeps this guest's programming, and may write to memory that \
             is no longer the guest's once a driver enables its bus mastering"
        ),
        because => log::info!("{bdf}: quiet: {because}"),
    }
}

/// Reports the keepers that keep memory for one of `devices`.
pub(crate) fn warn_of_keepers(devices: &[DeviceConfig]) {
    for DeviceConfig { bdf, .. } in devices {
        for found in host::keepers_of(&SysRoot::default(), *bdf) {
            log::warn!("{}: pinvisor release {bdf}", host::keeper_text(&found));
        }
    }
}
