// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The requirements of a run on the host.

use address::Bdf;
use iommufd_backend::CdevKind;
use iommufd_backend::hugepages::HugepageSize;

use crate::facts::auto_dma::AutoDma;
use crate::facts::backend::{BackendChoice, BackendDecision};
use crate::facts::device::cdev_kind;
use crate::facts::dma_mode::{DmaConflict, DmaMode, ResolvedDma, needs_hugepages};
use crate::facts::iommu::iommus;
use crate::facts::open_files::OpenFiles;
use crate::sys_root::SysRoot;

/// How the monitor would translate for a device with [`DmaMode::Mediate`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Mediation {
    /// By a register profile.
    #[default]
    Profile,
    /// By a profile that there is not, for this reason.
    NoProfile(String),
    /// As a guarded NVMe controller, which needs no profile.
    Guarded,
}

/// A device that a run is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedDevice {
    /// Its name on the host.
    pub bdf: Bdf,
    /// How its DMA is to reach guest memory.
    pub dma: DmaMode,
    /// How the monitor would translate for it.
    pub mediation: Mediation,
    /// Whether it may be used although it cannot be reset.
    pub allow_no_reset: bool,
}

impl From<Bdf> for WantedDevice {
    fn from(bdf: Bdf) -> Self {
        Self {
            bdf,
            dma: DmaMode::Auto,
            mediation: Mediation::Profile,
            allow_no_reset: false,
        }
    }
}

impl WantedDevice {
    /// Its mode in a run, where `auto` was [decided](Wanted::auto).
    ///
    /// # Errors
    /// Why it cannot have the requested one.
    pub(crate) fn mode(&self, root: &SysRoot, auto: &AutoDma) -> Result<ResolvedDma, DmaConflict> {
        self.dma.resolve(cdev_kind(root, self.bdf), auto)
    }
}

/// Guest memory that a run is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WantedMemory {
    /// Bytes.
    pub bytes: u64,
    /// Its page size, if specified.
    pub hugepage_size: Option<HugepageSize>,
}

/// What is to be run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Devices to pass through.
    pub devices: Vec<WantedDevice>,
    /// Guest memory, if known.
    pub memory: Option<WantedMemory>,
    /// The kernel's interface to use for devices that have no IOMMU.
    pub backend: BackendChoice,
}

impl Wanted {
    /// The devices' names.
    pub(crate) fn names(&self) -> Vec<Bdf> {
        self.devices.iter().map(|device| device.bdf).collect()
    }

    /// By which interface a run uses the devices that have no IOMMU.
    pub(crate) fn decide_backend(&self, root: &SysRoot) -> BackendDecision {
        BackendDecision::new(root, self.backend, self.names())
    }

    /// What `dma=auto` is for the devices that have no IOMMU.
    pub(crate) fn auto(&self, root: &SysRoot) -> AutoDma {
        let devices = self.devices.iter().map(|device| (device.bdf, device.dma));
        AutoDma::decide(root, devices, self.memory.as_ref())
    }

    /// What a run opens files for, with one CPU, and no memory if that is not known.
    pub(crate) fn open_files(&self, root: &SysRoot, auto: &AutoDma) -> OpenFiles {
        let is_guarded = |device: &&WantedDevice| {
            device.mode(root, auto) == Ok(ResolvedDma::Mediate)
                && (device.dma == DmaMode::Auto || device.mediation == Mediation::Guarded)
        };
        let is_noiommu = |device: &WantedDevice| cdev_kind(root, device.bdf) == CdevKind::Noiommu;
        let bytes = match self.devices.iter().any(is_noiommu) {
            true => self.memory.map_or(0, |memory| memory.bytes),
            false => 0,
        };
        OpenFiles {
            devices: self.devices.len(),
            guarded: self.devices.iter().filter(is_guarded).count(),
            cpus: 1,
            rings: self.decide_backend(root).backend.rings(bytes),
        }
    }

    /// Whether guest memory has to be made of hugepages. Without any device, what the machine has decides.
    pub(crate) fn needs_hugepages(&self, root: &SysRoot, auto: &AutoDma) -> bool {
        let size = self.memory.and_then(|memory| memory.hugepage_size);
        let of_machine = match iommus(root).is_empty() {
            true => ResolvedDma::Identity,
            false => ResolvedDma::Iommu,
        };
        match self.devices.as_slice() {
            [] => needs_hugepages([of_machine], size),
            devices => needs_hugepages(
                devices
                    .iter()
                    .filter_map(|device| device.mode(root, auto).ok()),
                size,
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys_root::tests::Fake;

    #[test]
    fn the_devices_or_the_machine_decide_about_hugepages() {
        let fake = Fake::new();
        let disk = fake.disk();
        let needs = |modes: &[DmaMode], hugepage_size| {
            let device = |dma: &DmaMode| WantedDevice {
                dma: *dma,
                ..disk.into()
            };
            let wanted = Wanted {
                devices: modes.iter().map(device).collect(),
                memory: Some(WantedMemory {
                    bytes: 1 << 30,
                    hugepage_size,
                }),
                ..Wanted::default()
            };
            wanted.needs_hugepages(&fake.root, &wanted.auto(&fake.root))
        };
        assert!(needs(&[], None));
        assert!(!needs(&[DmaMode::Auto], None), "there are none");
        fake.write(
            "sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages",
            "512",
        );
        assert!(needs(&[DmaMode::Auto], None));
        assert!(!needs(&[DmaMode::Mediate], None));
        assert!(!needs(&[DmaMode::Translate], None));
        assert!(needs(&[DmaMode::Mediate, DmaMode::Identity], None));
        assert!(needs(&[DmaMode::Mediate], Some(HugepageSize::Gib1)));
        fake.directory("sys/class/iommu/dmar0");
        assert!(!needs(&[], None));
    }
}
