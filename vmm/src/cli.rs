//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::config::{
    Config, CpuCount, DeviceConfig, EngineFault, MemoryConfig, SerialConfig, SoftwareConfig,
};
use crate::stress::StressConfig;
use crate::{Error, Identity, Layout, Swapped};

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
  5  the guest crashed
  6  the guest switched itself off with a status other than 0, or a stress run did not pass";

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a microVM until it switches itself off
    Run(RunArgs),
    /// Run a guest that stresses DMA, judge what it says, and report
    Stress(Box<StressArgs>),
}

const DEVICE_VALUE: &str =
    "BDF[,dma=auto|iommu|identity|translate|mediate][,profile=FILE][,reset=none]";
const DEVICE_HELP: &str = "\
PCI device to pass through, bound to vfio-pci; may be repeated. dma=auto, which is the default, \
prefers an IOMMU where there is one, and takes identity else; translate shows the guest a table of \
its memory (docs/dma-window.md), mediate checks and translates what is written to the device's \
registers, which profile=FILE describes (docs/mediate.md). A device that cannot be reset is taken \
with reset=none only";

/// What every microVM has.
#[derive(Args, Debug)]
struct VmArgs {
    /// Kernel to boot: a bzImage, a vmlinux, or another ELF file entered in 64-bit mode with the
    /// zero page's address in RSI
    #[arg(long, value_name = "FILE")]
    kernel: PathBuf,

    /// Initramfs to boot it with
    #[arg(long, value_name = "FILE")]
    initramfs: Option<PathBuf>,

    /// Guest RAM: SIZE[,hugepage_size=2M|1G], for example 512M
    #[arg(long, value_name = "SIZE[,hugepage_size=2M|1G]")]
    memory: MemoryConfig,

    /// CPUs of the guest
    #[arg(long, value_name = "N", default_value = "1")]
    cpus: CpuCount,

    /// Accept that no IOMMU keeps the devices in check: they can read and write all of the
    /// host's memory, so the guest is trusted like root
    #[arg(long)]
    noiommu: bool,
}

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

    /// Where the guest's serial port goes: stdio, off or file=PATH
    #[arg(long, value_name = "stdio|off|file=PATH", default_value = "stdio")]
    serial: SerialConfig,
}

impl VmArgs {
    fn into_config(self, devices: Vec<DeviceConfig>, command_line: String) -> Config {
        Config {
            kernel: self.kernel,
            initramfs: self.initramfs,
            command_line,
            memory: self.memory,
            cpus: self.cpus,
            devices,
            noiommu: self.noiommu,
            software: None,
            serial: SerialConfig::Off,
        }
    }
}

impl From<RunArgs> for Config {
    fn from(args: RunArgs) -> Self {
        Self {
            serial: args.serial,
            ..args.vm.into_config(args.devices, args.cmdline)
        }
    }
}

/// What can be made to go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Break {
    /// Two pieces of guest RAM have one another's addresses
    Identity,
    /// The software engine adds a page to every address
    Offset,
    /// The software engine loses interrupts
    Interrupt,
    /// The software engine flips bits
    Bit,
}

/// Options of `pinvisor stress`.
#[derive(Args, Debug)]
pub struct StressArgs {
    #[command(flatten)]
    vm: VmArgs,

    #[arg(long = "device", value_name = DEVICE_VALUE, help = DEVICE_HELP, required_unless_present = "software")]
    devices: Vec<DeviceConfig>,

    /// Words for the guest's command line; what the guest knows is in docs/stress.md
    #[arg(long, value_name = "STRING", default_value = "")]
    cmdline: String,

    /// In place of devices: synthetic physical memory, deliberately fragmented, and a DMA engine
    /// in software. Needs nothing but /dev/kvm
    #[arg(long, conflicts_with_all = ["devices", "noiommu"])]
    software: bool,

    /// Seed of everything random
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Make something go wrong, to see that it is noticed; all but identity need --software
    #[arg(long = "break", value_name = "WHAT", value_enum)]
    sabotage: Option<Break>,

    /// Give the guest so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,

    /// Write the report to FILE as a page for a browser
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    /// Write the report to FILE as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Write what the guest prints to FILE
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
}

impl StressArgs {
    /// The run, and how its RAM is laid out.
    ///
    /// # Errors
    /// [`Error::NoSoftwareEngine`] if a fault is asked for that nothing here can have.
    pub fn into_config(self) -> Result<(StressConfig, &'static dyn Layout), Error> {
        let fault = match self.sabotage {
            None | Some(Break::Identity) => None,
            Some(Break::Offset) => Some(EngineFault::Offset),
            Some(Break::Interrupt) => Some(EngineFault::Interrupt),
            Some(Break::Bit) => Some(EngineFault::Bit),
        };
        if fault.is_some() && !self.software {
            return Err(Error::NoSoftwareEngine);
        }
        let layout: &dyn Layout = match self.sabotage {
            Some(Break::Identity) => &Swapped,
            _ => &Identity,
        };
        let seed = self.seed;
        let command_line = format!("seed={seed} {}", self.cmdline);
        let mut vm = self.vm.into_config(self.devices, command_line);
        vm.software = self.software.then_some(SoftwareConfig { seed, fault });
        let config = StressConfig {
            vm,
            limit: Duration::from_secs(self.timeout),
            html: self.html,
            json: self.json,
            log: self.log,
        };
        Ok((config, layout))
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
    fn stress(more: &[&str]) -> StressArgs {
        let words = ["pinvisor", "stress", "--kernel", "k", "--memory", "64M"];
        match Cli::try_parse_from(words.iter().chain(more)).map(|cli| cli.command) {
            Ok(Command::Stress(args)) => *args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_stress_run_is_in_software_or_on_devices() {
        let (config, _) = stress(&["--software", "--seed", "7", "--break", "bit"])
            .into_config()
            .unwrap();
        let software = config.vm.software.unwrap();
        assert_eq!(software.seed, 7);
        assert_eq!(software.fault, Some(EngineFault::Bit));
        assert!(config.vm.command_line.starts_with("seed=7 "));

        let device = ["--device", "01:00.0", "--noiommu"];
        let (config, _) = stress(&device).into_config().unwrap();
        assert_eq!(config.vm.software, None);
        let (config, _) = stress(&[&device[..], &["--break", "identity"]].concat())
            .into_config()
            .unwrap();
        assert_eq!(config.vm.devices.len(), 1);
        assert!(matches!(
            stress(&[&device[..], &["--break", "offset"]].concat()).into_config(),
            Err(Error::NoSoftwareEngine)
        ));
        for wrong in [&[][..], &["--software", "--device", "01:00.0"]] {
            let words = ["pinvisor", "stress", "--kernel", "k", "--memory", "64M"];
            assert!(Cli::try_parse_from(words.iter().chain(wrong)).is_err());
        }
    }
}
