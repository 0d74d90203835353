// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The first stage: everything that can be checked before any device is touched. Every refusal that
//! needs the host, but no change to it, comes from here; those that need no host come from
//! [`validate`](crate::config::Config::validate).

mod error;
mod packing;

use std::ops::Range;

use address::{Bdf, Hpa};
use host::{
    AutoDma, Backend, BackendDecision, DmaConflict, DmaMode, GuardObstacle, OpenFiles, Privilege,
    ResolvedDma, SysRoot,
};
use iommufd_backend::CdevKind;

use super::Harness;
use crate::arch;
use crate::boot::files::BootFiles;
use crate::boot::release::Release;
use crate::bus::address_map::AddressMap;
use crate::bus::allocator::BusAllocator;
use crate::bus::emulated::EmulatedFunction;
use crate::bus::engine::Engine;
use crate::bus::slots;
use crate::bus::synthetic::SyntheticMachine;
use crate::config::{self, Config, DeviceConfig, MemoryConfig, ValidConfig};
use crate::error::Error;
use crate::memory::backing;
use crate::memory::layout::Layout;
use crate::memory::layouts::Layouts;
use crate::passthrough::assigned;
use crate::passthrough::dma_path::DmaPath;
use crate::passthrough::guarded::GuardError;
use crate::passthrough::inspected::InspectedDevice;
use crate::passthrough::kernel_path::KernelPath;
use crate::passthrough::profile::profile_for;
use crate::run::limits;
use crate::run::machine_info::in_guest;

pub use error::InspectError;
use packing::layouts;

/// What is known of a guest before anything is set up for it.
#[derive(Debug)]
pub(crate) struct Guest<'a> {
    pub config: &'a Config,
    /// Where RAM may go, by whether a device [`uses_physical`](Self::uses_physical) addresses.
    pub layouts: Layouts<'a>,
    pub files: BootFiles,
    /// Which release of Linux the kernel is; `None` if it is not known to be Linux.
    pub release: Option<Release>,
    /// Whether a device uses addresses as its driver gives them, so that these must be host-physical ones.
    pub uses_physical: bool,
    /// Whether a device's driver in the guest translates addresses.
    pub translates: bool,
    /// Whether a device is guarded, which takes no address outside pinned memory.
    pub guards: bool,
    /// Whether guest memory is made of hugepages.
    pub of_hugepages: bool,
    /// The memory BARs, each with its device's name, and where the host has them.
    pub bars: Vec<(String, Range<Hpa>)>,
    /// The guest's bus, if it has one, and its addresses outside RAM.
    pub bus: BusAllocator,
    /// What the monitor emulates on it.
    pub functions: Vec<Box<dyn EmulatedFunction>>,
}

/// What will do DMA.
#[derive(Debug)]
pub(super) enum Source {
    /// Devices of the host.
    Devices {
        /// How they are opened.
        path: KernelPath,
        devices: Vec<InspectedDevice>,
    },
    /// Nothing: an ordinary microVM.
    None,
    /// Software, which needs none of the host's memory.
    Synthetic(Box<dyn SyntheticMachine>),
}

/// A guest that nothing on this host is known to keep from running, and its devices, still untouched.
#[derive(Debug)]
pub(crate) struct Inspected<'a> {
    pub(super) guest: Guest<'a>,
    pub(super) source: Source,
}

/// The files that a guest boots from.
#[derive(Debug)]
pub(super) struct Boot {
    files: BootFiles,
    release: Option<Release>,
}

impl Boot {
    /// Opens those that `config` names.
    pub(super) fn open(config: &ValidConfig) -> Result<Self, Error> {
        let files = BootFiles::open(config)?;
        let release = files.release()?;
        files.check_command_line(&config.command_line, release.is_some())?;
        Ok(Self { files, release })
    }
}

impl<'a> Inspected<'a> {
    /// Reads all files that `config` names and looks at its devices.
    pub fn new(config: &'a ValidConfig, harness: Harness<'a>) -> Result<Self, Error> {
        let Harness {
            layout, machine, ..
        } = harness;
        limits::raise_open_files();
        let boot = Boot::open(config)?;
        let source = Source::inspect(config, machine)?;
        let map = source.address_map(&source.bars())?;
        let inspected = Self::of(config, layout, boot, (source, map))?;
        let Self { guest, source } = &inspected;
        source.check_memory(&config.memory, guest.of_hugepages)?;
        guest.files.check_room(config.memory.size)?;
        Ok(inspected)
    }

