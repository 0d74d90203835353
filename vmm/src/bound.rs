//! Devices that are bound for one guest, the memory that is pinned for them, and the order in which
//! both are given back.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use address::Bdf;
use iommufd_backend::{
    Because, IommuSpace, Iommufd, Leftover, NoiommuSpace, PciSysfs, Quiet, ResetMethod, VfioDevice,
    quiesce, reset_each, settle,
};
use keeper::{Keeper, Kept, Status};

use crate::error::Error;

/// How long the kernel may take to take a device apart that was closed.
const SETTLE: Duration = Duration::from_secs(5);

/// A bound device and the way to reset it.
#[derive(Debug)]
pub struct BoundDevice {
    /// The device.
    pub device: Arc<VfioDevice>,
    /// How it is reset.
    pub reset: ResetMethod,
}

/// Resets `devices`, each bus once. Bus mastering comes back as it was.
pub fn reset(devices: &[BoundDevice]) -> Vec<Result<(), Error>> {
    let results = reset_each(&with_methods(devices)).into_iter();
    results.map(|result| Ok(result?)).collect()
}

fn with_methods(devices: &[BoundDevice]) -> Vec<(&VfioDevice, &ResetMethod)> {
    devices
        .iter()
        .map(|bound| (&*bound.device, &bound.reset))
        .collect()
}

/// What is given back when a guest has ended, devices first. Dropping it does so.
#[derive(Debug, Default)]
pub struct Held {
    /// The devices.
    pub devices: Vec<BoundDevice>,
    /// For devices in noiommu mode, if there are any.
    pub noiommu: Option<NoiommuSpace>,
    /// For devices behind an IOMMU, if there are any. Never the same space: nothing would keep a
    /// device in noiommu mode inside it.
    pub iommu: Option<IommuSpace>,
    /// Who keeps memory pinned should this process fail to make all devices quiet. Only devices in
    /// noiommu mode need one.
    keeper: Option<Keeper>,
    /// Keeps memory pinned as long as this process has it.
    iommufd: Option<Arc<Iommufd>>,
    /// What the devices in noiommu mode may write to, in bytes; 0 as long as nothing is pinned.
    bytes: u64,
    evidence: Vec<Quiet>,
    /// The devices in noiommu mode, as they were before they were bound.
    known: Vec<Leftover>,
    /// Those that could not be made quiet while they were open.
    unquiet: Vec<Leftover>,
}

impl Held {
    /// Nothing yet; `noiommu` are the devices in noiommu mode that will be bound to `iommufd`. Their
    /// keeper is started here, before any of them is open.
    ///
    /// # Errors
    /// [`Error::Keeper`]
    pub fn new(iommufd: &Arc<Iommufd>, noiommu: &[Leftover]) -> Result<Self, Error> {
        let keeper = match noiommu {
            [] => None,
            devices => Some(Keeper::start(iommufd.as_fd(), devices)?),
        };
        let mut held = Self::default();
        held.keeper = keeper;
        held.iommufd = Some(Arc::clone(iommufd));
        held.known = noiommu.to_vec();
        Ok(held)
    }

    /// Tells the keeper of memory that is pinned now: `bytes` of `file`.
    ///
    /// # Errors
    /// [`Error::Keeper`]
    pub fn pinned(&mut self, file: &File, bytes: u64) -> Result<(), Error> {
        if let Some(keeper) = &self.keeper {
            keeper.memory(file.as_fd(), bytes)?;
            self.bytes = bytes;
        }
        Ok(())
    }

    /// Ends all DMA of the devices for good. Nobody may be able to turn bus mastering on again by
    /// then. Returns what failed; the other devices are made quiet all the same.
    pub fn quiesce(&mut self) -> Vec<Error> {
        if !self.evidence.is_empty() || !self.unquiet.is_empty() {
            return Vec::new();
        }
        let mut errors = Vec::new();
        for (bound, result) in self
            .devices
            .iter()
            .zip(quiesce(&with_methods(&self.devices)))
        {
            let bdf = bound.device.bdf();
            match result {
                Ok(quiet) => {
                    tell(&quiet);
                    self.evidence.push(quiet);
                }
                Err(error) => {
                    let known = self.known.iter().filter(|known| known.bdf == bdf);
                    self.unquiet.extend(known.cloned());
                    errors.push(error.into());
                }
            }
        }
        errors
    }

