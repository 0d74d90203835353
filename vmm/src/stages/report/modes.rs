// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The DMA modes that are possible for a device, and why.

use devices::mediate::Profile;
use host::{NVME_CLASS, ResolvedDma, SysRoot};
use iommufd_backend::{CdevKind, VfioDevice};
use pci_config::regs::REVISION;

use super::{Device, Mode};
use crate::error::Error;
use crate::passthrough::assigned::AssignedDevice;
use crate::passthrough::dma_path::DmaPath;
use crate::passthrough::guarded;

/// Why devices without an IOMMU do not work in a mode on this host or in this guest's memory, if they do not.
#[derive(Clone, Copy, Debug)]
pub struct Obstacles {
    /// To `dma=translate`.
    pub translate: Option<&'static str>,
    /// To `dma=mediate`.
    pub mediate: Option<&'static str>,
}

/// All devices, in their order.
pub fn devices(devices: &[AssignedDevice], obstacles: Obstacles) -> Result<Vec<Device>, Error> {
    let report = |device: &AssignedDevice| {
        Ok(Device {
            bdf: device.bdf().to_string(),
            dma: device.dma.name(),
            dma_bits: device.dma_width.known(),
            modes: limited(modes(device, devices)?, obstacles),
        })
    };
    devices.iter().map(report).collect()
}

/// `modes` as far as they are possible.
fn limited(mut modes: Vec<Mode>, obstacles: Obstacles) -> Vec<Mode> {
    for mode in &mut modes {
        let obstacle = match mode.name {
            "translate" => obstacles.translate,
            "mediate" => obstacles.mediate,
            _ => None,
        };
        if let Some(why) = obstacle.filter(|_| mode.possible) {
            mode.possible = false;
            why.clone_into(&mut mode.why);
        }
    }
    modes
}

fn modes(assigned: &AssignedDevice, all: &[AssignedDevice]) -> Result<Vec<Mode>, Error> {
    let (device, path) = (&assigned.device, &assigned.dma);
    let mode = |name, possible: bool, why: &str| Mode {
        name,
        possible,
        why: why.to_owned(),
    };
    if device.kind() == CdevKind::Iommu {
        let no = "an IOMMU translates for the device, so it cannot use physical addresses";
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
    let conflicting = |mode| {
        let others = all.iter().filter(|other| other.bdf() != device.bdf());
        host::conflicting(mode, others.map(|other| (other.bdf(), other.dma.mode())))
    };
    let identity = match conflicting(ResolvedDma::Identity) {
        Some(bdf) => mode(
            "identity",
            false,
            &format!(
                "{bdf} uses dma=translate, which cannot be combined with identity; use separate \
                 guests"
            ),
        ),
        None if matches!(path, DmaPath::Identity) => mode(
            "identity",
            true,
            "memory consists of hugepages at their physical addresses",
        ),
        None => mode("identity", true, "if enough hugepages are available"),
    };
    let translate = match conflicting(ResolvedDma::Translate) {
        Some(bdf) => mode(
            "translate",
            false,
            &format!("{bdf} cannot be combined with dma=translate; use separate guests"),
        ),
        None => mode(
            "translate",
            true,
            "with a driver that supports the DMA window",
        ),
    };
    Ok(vec![
        mode("iommu", false, "no IOMMU translates for the device"),
        identity,
        translate,
        mediate(device, path)?,
    ])
}

fn mediate(device: &VfioDevice, path: &DmaPath) -> Result<Mode, Error> {
    let mut identity = [0; 4];
    device.config_read(0, &mut identity)?;
    let [vendor, id] =
        [[identity[0], identity[1]], [identity[2], identity[3]]].map(u16::from_le_bytes);
    if is_nvme(device)? && !matches!(path, DmaPath::Mediate(_)) {
        return guarded(device);
    }
    let by = |profile: &Profile| (true, format!("by the profile {:?}", profile.name()));
    let (possible, why) = match path {
        DmaPath::Mediate(Some(profile)) => by(profile),
        _ => match Profile::shipped_for(vendor, id) {
            Ok(Some(profile)) => by(&profile),
            _ => (
                false,
                format!(
                    "Pinvisor includes no profile for {vendor:04x}:{id:04x}; profile=FILE names \
                     another"
                ),
            ),
        },
    };
    Ok(Mode {
        name: "mediate",
        possible,
        why,
    })
}

fn is_nvme(device: &VfioDevice) -> Result<bool, Error> {
    let mut class = [0; 4];
    device.config_read(REVISION, &mut class)?;
    Ok(u32::from_le_bytes(class) >> 8 == NVME_CLASS)
}

/// Whether an NVMe controller can be guarded, which no profile is needed for: by sysfs, and by its registers.
fn guarded(device: &VfioDevice) -> Result<Mode, Error> {
    let obstacle = match host::guard_obstacle(&SysRoot::default(), device.bdf()) {
        Some(obstacle) => Some(obstacle.to_string()),
        None => guarded::unsuitable(device)?.map(|unsuitable| unsuitable.to_string()),
    };
    Ok(Mode {
        name: "mediate",
        possible: obstacle.is_none(),
        why: match obstacle {
            None => "as guarded NVMe, without a profile; its subsystem must have no other controller, and \
                     namespaces with metadata are hidden"
                .to_owned(),
            Some(obstacle) => format!("it cannot be guarded: {obstacle}"),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_that_a_host_rules_out_are_not_possible() {
        let mode = |name, possible, why: &str| Mode {
            name,
            possible,
            why: why.to_owned(),
        };
        let found = limited(
            vec![
                mode("iommu", false, "a"),
                mode("identity", true, "b"),
                mode("translate", true, "c"),
                mode("mediate", true, "d"),
            ],
            Obstacles {
                translate: Some("the bridge"),
                mediate: None,
            },
        );
        let expected = [
            mode("iommu", false, "a"),
            mode("identity", true, "b"),
            mode("translate", false, "the bridge"),
            mode("mediate", true, "d"),
        ];
        assert_eq!(found, expected);
    }
}