    /// A guest with these files, whose devices are known, and with them its addresses outside RAM.
    pub(super) fn of(
        config: &'a ValidConfig,
        layout: Option<&'a dyn Layout>,
        boot: Boot,
        (source, map): (Source, Option<AddressMap>),
    ) -> Result<Self, Error> {
        let is_guarded = |path: &&DmaPath| matches!(path, DmaPath::Guarded(_));
        limits::check_open_files(OpenFiles {
            devices: config.devices.len(),
            guarded: source.paths().filter(is_guarded).count(),
            cpus: config.cpus.get(),
            rings: source.rings(config.memory.size),
        })?;
        let any = |wanted: fn(&DmaPath) -> bool| source.paths().any(wanted);
        let uses_physical = any(|path| matches!(path, DmaPath::Identity));
        if layout.is_some_and(Layout::needs_identity) && !uses_physical {
            return Err(InspectError::NoIdentity.into());
        }
        let layouts = match layout {
            Some(layout) => Layouts::only(layout),
            None => layouts(config.memory.layout, source.devices())?,
        };
        let translates = any(|path| matches!(path, DmaPath::Translate));
        let guards = any(|path| matches!(path, DmaPath::Guarded(_)));
        if guards && (uses_physical || translates) {
            log::warn!(
                "a device of this guest uses physical addresses, so that guarding another one isolates nothing: the \
                 guest must be trusted like root"
            );
        }
        let bars = source.bars();
        let taken = in_guest(bars.clone()).into_iter().map(|(_, bar)| bar);
        let bus = BusAllocator::new(map, taken.collect(), source.next_slot());
        let modes = source.devices().map(|(_, mode)| mode);
        let of_hugepages = host::needs_hugepages(modes, config.memory.hugepage_size);
        Ok(Self {
            guest: Guest {
                config,
                layouts,
                files: boot.files,
                release: boot.release,
                uses_physical,
                translates,
                guards,
                of_hugepages,
                bars,
                bus,
                functions: source.functions(),
            },
            source,
        })
    }
}

impl Source {
    fn inspect(
        config: &ValidConfig,
        machine: Option<Box<dyn SyntheticMachine>>,
    ) -> Result<Self, Error> {
        let profiles = config.devices.iter().map(config::profile);
        let profiles = profiles.collect::<Result<Vec<_>, _>>()?;
        if let Some(machine) = machine {
            return match config.devices.first() {
                Some(DeviceConfig { bdf, .. }) => {
                    Err(InspectError::DeviceWithSoftware { bdf: *bdf }.into())
                }
                None => Ok(Self::Synthetic(machine)),
            };
        }
        if config.devices.is_empty() {
            return Ok(Self::None);
        }
        let root = SysRoot::default();
        let sysfs = root.pci();
        let names = config.devices.iter().map(|device| device.bdf);
        let decision = BackendDecision::new(&root, config.backend, names);
        log::info!("{}", host::backend_text(&decision));
        let path = KernelPath::open(decision.backend)?;
        let auto = backing::auto_dma(&root, config);
        let mut devices = Vec::new();
        for ((device, slot), profile) in config.devices.iter().zip(config.slots()).zip(profiles) {
            check_path(&path, device.bdf, host::cdev_kind(&root, device.bdf))?;
            let kind = path.find(sysfs, device.bdf)?;
            let mode = check_mode(device, kind, &auto, config.noiommu)?;
            check_encryption(&root, device.bdf, kind)?;
            check_addresses(&root, device.bdf, kind)?;
            host::ensure_no_virtual_functions(&root, device.bdf)?;
            let is_nvme = host::is_nvme(&root, device.bdf);
            let nvme = is_nvme.then(|| device.poll.unwrap_or_default());
            let mut dma = DmaPath::of(mode, profile, nvme);
            if let DmaPath::Mediate(profile) = &mut dma {
                *profile = Some(profile_for(sysfs, device.bdf, profile.take())?);
            }
            check_guarded(&root, device, &dma)?;
            log_choice(&root, device, mode, &auto);
            devices.push(InspectedDevice {
                bdf: device.bdf,
                slot: *slot,
                kind,
                dma,
                accepts_no_reset: device.allow_no_reset,
                regions: sysfs.resources(device.bdf)?,
                dma_width: sysfs.dma_width(device.bdf),
            });
        }
        assigned::warn_of_keepers(&config.devices);
        Ok(Self::Devices { path, devices })
    }