    /// Closes the devices and then lets go of the memory that was pinned for them, if there is
    /// evidence that all are quiet. Those that were not are made so through sysfs, since nobody has
    /// them any more; failing that, the keeper keeps the memory.
    pub fn release(&mut self) -> Vec<Error> {
        if !self.close() {
            // When this process ends, the kernel closes them and the keeper looks at them.
            self.part();
            return vec![Error::Process {
                operation: "close all devices",
                source: "one is still in use".into(),
            }];
        }
        let kept = self.settle(&PciSysfs::default());
        let iommu = self.iommu.take().and_then(|space| space.release().err());
        let mut errors: Vec<Error> = iommu.into_iter().map(Error::from).collect();
        match kept.first().map(|first| first.bdf) {
            None => errors.extend(self.unpin()),
            Some(first) => {
                errors.push(self.keep(first, kept));
                self.part();
            }
        }
        errors
    }

    /// Has nothing to do with the memory any more, which stays pinned.
    fn part(&mut self) {
        self.noiommu = None;
        self.keeper = None;
        self.unquiet.clear();
    }

    /// Closes the devices; returns whether all of them are closed.
    fn close(&mut self) -> bool {
        let mut closed = true;
        for BoundDevice { device, .. } in self.devices.drain(..) {
            let bdf = device.bdf();
            if Arc::into_inner(device).is_none() {
                log::error!("{bdf} is still in use: guest memory stays pinned until the end");
                closed = false;
            } else {
                log::debug!("{bdf}: closed");
            }
        }
        closed
    }

    /// Makes the devices quiet that were not when they were closed, and returns those for which
    /// there is no evidence.
    fn settle(&mut self, sysfs: &PciSysfs) -> Vec<Kept> {
        // All of them are closed.
        let ours: Vec<Bdf> = self.known.iter().map(|device| device.bdf).collect();
        let mut kept = Vec::new();
        for device in self.unquiet.drain(..) {
            match settle(sysfs, &device, &ours, SETTLE) {
                Ok(quiet) => {
                    tell(&quiet);
                    self.evidence.push(quiet);
                }
                Err(error) => kept.push(Kept::new(&device, Error::from(error).chain())),
            }
        }
        // What no device was told of, none can write to.
        if self.bytes == 0 {
            kept.clear();
        }
        kept
    }

    fn unpin(&mut self) -> Option<Error> {
        let noiommu = self.noiommu.take().filter(|_| self.bytes > 0);
        let error = noiommu.and_then(|space| space.release(&self.evidence).err());
        // Without evidence for a device memory is not to go with this process.
        if !matches!(error, Some(iommufd_backend::Error::NotQuiet { .. }))
            && let Some(keeper) = self.keeper.take()
        {
            self.iommufd = None;
            keeper.released();
        }
        error.map(Error::from)
    }

    /// Leaves the memory to the keeper, or stays in its place.
    fn keep(&mut self, first: Bdf, devices: Vec<Kept>) -> Error {
        let status = Status {
            bytes: self.bytes,
            devices,
        };
        let error = |process, status| Error::MemoryKept {
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
                    log::warn!("Process {process} is not found by pinvisor list and release");
                }
                return error(process, status);
            }
            Some((_, Err(failed))) => failed.to_string(),
            None => "there is none".to_owned(),
        };
        log::error!(
            "The keeper of memory does not keep it: {failed}; this process does, and stays"
        );
        let error = error(std::process::id(), status.clone());
        log::error!("{}", error.chain());
        keeper::keep_here(status);
        error
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        for error in self.quiesce().into_iter().chain(self.release()) {
            log::error!("{}", error.chain());
        }
    }
}

/// Notes how a device was made quiet.
fn tell(quiet: &Quiet) {
    let bdf = quiet.bdf();
    match quiet.because() {
        Because::Accepted => log::warn!(
            "{bdf}: was not reset: it keeps what this guest told it, and the next driver that \
             turns its bus mastering on may let it write to memory that is others' by then"
        ),
        because => log::info!("{bdf}: quiet: {because}"),
    }
}

/// Reports the keepers that keep memory for one of `devices`.
pub fn warn_of_keepers(devices: &[Bdf]) {
    for found in keeper::find(Path::new(keeper::DIRECTORY)) {
        let kept = found.status.devices.iter();
        for bdf in kept.map(|device| device.bdf) {
            if devices.contains(&bdf) {
                log::warn!(
                    "process {} keeps {}: pinvisor release {bdf}",
                    found.pid,
                    found.status
                );
            }
        }
    }
}
