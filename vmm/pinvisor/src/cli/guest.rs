//! Options that say what is to run.

use std::path::PathBuf;

use clap::Args;

use super::Missing;
use super::vm::{DEVICE_HELP, DEVICE_VALUE, VmArgs};
use vmm::config::{Config, DeviceConfig};

/// Word for word the kernel's, if nothing else is asked for.
const COMMAND_LINE: &str = "console=ttyS0";

/// What is to run, on the command line, in a file, or in both.
#[derive(Args, Clone, Debug, Default)]
#[command(
    mut_arg("kernel", |kernel| kernel.required_unless_present("config")),
    mut_arg("memory", |memory| memory.required_unless_present("config")),
)]
pub(super) struct GuestArgs {
    /// Take options from a TOML file, by the same names (docs/reference/config.toml). The command line
    /// overrides the file; devices add up, and --noiommu in one of them is enough
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    #[command(flatten)]
    pub(super) vm: VmArgs,

    #[arg(long = "device", value_name = DEVICE_VALUE, help = DEVICE_HELP, required_unless_present = "config")]
    pub(super) devices: Vec<DeviceConfig>,

    /// Kernel command line [default: console=ttyS0]
    #[arg(long, value_name = "STRING")]
    pub(super) cmdline: Option<String>,
}

impl GuestArgs {
    /// These, and what they leave open from `file`, whose devices come first.
    pub(super) fn or(self, file: Self) -> Self {
        let mut devices = file.devices;
        devices.extend(self.devices);
        Self {
            config: self.config,
            vm: self.vm.or(file.vm),
            devices,
            cmdline: self.cmdline.or(file.cmdline),
        }
    }

    /// The microVM, with a serial port that goes nowhere.
    ///
    /// # Errors
    /// [`Missing`]
    pub(super) fn complete(self) -> Result<Config, Missing> {
        if self.devices.is_empty() {
            return Err(Missing("device"));
        }
        let command_line = self.cmdline.unwrap_or_else(|| COMMAND_LINE.to_owned());
        self.vm.into_config(self.devices, command_line)
    }
}
