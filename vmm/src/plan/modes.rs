//! Which ways a device has to guest memory, and why.

use address::Bdf;
use devices::mediate::{Profile, SHIPPED};
use iommufd_backend::{CdevKind, PciSysfs, VfioDevice};

use super::report::{Device, Mode};
use crate::builder::{Devices, Reach};
use crate::error::Error;

/// All devices, in their order.
pub fn devices(devices: &Devices) -> Result<Vec<Device>, Error> {
    let named = devices.held.devices.iter().map(|bound| &bound.device);
    let all: Vec<(Bdf, &Reach)> = named
        .clone()
        .map(|device| device.bdf())
        .zip(&devices.reaches)
        .collect();
    named
        .zip(&devices.reaches)
        .map(|(device, reach)| {
            Ok(Device {
                bdf: device.bdf().to_string(),
                dma: name(reach),
                dma_bits: PciSysfs::default().dma_width(device.bdf()).known(),
                modes: modes(device, reach, &all)?,
            })
        })
        .collect()
}

fn name(reach: &Reach) -> &'static str {
    match reach {
        Reach::Iommu => "iommu",
        Reach::Identity => "identity",
        Reach::Translate => "translate",
        Reach::Mediate(_) => "mediate",
    }
}

fn modes(device: &VfioDevice, reach: &Reach, all: &[(Bdf, &Reach)]) -> Result<Vec<Mode>, Error> {
    let mode = |name, possible: bool, why: &str| Mode {
        name,
        possible,
        why: why.to_owned(),
    };
    if device.kind() == CdevKind::Iommu {
        let no = "an IOMMU stands before the device, and lets no physical addresses through";
        return Ok(vec![
            mode(
                "iommu",
                true,
                "an IOMMU translates guest-physical addresses",
            ),
            mode("identity", false, no),
            mode("translate", false, no),
            mode("mediate", false, no),
        ]);
    }
    let other = |wanted: fn(&Reach) -> bool| {
        let others = all.iter().filter(|(bdf, _)| *bdf != device.bdf());
        others
            .clone()
            .find(|(_, reach)| wanted(reach))
            .map(|(bdf, _)| *bdf)
    };
    let translating = other(|reach| matches!(reach, Reach::Translate));
    let fixed = other(|reach| matches!(reach, Reach::Identity | Reach::Iommu));
    let identity = match translating {
        Some(bdf) => mode(
            "identity",
            false,
            &format!("{bdf} (dma=translate) has memory anywhere; a guest of its own would do"),
        ),
        None if matches!(reach, Reach::Identity) => mode(
            "identity",
            true,
            "memory is of hugepages, and stands at its physical addresses",
        ),
        None => mode("identity", true, "if there are hugepages for all of memory"),
    };
    let translate = match fixed {
        Some(bdf) => mode(
            "translate",
            false,
            &format!("{bdf} needs memory at fixed addresses; a guest of its own would do"),
        ),
        None => mode("translate", true, "with a driver that knows the DMA window"),
    };
    Ok(vec![
        mode(
            "iommu",
            false,
            "no IOMMU stands between the device and memory",
        ),
        identity,
        translate,
        mediate(device, reach)?,
    ])
}

fn mediate(device: &VfioDevice, reach: &Reach) -> Result<Mode, Error> {
    let mut identity = [0; 4];
    device.config_read(0, &mut identity)?;
    let [vendor, id] =
        [[identity[0], identity[1]], [identity[2], identity[3]]].map(u16::from_le_bytes);
    let given = matches!(reach, Reach::Mediate(Some(_)));
    let shipped = || {
        let mut profiles = SHIPPED.iter();
        profiles.any(|(name, text)| {
            Profile::parse(name, text).is_ok_and(|profile| profile.is_for(vendor, id))
        })
    };
    let (possible, why) = if given {
        (true, "by the profile that was given".to_owned())
    } else if shipped() {
        (
            true,
            format!("by the shipped profile for {vendor:04x}:{id:04x}"),
        )
    } else {
        let why = format!("no profile is known for {vendor:04x}:{id:04x}; profile=FILE gives one");
        (false, why)
    };
    Ok(Mode {
        name: "mediate",
        possible,
        why,
    })
}
