//! The command line.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};

use crate::config::{Config, DeviceConfig, MemoryConfig, SerialConfig};

/// A microVM monitor that passes real PCI devices through to unmodified guests on machines
/// without an IOMMU.
#[derive(Debug, Parser)]
#[command(name = "pinvisor", version, about, after_help = EXIT_CODES)]
pub struct Cli {
    /// Say more: once for what is done, twice for everything
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,

    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  the guest switched itself off or was restarted, or a signal ended it
  1  the command line is wrong, or a file named on it
  2  this machine cannot run it
  3  a device cannot be used
  4  guest memory cannot be had or does not suit the kernel
  5  the guest crashed";

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a microVM until it switches itself off
    Run(RunArgs),
}

/// Options of `pinvisor run`.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// Linux kernel to boot, a bzImage
    #[arg(long, value_name = "FILE")]
    kernel: PathBuf,

    /// Initramfs to boot it with
    #[arg(long, value_name = "FILE")]
    initramfs: Option<PathBuf>,

    /// Kernel command line
    #[arg(long, value_name = "STRING", default_value = "console=ttyS0")]
    cmdline: String,

    /// Guest RAM: SIZE[,hugepage_size=2M|1G], for example 512M
    #[arg(long, value_name = "SIZE[,hugepage_size=2M|1G]")]
    memory: MemoryConfig,

    /// PCI device to pass through, bound to vfio-pci; may be repeated. dma=auto, which is the
    /// default, prefers an IOMMU where there is one; a device that cannot be reset is taken with
    /// reset=none only
    #[arg(
        long = "device",
        value_name = "BDF[,dma=auto|iommu|identity][,reset=none]",
        required = true
    )]
    devices: Vec<DeviceConfig>,

    /// Accept that no IOMMU keeps the devices in check: they can read and write all of the
    /// host's memory, so the guest is trusted like root
    #[arg(long)]
    noiommu: bool,

    /// Where the guest's serial port goes: stdio, off or file=PATH
    #[arg(long, value_name = "stdio|off|file=PATH", default_value = "stdio")]
    serial: SerialConfig,
}

impl From<RunArgs> for Config {
    fn from(args: RunArgs) -> Self {
        Self {
            kernel: args.kernel,
            initramfs: args.initramfs,
            command_line: args.cmdline,
            memory: args.memory,
            devices: args.devices,
            noiommu: args.noiommu,
            serial: args.serial,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_grammar_is_consistent() {
        Cli::command().debug_assert();
    }

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
        let Command::Run(args) = cli.command;
        let config = Config::from(args);
        assert_eq!(config.devices.len(), 2);
        assert_eq!(config.serial, SerialConfig::File("out".into()));
        assert!(config.noiommu);
    }
}
