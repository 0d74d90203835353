//! Binding the devices to `/dev/iommu`.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use address::{Bdf, Hpa};
use devices::mediate::Profile;
use devices::vfio_pci::HostInfo;
use host_check::Host;
use iommufd_backend::{
    Cdev, CdevKind, IoMem, IommuSpace, Iommufd, Leftover, NoiommuSpace, PciSysfs, ResetMethod,
    VfioDevice,
};

use crate::bound::{self, BoundDevice, Held};
use crate::config::{Config, DeviceConfig, DmaMode, SoftwareDma};
use crate::error::Error;
use crate::files;
use crate::host_map::HostMap;
use crate::passthrough;
use crate::software::SoftwareMachine;
use crate::topology::{self, Place};

/// The host's physical address map.
const IOMEM: &str = "/proc/iomem";

/// Bound devices, quiet, and the address spaces that they are attached to.
#[derive(Debug)]
pub(crate) struct Devices {
    pub held: Held,
    pub infos: Vec<HostInfo>,
    pub places: Vec<Place>,
    /// How each one's DMA reaches guest memory, or that of the engine in software.
    pub reaches: Vec<Reach>,
    /// In place of devices, if the machine is one in software.
    pub software: Option<SoftwareMachine>,
}

impl Devices {
    /// Binds what `config` names.
    pub fn bind(config: &Config) -> Result<Self, Error> {
        let places = check_names(&config.devices)?;
        let profiles = profiles(&config.devices)?;
        if let Some(software) = &config.software {
            if let Some(DeviceConfig { bdf, .. }) = config.devices.first() {
                return Err(Error::DeviceWithSoftware { bdf: *bdf });
            }
            return Ok(Self {
                held: Held::default(),
                infos: Vec::new(),
                places,
                reaches: vec![match software.dma {
                    SoftwareDma::Identity => Reach::Identity,
                    SoftwareDma::Translate => Reach::Translate,
                    // The engine has all 64 address bits.
                    SoftwareDma::Mediate => Reach::Mediate(Profile::shipped("edu64")?),
                }],
                software: Some(SoftwareMachine::new(software)),
            });
        }
        let sysfs = PciSysfs::default();
        let iommufd = Arc::new(Iommufd::open()?);
        // All are looked at before the first one is opened.
        let mut noiommu = Vec::new();
        for device in &config.devices {
            let kind = Cdev::find(&sysfs, device.bdf)?.1;
            check_mode(device, kind, config.noiommu)?;
            check_encryption(device.bdf, kind)?;
            check_addresses(&sysfs, device.bdf, kind)?;
            if kind == CdevKind::Noiommu {
                noiommu.push(Leftover::of(&sysfs, device.bdf, device.allow_no_reset));
            }
        }
        let names: Vec<Bdf> = config.devices.iter().map(|device| device.bdf).collect();
        bound::warn_of_keepers(&names);
        let mut held = Held::new(&iommufd, &noiommu)?;
        let mut reaches = Vec::new();
        let mut devices = Vec::new();
        for (DeviceConfig { bdf, dma, .. }, profile) in config.devices.iter().zip(profiles) {
            let cdev = Cdev::open(&sysfs, *bdf)?;
            let device = VfioDevice::bind(cdev, Arc::clone(&iommufd)).or_else(|error| {
                // The kernel's EINVAL has many causes; this is the one that it has no message for.
                host_check::ensure_closed(&Host::default(), *bdf)?;
                Err(Error::Backend(error))
            })?;
            match device.kind() {
                CdevKind::Noiommu => {
                    let space = match &mut held.noiommu {
                        Some(space) => space,
                        None => held
                            .noiommu
                            .insert(NoiommuSpace::new(Arc::clone(&iommufd))?),
                    };
                    space.attach(&device)?;
                    log::info!("{bdf}: bound, in noiommu mode");
                }
                CdevKind::Iommu => {
                    let space = match &mut held.iommu {
                        Some(space) => space,
                        None => held.iommu.insert(IommuSpace::new(Arc::clone(&iommufd))?),
                    };
                    space.attach(&device)?;
                    log::info!("{bdf}: bound, behind an IOMMU");
                }
            }
            reaches.push(match (device.kind(), dma) {
                (CdevKind::Iommu, _) => Reach::Iommu,
                (CdevKind::Noiommu, DmaMode::Translate) => Reach::Translate,
                (CdevKind::Noiommu, DmaMode::Mediate) => Reach::Mediate(profile),
                (CdevKind::Noiommu, _) => Reach::Identity,
            });
            devices.push(device);
        }
        check_mix(config, &reaches)?;
        let infos = passthrough::host_infos(&devices, &sysfs)?;
        held.devices = with_reset(devices, &config.devices, &sysfs)?;
        Ok(Self {
            held,
            infos,
            places,
            reaches,
            software: None,
        })
    }

