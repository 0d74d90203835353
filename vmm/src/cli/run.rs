//! Options of `pinvisor run`.

use clap::Args;

use super::vm::{DEVICE_HELP, DEVICE_VALUE, VmArgs};
use crate::config::{Config, DeviceConfig, SerialConfig};

/// Options of `pinvisor run`.
#[derive(Args, Debug)]
pub struct RunArgs {
    #[command(flatten)]
    vm: VmArgs,

    #[arg(long = "device", value_name = DEVICE_VALUE, help = DEVICE_HELP, required = true)]
    devices: Vec<DeviceConfig>,

    /// Kernel command line
    #[arg(long, value_name = "STRING", default_value = "console=ttyS0")]
    cmdline: String,

    /// Where the guest's serial port goes. pty makes a terminal for others to open and prints its
    /// path; socket=PATH serves one client at a time. Nobody who reads slowly keeps the guest
    /// waiting: of what is not read the last MiB is kept
    #[arg(
        long,
        value_name = "stdio|off|file=PATH|pty|socket=PATH",
        default_value = "stdio"
    )]
    serial: SerialConfig,
}

impl From<RunArgs> for Config {
    fn from(args: RunArgs) -> Self {
        Self {
            serial: args.serial,
            ..args.vm.into_config(args.devices, args.cmdline)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Command};
    use super::*;

    #[test]
    fn a_full_command_line_becomes_a_config() {
        let cli = Cli::parse_from([
            "pinvisor",
            "run",
            "--kernel",
            "bzImage",
            "--initramfs",
            "initramfs",
            "--cmdline",
            "quiet",
            "--memory",
            "1G,hugepage_size=1G",
            "--cpus",
            "boot=4",
            "--device",
            "01:00.0",
            "--device",
            "0000:02:00.0",
            "--noiommu",
            "--serial",
            "file=out",
            "-v",
        ]);
        assert_eq!(cli.verbose, 1);
        let Command::Run(args) = cli.command else {
            panic!("{:?}", cli.command);
        };
        let config = Config::from(args);
        assert_eq!(config.devices.len(), 2);
        assert_eq!(config.cpus.get(), 4);
        assert_eq!(config.serial, SerialConfig::File("out".into()));
        assert!(config.noiommu);
    }
}