    /// Whether the host has guest memory, and this process may pin it for devices.
    fn check_memory(&self, memory: &MemoryConfig, of_hugepages: bool) -> Result<(), Error> {
        match self {
            Self::Devices { path, .. } => {
                let root = SysRoot::default();
                let limit = Privilege::of_caller(&root).locked_memory_limit(&root);
                let bytes = memory.size.saturating_mul(path.backend().pins());
                backing::check_locked(bytes, limit)?;
            }
            // Ordinary memory is not pinned then, and taken as it is used.
            Self::Synthetic(_) if !of_hugepages => return Ok(()),
            Self::None | Self::Synthetic(_) => {}
        }
        Ok(backing::check(memory, of_hugepages)?)
    }

    /// The most rings of io_uring that pin `bytes` of guest memory.
    fn rings(&self, bytes: u64) -> u64 {
        match self {
            Self::Devices { path, .. } => path.backend().rings(bytes),
            Self::None | Self::Synthetic(_) => 0,
        }
    }

    fn paths(&self) -> impl Iterator<Item = &DmaPath> {
        let (devices, engine) = match self {
            Self::Devices { devices, .. } => (devices.as_slice(), None),
            Self::None => (&[][..], None),
            Self::Synthetic(machine) => (&[][..], Some(machine.dma_path())),
        };
        devices.iter().map(|device| &device.dma).chain(engine)
    }

    fn bars(&self) -> Vec<(String, Range<Hpa>)> {
        match self {
            Self::Devices { devices, .. } => {
                devices.iter().flat_map(InspectedDevice::bars).collect()
            }
            Self::None => Vec::new(),
            Self::Synthetic(machine) => machine.bars(),
        }
    }

    /// The guest's address map outside RAM, which follows from where BARs are. `None` if the guest has no PCI bus:
    /// with nothing to be on it, a kernel would only look for functions (Linux, drivers/pci/probe.c,
    /// `pci_scan_child_bus`), and each access to config space is an exit.
    fn address_map(&self, bars: &[(String, Range<Hpa>)]) -> Result<Option<AddressMap>, Error> {
        match self {
            Self::Devices { .. } => {
                let bars: Vec<_> = bars.iter().map(|(_, range)| range.clone()).collect();
                let modes: Vec<_> = self.devices().collect();
                let root = SysRoot::default();
                let map = root.iomem()?;
                let bridges = arch::host_bridges(&root, &map, &modes)?;
                Ok(Some(AddressMap::new(&map, bridges, &bars)?))
            }
            Self::None => Ok(None),
            Self::Synthetic(machine) => Ok(Some(machine.address_map())),
        }
    }

    /// The first slot of the bus that is free.
    fn next_slot(&self) -> u8 {
        match self {
            Self::Devices { devices, .. } => {
                slots::next_slot(devices.iter().map(|device| &device.slot))
            }
            Self::None | Self::Synthetic(_) => slots::next_slot([]),
        }
    }

    /// The emulated functions that it is reached by.
    fn functions(&self) -> Vec<Box<dyn EmulatedFunction>> {
        match self {
            Self::Synthetic(_) => vec![Box::new(Engine)],
            Self::Devices { .. } | Self::None => Vec::new(),
        }
    }

    /// Devices of the host's, and how the DMA of each reaches guest memory.
    fn devices(&self) -> impl Iterator<Item = (Bdf, ResolvedDma)> {
        let devices = match self {
            Self::Devices { devices, .. } => devices.as_slice(),
            Self::None | Self::Synthetic(_) => &[],
        };
        devices.iter().map(|device| (device.bdf, device.dma.mode()))
    }
}

/// Whether a device of this kind can be opened by `path`.
fn check_path(path: &KernelPath, bdf: Bdf, kind: CdevKind) -> Result<(), InspectError> {
    match (path.backend(), kind) {
        (Backend::Group, CdevKind::Iommu) => Err(InspectError::NotOnGroupPath { bdf }),
        (Backend::Group, CdevKind::Noiommu) | (Backend::Cdev, _) => Ok(()),
    }
}

