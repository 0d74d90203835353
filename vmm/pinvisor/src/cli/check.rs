// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `pinvisor check`.

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use clap::Args;
use host::{DmaMode, Mediation, SysRoot, Wanted, WantedDevice, WantedMemory};

use super::written;
use crate::config::DEVICE_VALUE;
use crate::error::Error;
use vmm::config::{BackendChoice, DeviceConfig, MemoryConfig, backend, profile};

/// Options of `pinvisor check`.
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub struct CheckArgs {
    /// PCI devices to pass through, with the options of run --device; without any, only the machine
    /// is checked
    #[arg(value_name = DEVICE_VALUE)]
    devices: Vec<DeviceConfig>,

    /// Guest RAM that the run requires: SIZE[,hugepage_size=2M|1G], for example 512M
    #[arg(long, value_name = "SIZE[,hugepage_size=2M|1G]")]
    memory: Option<MemoryConfig>,

    /// Interface of the host kernel that the run is to use for devices without an IOMMU, as in run --backend
    #[arg(long, value_name = "auto|cdev|group", value_parser = backend, default_value = "auto")]
    backend: BackendChoice,

    /// Write JSON: an object with version (1), ok, and checks, a list of objects with id, device,
    /// verdict (ok, warn or fail), text and next
    #[arg(long)]
    json: bool,
}

const AFTER: &str = "Each line begins with OK, WARN or FAIL and the name of the check, which does \
                     not change between versions (docs/reference/checks.md lists them). A line \
                     that is not OK is followed by the next command to run. Nothing is changed, \
                     and no device is opened.

Exit codes:
  0  no line is FAIL: a run is \
                     possible
  2  a line is FAIL";

impl CheckArgs {
    /// Looks, and writes to standard output.
    ///
    /// # Errors
    /// [`Error::Vmm`] if standard output cannot be written.
    pub fn run(self) -> Result<ExitCode, Error> {
        let root = SysRoot::default();
        let wanted = Wanted {
            devices: self
                .devices
                .iter()
                .map(|device| wanted(&root, device))
                .collect(),
            memory: self.memory.map(|memory| WantedMemory {
                bytes: memory.size,
                hugepage_size: memory.hugepage_size,
            }),
            backend: self.backend,
        };
        let report = host::check(&root, &wanted);
        written(if self.json {
            report.write_json(&mut io::stdout().lock())
        } else {
            report.write_text(&mut io::stdout().lock(), has_colour())
        })?;
        Ok(if report.is_ok() {
            ExitCode::SUCCESS
        } else {
            vmm::ExitCode::Host.into()
        })
    }
}

/// Whether standard output is a terminal that supports colours, and the user has not disabled them
/// (<https://no-color.org>).
fn has_colour() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    io::stdout().is_terminal() && !is_dumb && !is_set("NO_COLOR")
}

fn wanted(root: &SysRoot, device: &DeviceConfig) -> WantedDevice {
    WantedDevice {
        mediation: mediation(root, device),
        bdf: device.bdf,
        dma: device.dma,
        allow_no_reset: device.allow_no_reset,
    }
}

/// How the monitor would translate for the device.
fn mediation(root: &SysRoot, device: &DeviceConfig) -> Mediation {
    if device.dma != DmaMode::Mediate {
        return Mediation::Profile;
    }
    if device.profile.is_none() && host::is_nvme(root, device.bdf) {
        return Mediation::Guarded;
    }
    let found = profile(device).and_then(|given| vmm::profile_for(root.pci(), device.bdf, given));
    match found {
        Ok(_) => Mediation::Profile,
        Err(error) => Mediation::NoProfile(error.chain()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_mediated_device_requires_a_profile() {
        let root = tempfile::tempdir().unwrap();
        let function = root.path().join("sys/bus/pci/devices/0000:01:00.0");
        fs::create_dir_all(&function).unwrap();
        let sysfs = SysRoot::at(root.path());
        let mediation = |options: &str| {
            let device = format!("01:00.0,{options}").parse().unwrap();
            wanted(&sysfs, &device).mediation
        };
        let obstacle = |options: &str| match mediation(options) {
            Mediation::NoProfile(reason) => Some(reason),
            _ => None,
        };
        let known = |vendor: &str, device: &str| {
            fs::write(function.join("vendor"), vendor).unwrap();
            fs::write(function.join("device"), device).unwrap();
        };
        known("0x1234\n", "0x11e8\n");
        assert_eq!(obstacle("dma=mediate"), None);
        known("0x1b36\n", "0x0010\n");
        for options in ["dma=mediate", "dma=mediate,profile=edu"] {
            let text = obstacle(options).unwrap();
            assert!(text.contains("1b36:0010"), "{text}");
        }
        assert_eq!(obstacle("dma=translate"), None);
        let text = obstacle("dma=mediate,profile=/nowhere").unwrap();
        assert!(text.contains("/nowhere"), "{text}");
        fs::write(function.join("class"), "0x010802\n").unwrap();
        assert_eq!(mediation("dma=mediate"), Mediation::Guarded);
        known("0x1234\n", "0x11e8\n");
        assert_eq!(mediation("dma=mediate,profile=edu64"), Mediation::Profile);
        assert_eq!(mediation("dma=auto"), Mediation::Profile);
    }
}
