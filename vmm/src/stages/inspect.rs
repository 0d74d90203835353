//! The first stage: what is known before any device is touched. Every refusal that needs the host, but no change to it,
//! comes from here; those that need no host come from [`validate`](crate::config::Config::validate).

use std::ops::Range;
use std::sync::Arc;

use address::{Bdf, Hpa};
use host::SysRoot;
use iommufd_backend::{Cdev, CdevKind, IoMem, Iommufd, PciSysfs};

use super::Harness;
use super::open_kvm::Opened;
use crate::boot::files::BootFiles;
use crate::boot::release::Release;
use crate::bus::address_map::AddressMap;
use crate::bus::allocator::BusAllocator;
use crate::bus::slots;
use crate::bus::synthetic::SyntheticMachine;
use crate::config::{self, Config, DeviceConfig, DmaMode, ValidConfig};
use crate::error::Error;
use crate::kvm::vm::Vm;
use crate::memory::backing;
use crate::memory::layout::Layout;
use crate::passthrough::assigned;
use crate::passthrough::dma_path::DmaPath;
use crate::passthrough::inspected::InspectedDevice;
use crate::run::limits;
use crate::run::machine_info::in_guest;

/// The host's physical address map.
const IOMEM: &str = "/proc/iomem";

/// What is known of a guest before anything is set up for it.
#[derive(Debug)]
pub(crate) struct Guest<'a> {
    pub config: &'a Config,
    /// Where RAM goes if [`at_identity`](Self::at_identity).
    pub identity: &'a dyn Layout,
    pub files: BootFiles,
    /// Which release of Linux the kernel is; `None` if it is not known to be Linux.
    pub release: Option<Release>,
    /// Whether guest-physical addresses must be host-physical ones, because a device uses them as they are.
    pub at_identity: bool,
    /// Whether a device's driver in the guest translates addresses.
    pub translates: bool,
    /// The memory BARs, each with its device's name, and where the host has them.
    pub bars: Vec<(String, Range<Hpa>)>,
    /// The guest's bus, and its addresses outside RAM.
    pub bus: BusAllocator,
}