/// How the device's DMA reaches guest memory, if it can as asked, where `auto` was decided. A device without an IOMMU
/// has to be `accepted`.
fn check_mode(
    device: &DeviceConfig,
    kind: CdevKind,
    auto: &AutoDma,
    accepted: bool,
) -> Result<ResolvedDma, InspectError> {
    let bdf = device.bdf;
    match device.dma.resolve(kind, auto) {
        Err(DmaConflict::NotBehindIommu) => Err(InspectError::NotBehindIommu { bdf }),
        Err(DmaConflict::BehindIommu) => Err(InspectError::BehindIommu { bdf }),
        Ok(_) if kind == CdevKind::Noiommu && !accepted => {
            Err(InspectError::NoiommuNotAccepted { bdf })
        }
        Ok(mode) => Ok(mode),
    }
}

/// Logs what `dma=auto` is for a device, and why, where there was a choice.
fn log_choice(root: &SysRoot, device: &DeviceConfig, mode: ResolvedDma, auto: &AutoDma) {
    let bdf = device.bdf;
    match (device.dma, mode, auto) {
        (DmaMode::Auto, ResolvedDma::Mediate, AutoDma::Guarded(missing)) => log::warn!(
            "{bdf}: dma=auto selects mediate (guarded NVMe), because {missing}; its commands are checked by the monitor, \
             which takes time"
        ),
        (DmaMode::Auto, ResolvedDma::Identity, _) if host::is_nvme(root, bdf) => log::info!(
            "{bdf}: dma=auto selects identity, because hugepages are available or another device requires them; \
             dma=mediate would isolate the guest"
        ),
        (DmaMode::Auto, _, _) => log::info!("{bdf}: dma=auto selects {}", mode.name()),
        _ => {}
    }
}

/// Whether the physical addresses that the kernel reports are those that the device needs.
fn check_encryption(root: &SysRoot, bdf: Bdf, kind: CdevKind) -> Result<(), InspectError> {
    match (kind, host::memory_encryption(root)) {
        (CdevKind::Noiommu, Ok(Some(encryption))) => {
            Err(InspectError::MemoryEncrypted { bdf, encryption })
        }
        (CdevKind::Noiommu, Err(unknown)) => {
            log::warn!("{unknown}");
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Whether a controller that is to be guarded can be, as far as it shows before it is bound.
fn check_guarded(root: &SysRoot, device: &DeviceConfig, dma: &DmaPath) -> Result<(), Error> {
    let obstacle = match dma {
        DmaPath::Guarded(_) => host::guard_obstacle(root, device.bdf),
        // No other device is polled.
        _ => device.poll.map(|_| GuardObstacle::NotNvme),
    };
    match obstacle {
        Some(obstacle) => Err(GuardError::of(device.bdf)(obstacle).into()),
        None => Ok(()),
    }
}

/// Whether the CPU's addresses are those on the device's bus.
fn check_addresses(root: &SysRoot, bdf: Bdf, kind: CdevKind) -> Result<(), Error> {
    match host::translated_bar(root, bdf, kind)? {
        Some(found) => Err(InspectError::BusAddresses { bdf, found }.into()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::explain::Explain;

    #[test]
    fn groups_are_for_devices_without_an_iommu() {
        let path = KernelPath::Group(std::sync::Arc::default());
        let bdf = "01:00.0".parse().unwrap();
        check_path(&path, bdf, CdevKind::Noiommu).unwrap();
        let refused = check_path(&path, bdf, CdevKind::Iommu).unwrap_err();
        assert_eq!(refused.id(), "not-on-group-path");
        assert!(refused.to_string().contains("0000:01:00.0 (dma=iommu)"));
    }

    #[test]
    fn a_mode_that_is_not_possible_is_an_error_with_the_reason() {
        let id = |kind, options: &str, accepted| {
            let device: DeviceConfig = format!("01:00.0{options}").parse().unwrap();
            let mode = check_mode(&device, kind, &AutoDma::Identity, accepted);
            mode.map_err(|error| error.id())
        };
        let (iommu, noiommu) = (CdevKind::Iommu, CdevKind::Noiommu);
        assert_eq!(id(iommu, "", false), Ok(ResolvedDma::Iommu));
        assert_eq!(id(iommu, ",dma=mediate", true), Err("behind-iommu"));
        assert_eq!(id(noiommu, "", true), Ok(ResolvedDma::Identity));
        assert_eq!(id(noiommu, "", false), Err("noiommu-not-accepted"));
        assert_eq!(id(noiommu, ",dma=iommu", false), Err("not-behind-iommu"));
    }
}