    /// What stands between devices and memory, for reports.
    pub fn backend(&self) -> &'static str {
        match (&self.software, &self.held.noiommu, &self.held.iommu) {
            (Some(_), ..) => "software",
            (None, Some(_), None) => "noiommu",
            (None, Some(_), Some(_)) => "noiommu and iommu",
            (None, None, _) => "iommu",
        }
    }

    /// Whether guest-physical addresses have to be physical ones.
    pub fn need_identity(&self) -> bool {
        let is_identity = |reach: &Reach| matches!(reach, Reach::Identity);
        self.reaches.iter().any(is_identity)
    }

    /// The guest's address map outside RAM, which follows from where BARs stand.
    pub fn host_map(&self) -> Result<HostMap, Error> {
        if self.software.is_some() {
            return Ok(SoftwareMachine::host_map());
        }
        let bars: Vec<_> = self.bars().into_iter().map(|(_, range)| range).collect();
        Ok(HostMap::new(&IoMem::read(IOMEM.as_ref())?, &bars)?)
    }

    /// The memory BARs, each with its device's name, and where the host has them.
    pub fn bars(&self) -> Vec<(String, Range<Hpa>)> {
        let engine = self
            .software
            .iter()
            .map(|_| ("edu BAR0".to_owned(), SoftwareMachine::bar()));
        self.infos
            .iter()
            .flat_map(|info| {
                let numbered = (0..).zip(&info.bars);
                numbered.filter_map(|(number, bar)| {
                    let range = bar.host_address?.span(bar.size)?;
                    let name = format!("{} BAR{number}", info.name);
                    (!range.is_empty()).then_some((name, range))
                })
            })
            .chain(engine)
            .collect()
    }
}

/// How a device's DMA reaches guest memory, once that is known.
#[derive(Clone, Debug)]
pub(crate) enum Reach {
    /// An IOMMU translates.
    Iommu,
    /// Guest-physical addresses are host-physical ones.
    Identity,
    /// The guest translates.
    Translate,
    /// The monitor translates, by this profile or by that of the shipped ones which fits.
    Mediate(Option<Profile>),
}

/// The profiles that devices were given.
fn profiles(devices: &[DeviceConfig]) -> Result<Vec<Option<Profile>>, Error> {
    devices.iter().map(profile).collect()
}

/// The profile that a device was given: the name of a shipped one, or else a file.
pub(crate) fn profile(device: &DeviceConfig) -> Result<Option<Profile>, Error> {
    let read = |path: &PathBuf| {
        if let Some(shipped) = path.to_str().map(Profile::shipped).transpose()?.flatten() {
            return Ok(shipped);
        }
        let text = files::read_text(path).map_err(|source| Error::File {
            what: "profile",
            path: path.clone(),
            source,
        })?;
        Ok(Profile::parse(&path.display().to_string(), &text)?)
    };
    device.profile.as_ref().map(read).transpose()
}

/// The layout of memory belongs to all devices together: one whose guest translates has memory
/// at addresses that are wrong for one that takes them as they are.
fn check_mix(config: &Config, reaches: &[Reach]) -> Result<(), Error> {
    let find = |wanted: fn(&Reach) -> bool| {
        let both = config.devices.iter().zip(reaches);
        both.into_iter()
            .find_map(|(device, reach)| wanted(reach).then_some(device.bdf))
    };
    let translate = find(|reach| matches!(reach, Reach::Translate));
    let other = find(|reach| matches!(reach, Reach::Identity | Reach::Iommu));
    match (translate, other) {
        (Some(translate), Some(other)) => Err(Error::MixedModes { translate, other }),
        _ => Ok(()),
    }
}

fn check_names(devices: &[DeviceConfig]) -> Result<Vec<Place>, Error> {
    let names: Vec<Bdf> = devices.iter().map(|device| device.bdf).collect();
    for (index, bdf) in names.iter().enumerate() {
        if names[..index].contains(bdf) {
            return Err(Error::DeviceTwice { bdf: *bdf });
        }
    }
    topology::places(&names).ok_or(Error::TooManyDevices {
        count: names.len(),
        most: topology::MOST_SLOTS,
    })
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
    match (kind, host_check::memory_encryption(&Host::default())) {
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

/// Finds out how the devices are reset, which depends on which of them are bound, and resets
/// them.
fn with_reset(
    devices: Vec<VfioDevice>,
    configs: &[DeviceConfig],
    sysfs: &PciSysfs,
) -> Result<Vec<BoundDevice>, Error> {
    let mut bound = Vec::new();
    for (device, config) in devices.into_iter().zip(configs) {
        let reset = device.reset_method(sysfs)?;
        match &reset {
            ResetMethod::None { others } if !config.allow_no_reset => {
                return Err(Error::NoReset {
                    bdf: config.bdf,
                    others: others.clone(),
                });
            }
            ResetMethod::None { .. } => log::warn!(
                "{}: cannot be reset: it may be doing what its last user told it, and will keep \
                 what this guest tells it",
                config.bdf
            ),
            reset => log::info!("{}: reset by {reset}", config.bdf),
        }
        bound.push(BoundDevice {
            device: Arc::new(device),
            reset,
        });
    }
    for (number, result) in bound::reset(&bound).into_iter().enumerate() {
        let BoundDevice { device, reset } = &mut bound[number];
        let own = device.own_reset(sysfs)?;
        match (result, own) {
            (Ok(()), _) => {}
            // Binding has reset it in that way already.
            (Err(error), Some(own)) if matches!(reset, ResetMethod::Bus(_)) => {
                log::warn!(
                    "{}: {}; its own reset ({own}) has to do, which may leave it running",
                    device.bdf(),
                    error.chain()
                );
                *reset = ResetMethod::Function(own);
            }
            (Err(error), _) => return Err(error),
        }
    }
    Ok(bound)
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
