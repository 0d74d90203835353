// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The options of a run, each of which may be left out.

use std::path::PathBuf;

use serde::Deserialize;
use vmm::config::{
    Config, CpuCount, DeviceConfig, LowMemory, MemoryConfig, OnReset, SerialConfig,
    deserialize_path,
};

use super::{HostConfig, RunConfig};
use crate::Error;

/// The kernel's command line where none is given.
const COMMAND_LINE: &str = "console=ttyS0";

/// An option that is required and was not given, neither on the command line nor in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("--{0} is missing on the command line and in the file of --config")]
pub struct Missing(&'static str);

/// The options of a run, as a file has them by these names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RunOptions {
    /// The kernel's command line.
    pub cmdline: Option<String>,
    /// CPUs of the guest.
    pub cpus: Option<CpuCount>,
    /// Devices to pass through.
    #[serde(rename = "device")]
    pub devices: Vec<DeviceConfig>,
    /// An open descriptor that gets the events.
    pub event_fd: Option<u32>,
    /// A file that gets the events.
    #[serde(deserialize_with = "deserialize_path")]
    pub event_file: Option<PathBuf>,
    /// An initramfs for the kernel.
    #[serde(deserialize_with = "deserialize_path")]
    pub initramfs: Option<PathBuf>,
    /// The kernel.
    #[serde(deserialize_with = "deserialize_path")]
    pub kernel: Option<PathBuf>,
    /// Where the log goes.
    #[serde(deserialize_with = "deserialize_path")]
    pub log_file: Option<PathBuf>,
    /// What the memory map says of the first MiB.
    pub low_memory: Option<LowMemory>,
    /// Guest RAM.
    pub memory: Option<MemoryConfig>,
    /// Whether devices may be used that no IOMMU keeps in check.
    pub noiommu: bool,
    /// What comes of a guest that restarts.
    pub on_reset: Option<OnReset>,
    /// The file that holds the process ID.
    #[serde(deserialize_with = "deserialize_path")]
    pub pidfile: Option<PathBuf>,
    /// Where the guest's serial port goes.
    pub serial: Option<SerialConfig>,
    /// How much is logged.
    pub verbose: Option<u8>,
}

impl RunOptions {
    /// These, and what they leave open from `file`, whose devices come first.
    #[must_use]
    pub fn or(self, file: Self) -> Self {
        let mut devices = file.devices;
        devices.extend(self.devices);
        Self {
            cmdline: self.cmdline.or(file.cmdline),
            cpus: self.cpus.or(file.cpus),
            devices,
            event_fd: self.event_fd.or(file.event_fd),
            event_file: self.event_file.or(file.event_file),
            initramfs: self.initramfs.or(file.initramfs),
            kernel: self.kernel.or(file.kernel),
            log_file: self.log_file.or(file.log_file),
            low_memory: self.low_memory.or(file.low_memory),
            memory: self.memory.or(file.memory),
            noiommu: self.noiommu || file.noiommu,
            on_reset: self.on_reset.or(file.on_reset),
            pidfile: self.pidfile.or(file.pidfile),
            serial: self.serial.or(file.serial),
            verbose: self.verbose.or(file.verbose),
        }
    }

    /// The run.
    ///
    /// # Errors
    /// [`Error::OptionMissing`]; what [`Config::validate`] refuses.
    pub fn complete(self) -> Result<RunConfig, Error> {
        let host = HostConfig {
            verbose: self.verbose.unwrap_or_default(),
            log_file: self.log_file.clone(),
            event_file: self.event_file.clone(),
            event_fd: self.event_fd,
            pidfile: self.pidfile.clone(),
            on_reset: self.on_reset.unwrap_or_default(),
        };
        let guest = self.into_guest()?.validate()?;
        Ok(RunConfig { guest, host })
    }

    /// The microVM alone, which may be without devices.
    ///
    /// # Errors
    /// [`Missing`]
    pub fn into_guest(self) -> Result<Config, Missing> {
        Ok(Config {
            kernel: self.kernel.ok_or(Missing("kernel"))?,
            initramfs: self.initramfs,
            command_line: self.cmdline.unwrap_or_else(|| COMMAND_LINE.to_owned()),
            memory: self.memory.ok_or(Missing("memory"))?,
            low_memory: self.low_memory.unwrap_or_default(),
            cpus: self.cpus.unwrap_or_default(),
            devices: self.devices,
            noiommu: self.noiommu,
            serial: self.serial.unwrap_or_default(),
        })
    }
}
