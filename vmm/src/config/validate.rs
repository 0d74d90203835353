// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Every refusal that does not depend on the host. The parsers call the ones for single values,
//! too, so that such an error names the option or the line of the file.

use std::ops::Deref;

use address::Bdf;

use super::{
    Config, ConfigError, DeviceConfig, DmaMode, MemoryConfig, MemoryLayout, ValidateError,
};
use crate::arch::layout::HAS_DEVICE_TREE;
use crate::bus::slots::{self, PciSlot, TooManyDevices};

/// A [`Config`] that no host is needed to refuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidConfig {
    config: Config,
    slots: Vec<PciSlot>,
}

impl ValidConfig {
    /// The slot on the guest's bus for each device.
    pub(crate) fn slots(&self) -> &[PciSlot] {
        &self.slots
    }
}

impl Deref for ValidConfig {
    type Target = Config;

    fn deref(&self) -> &Config {
        &self.config
    }
}

impl Config {
    /// Makes every refusal that needs nothing of the host.
    ///
    /// # Errors
    /// [`ValidateError`]
    pub fn validate(self) -> Result<ValidConfig, ValidateError> {
        memory(&self.memory)?;
        self.devices.iter().try_for_each(device)?;
        let slots = slots(&self.devices)?;
        modes(&self.devices)?;
        Ok(ValidConfig {
            config: self,
            slots,
        })
    }
}

/// Refuses an inconsistent description of a device.
pub(super) fn device(device: &DeviceConfig) -> Result<(), ConfigError> {
    let is_mediated = device.dma == DmaMode::Mediate;
    match (&device.profile, device.poll) {
        (Some(_), _) if !is_mediated => Err(ConfigError::ProfileWithoutMediate),
        (Some(_), Some(_)) => Err(ConfigError::PollWithoutGuard),
        (None, Some(_)) if !is_mediated => Err(ConfigError::PollWithoutGuard),
        _ => Ok(()),
    }
}

/// Refuses memory that is not whole hugepages, or whose layout guests here cannot have.
pub(super) fn memory(memory: &MemoryConfig) -> Result<(), ConfigError> {
    if memory.layout == MemoryLayout::Packed && !HAS_DEVICE_TREE {
        return Err(ConfigError::PackedWithoutTree);
    }
    let (size, page_size) = (memory.size, memory.page_size());
    match size == 0 || size % page_size.bytes() != 0 {
        true => Err(ConfigError::NotWholePages { size, page_size }),
        false => Ok(()),
    }
}

/// Gives each device its slot; refuses one that is named twice, and more than there are slots.
fn slots(devices: &[DeviceConfig]) -> Result<Vec<PciSlot>, ValidateError> {
    let names: Vec<Bdf> = devices.iter().map(|device| device.bdf).collect();
    for (index, bdf) in names.iter().enumerate() {
        if names[..index].contains(bdf) {
            return Err(ValidateError::DeviceTwice { bdf: *bdf });
        }
    }
    let refused = TooManyDevices {
        count: names.len(),
        most: slots::MAX_SLOTS,
    };
    Ok(slots::assign(&names).ok_or(refused)?)
}