/// What will do DMA.
#[derive(Debug)]
pub(super) enum Source {
    /// Devices of the host.
    Devices {
        iommufd: Arc<Iommufd>,
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

impl<'a> Inspected<'a> {
    /// Reads all files that `config` names and looks at its devices.
    pub fn new(config: &'a ValidConfig, harness: Harness<'a>) -> Result<Self, Error> {
        let Harness { identity, machine } = harness;
        limits::raise_open_files(config.devices.len(), config.cpus.get())?;
        let files = BootFiles::open(config)?;
        let release = files.release()?;
        files.check_command_line(&config.command_line, release.is_some())?;
        let source = Source::inspect(config, machine)?;
        let any = |wanted: fn(&DmaPath) -> bool| source.paths().any(wanted);
        let at_identity = any(|path| matches!(path, DmaPath::Identity));
        if identity.needs_identity() && !at_identity {
            return Err(Error::NoIdentity);
        }
        let translates = any(|path| matches!(path, DmaPath::Translate));
        let bars = source.bars();
        let map = source.address_map(&bars)?;
        let taken = in_guest(bars.clone()).into_iter().map(|(_, bar)| bar);
        let bus = BusAllocator::new(map, taken.collect(), source.next_slot());
        if source.takes_hugepages(at_identity) || config.memory.hugepage_size.is_some() {
            backing::check_hugepages(&config.memory)?;
        }
        Ok(Self {
            guest: Guest {
                config,
                identity,
                files,
                release,
                at_identity,
                translates,
                bars,
                bus,
            },
            source,
        })
    }

    /// Opens KVM and creates the VM, which has neither memory nor CPUs yet.
    pub fn open_kvm(self) -> Result<Opened<'a>, Error> {
        Ok(Opened {
            vm: Vm::new()?,
            guest: self.guest,
            source: self.source,
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
                Some(DeviceConfig { bdf, .. }) => Err(Error::DeviceWithSoftware { bdf: *bdf }),
                None => Ok(Self::Synthetic(machine)),
            };
        }
        if config.devices.is_empty() {
            return Ok(Self::None);
        }
        let sysfs = PciSysfs::default();
        let iommufd = Arc::new(Iommufd::open()?);
        let mut devices = Vec::new();
        for ((device, slot), profile) in config.devices.iter().zip(config.slots()).zip(profiles) {
            let (_, kind) = Cdev::find(&sysfs, device.bdf)?;
            check_mode(device, kind, config.noiommu)?;
            check_encryption(device.bdf, kind)?;
            check_addresses(&sysfs, device.bdf, kind)?;
            host::ensure_no_virtual_functions(&SysRoot::default(), device.bdf)?;
            devices.push(InspectedDevice {
                bdf: device.bdf,
                slot: *slot,
                kind,
                dma: DmaPath::of(kind, device.dma, profile),
                accepts_no_reset: device.allow_no_reset,
                regions: sysfs.resources(device.bdf)?,
                dma_width: sysfs.dma_width(device.bdf),
            });
        }
        assigned::warn_of_keepers(&config.devices);
        Ok(Self::Devices { iommufd, devices })
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

    /// The guest's address map outside RAM, which follows from where BARs are.
    fn address_map(&self, bars: &[(String, Range<Hpa>)]) -> Result<AddressMap, Error> {
        match self {
            Self::Devices { .. } => {
                let bars: Vec<_> = bars.iter().map(|(_, range)| range.clone()).collect();
                Ok(AddressMap::new(&IoMem::read(IOMEM.as_ref())?, &bars)?)
            }
            Self::None => Ok(AddressMap::conventional()),
            Self::Synthetic(machine) => Ok(machine.address_map()),
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

    /// Whether guest memory comes from the pool of hugepages although nobody asked for them.
    fn takes_hugepages(&self, at_identity: bool) -> bool {
        at_identity && matches!(self, Self::Devices { .. })
    }
}

/// Whether the device's DMA can reach guest memory as asked.
fn check_mode(device: &DeviceConfig, kind: CdevKind, accepted: bool) -> Result<(), Error> {
    let bdf = device.bdf;
    match (kind, device.dma) {
        (CdevKind::Noiommu, DmaMode::Iommu) => Err(Error::NotBehindIommu { bdf }),
        (CdevKind::Noiommu, _) if !accepted => Err(Error::NoiommuNotAccepted { bdf }),
        (CdevKind::Iommu, DmaMode::Identity | DmaMode::Translate | DmaMode::Mediate) => {
            Err(Error::BehindIommu { bdf })
        }
        _ => Ok(()),
    }
}

/// Whether the physical addresses that the kernel tells are those that the device needs.
fn check_encryption(bdf: Bdf, kind: CdevKind) -> Result<(), Error> {
    match (kind, host::memory_encryption(&SysRoot::default())) {
        (CdevKind::Noiommu, Ok(Some(encryption))) => {
            Err(Error::MemoryEncrypted { bdf, encryption })
        }
        (CdevKind::Noiommu, Err(unknown)) => {
            log::warn!("{unknown}");
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Whether the CPU's addresses are those on the device's bus. Elsewhere than on x86 a BAR may have
/// two without memory having two.
fn check_addresses(sysfs: &PciSysfs, bdf: Bdf, kind: CdevKind) -> Result<(), Error> {
    if kind != CdevKind::Noiommu || !cfg!(target_arch = "x86_64") {
        return Ok(());
    }
    match sysfs.translated_bar(bdf)? {
        Some(found) => Err(Error::BusAddresses { bdf, found }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_and_run_agree_on_modes() {
        for kind in [CdevKind::Iommu, CdevKind::Noiommu] {
            for mode in ["auto", "iommu", "identity", "translate", "mediate"] {
                let device: DeviceConfig = format!("01:00.0,dma={mode}").parse().unwrap();
                let runs = check_mode(&device, kind, true).is_ok();
                assert_eq!(runs, device.dma.resolve(kind).is_some(), "{kind:?} {mode}");
            }
        }
    }
}