/// Refuses a mix of devices that no layout of guest memory serves: one whose guest translates has memory at any
/// addresses, and those of the others must be the device's. `auto` may be one of the others on any host.
fn modes(devices: &[DeviceConfig]) -> Result<(), ValidateError> {
    let find = |wanted: fn(DmaMode) -> bool| {
        let found = devices.iter().find(|device| wanted(device.dma));
        found.map(|device| (device.bdf, device.dma))
    };
    let translate = find(|mode| mode == DmaMode::Translate);
    let other = find(|mode| match mode {
        DmaMode::Auto | DmaMode::Iommu | DmaMode::Identity => true,
        DmaMode::Translate | DmaMode::Mediate => false,
    });
    match (translate, other) {
        (Some((translate, _)), Some((other, mode))) => Err(ValidateError::MixedModes {
            translate,
            other,
            mode,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use host::{AutoDma, ResolvedDma};
    use iommufd_backend::CdevKind;
    use strum::IntoEnumIterator;

    use super::super::{BackendChoice, CpuCount, LowMemory, Poll, SerialConfig};
    use super::*;
    use crate::error::explain::{ExitCode, Explain};

    fn config(devices: &[&str]) -> Config {
        Config {
            kernel: "k".into(),
            initramfs: None,
            command_line: String::new(),
            memory: "64M".parse().unwrap(),
            low_memory: LowMemory::Auto,
            cpus: CpuCount::default(),
            devices: devices.iter().map(|text| text.parse().unwrap()).collect(),
            noiommu: false,
            backend: BackendChoice::Auto,
            serial: SerialConfig::Off,
        }
    }

    fn refusal(config: Config) -> (&'static str, ExitCode) {
        let error = config.validate().unwrap_err();
        (error.id(), error.exit_code())
    }

    #[test]
    fn a_config_keeps_its_devices_and_gets_their_slots() {
        let wanted = config(&["02:00.0", "01:00.1,dma=mediate", "01:00.0"]);
        let valid = wanted.clone().validate().unwrap();
        assert_eq!(*valid, wanted);
        let slots: Vec<_> = valid
            .slots()
            .iter()
            .map(|at| (at.slot, at.function))
            .collect();
        assert_eq!(slots, [(1, 0), (2, 1), (2, 0)]);
    }

    #[test]
    fn devices_are_named_once_and_have_room() {
        let twice = config(&["01:00.0", "02:00.0", "0000:01:00.0,reset=none"]);
        assert_eq!(refusal(twice), ("device-twice", ExitCode::Usage));
        let names: Vec<_> = (0..=slots::MAX_SLOTS)
            .map(|bus| format!("{bus:02x}:00.0"))
            .collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        assert!(config(&names[1..]).validate().is_ok());
        assert_eq!(
            refusal(config(&names)),
            ("too-many-devices", ExitCode::Usage)
        );
    }

    #[test]
    fn values_that_no_parser_saw_are_checked() {
        let mut profile = config(&["01:00.0"]);
        profile.devices[0].profile = Some("p".into());
        assert_eq!(refusal(profile), ("config", ExitCode::Usage));
        let mut poll = config(&["01:00.0"]);
        poll.devices[0].poll = Some(Poll::On);
        assert_eq!(refusal(poll), ("config", ExitCode::Usage));
        for size in [0, 1, 4096, (2 << 20) - 1, 3 << 20] {
            let mut memory = config(&[]);
            memory.memory.size = size;
            assert_eq!(refusal(memory), ("config", ExitCode::Usage), "{size}");
        }
    }

    #[test]
    fn a_guest_that_translates_for_one_device_does_so_for_all() {
        let mixed = |one, other| {
            let devices = [format!("01:00.0,dma={one}"), format!("02:00.0,dma={other}")];
            let error = config(&[&devices[0], &devices[1]]).validate().err();
            error.map(|error| error.id())
        };
        for other in ["auto", "iommu", "identity"] {
            assert_eq!(mixed("translate", other), Some("mixed-modes"), "{other}");
            assert_eq!(mixed(other, "translate"), Some("mixed-modes"), "{other}");
            assert_eq!(mixed("mediate", other), None, "{other}");
        }
        assert_eq!(mixed("translate", "translate"), None);
        assert_eq!(mixed("translate", "mediate"), None);
    }

    #[test]
    fn what_auto_comes_to_does_not_matter_for_the_mix() {
        for kind in [CdevKind::Iommu, CdevKind::Noiommu] {
            for mode in DmaMode::iter() {
                let Ok(resolved) = mode.resolve(kind, &AutoDma::Identity) else {
                    continue;
                };
                let other = format!("02:00.0,dma={}", mode.name());
                let refused = config(&["01:00.0,dma=translate", &other])
                    .validate()
                    .is_err();
                let is_other = ResolvedDma::Translate.conflicts_with(resolved);
                assert_eq!(refused, is_other, "{kind:?} {}", mode.name());
            }
        }
    }
}
