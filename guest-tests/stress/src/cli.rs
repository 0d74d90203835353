// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, ValueEnum};
use pinvisor::config::{DEVICE_HELP, DEVICE_VALUE, RunOptions};
use vmm::config::{CpuCount, DeviceConfig, DmaMode, LowMemory, MemoryConfig};
use vmm::{Layout, Swapped};

use crate::StressConfig;
use crate::config::{EngineFault, SoftwareConfig, SoftwareDma};
use crate::error::Error;

/// Faults to inject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Break {
    /// Swap the addresses of two pieces of guest RAM
    Identity,
    /// The software engine adds a page to every address
    Offset,
    /// The software engine loses interrupts
    Interrupt,
    /// The software engine flips bits
    Bit,
}

/// How the DMA of the engine in software reaches guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Software {
    /// Guest RAM is at its physical addresses
    Identity,
    /// The guest looks physical addresses up in the DMA window
    Translate,
    /// The monitor checks and translates addresses that are written to the engine's registers
    Mediate,
}

/// Run a guest that stresses DMA, decide whether the run passed, and write a report.
#[derive(Debug, Parser)]
#[command(name = "pinvisor-stress", version = pinvisor::VERSION, about)]
pub struct Cli {
    /// Log more: once for each step, twice for everything
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,

    /// The run.
    #[command(flatten)]
    pub args: StressArgs,
}

/// Options of a stress run.
#[derive(Args, Debug)]
pub struct StressArgs {
    /// Kernel of the guest: dma-stress, or a Linux with linux-stress as its initramfs
    #[arg(long, value_name = "FILE")]
    kernel: PathBuf,

    /// Initramfs for the guest
    #[arg(long, value_name = "FILE")]
    initramfs: Option<PathBuf>,

    /// Guest RAM, as for pinvisor run
    #[arg(
        long,
        value_name = "SIZE[,hugepage_size=2M|1G][,spare=SIZE][,pieces=any][,layout=auto|identity|packed]"
    )]
    memory: MemoryConfig,

    /// Type of the first 640 KiB in the memory map, as for pinvisor run [default: auto]
    #[arg(long, value_name = "auto|ram|reserved")]
    low_memory: Option<LowMemory>,

    /// CPUs of the guest, 1 to 32 [default: 1]
    #[arg(long, value_name = "N")]
    cpus: Option<CpuCount>,

    /// Accept that no IOMMU isolates the devices, as for pinvisor run
    #[arg(long)]
    noiommu: bool,

    #[arg(long = "device", value_name = DEVICE_VALUE, help = DEVICE_HELP, required_unless_present = "software")]
    devices: Vec<DeviceConfig>,

    /// Options on the guest's command line; docs/guide/stress.md lists those of the guest
    #[arg(long, value_name = "STRING", default_value = "")]
    cmdline: String,

    /// Instead of devices, use synthetic physical memory, deliberately fragmented, and a DMA engine
    /// in software. Requires only /dev/kvm
    #[arg(long, value_name = "DMA", value_enum, conflicts_with_all = ["devices", "noiommu"],
          num_args = 0..=1, require_equals = true, default_missing_value = "identity")]
    software: Option<Software>,

    /// Seed of the random generators
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// Inject a fault, to verify that it is detected; all but identity require --software
    #[arg(long = "break", value_name = "WHAT", value_enum)]
    sabotage: Option<Break>,

    /// Stop the guest after this many seconds
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
    /// The run, and how its RAM is laid out, if not as its configuration says.
    ///
    /// # Errors
    /// [`Error::NoSoftwareEngine`] if a fault is asked for that nothing here can have.
    pub fn into_config(self) -> Result<(StressConfig, Option<&'static dyn Layout>), Error> {
        let fault = match self.sabotage {
            None | Some(Break::Identity) => None,
            Some(Break::Offset) => Some(EngineFault::Offset),
            Some(Break::Interrupt) => Some(EngineFault::Interrupt),
            Some(Break::Bit) => Some(EngineFault::Bit),
        };
        if fault.is_some() && self.software.is_none() {
            return Err(Error::NoSoftwareEngine);
        }
        let layout: Option<&dyn Layout> = match self.sabotage {
            Some(Break::Identity) => Some(&Swapped),
            _ => None,
        };
        let seed = self.seed;
        // In this mode nothing in the guest shows how its DMA has to be.
        let all_mediated = |devices: &[DeviceConfig]| {
            let is_mediated = |device: &DeviceConfig| device.dma == DmaMode::Mediate;
            !devices.is_empty() && devices.iter().all(is_mediated)
        };
        let mediate = self.software == Some(Software::Mediate) || all_mediated(&self.devices);
        let mode = if mediate { "mode=mediate " } else { "" };
        let command_line = format!("seed={seed} {mode}{}", self.cmdline);
        let options = RunOptions {
            devices: self.devices,
            cmdline: Some(command_line),
            kernel: Some(self.kernel),
            initramfs: self.initramfs,
            memory: Some(self.memory),
            low_memory: self.low_memory,
            cpus: self.cpus,
            noiommu: self.noiommu,
            ..RunOptions::default()
        };
        let vm = options.into_guest().map_err(pinvisor::Error::from)?;
        let software = self.software.map(|software| SoftwareConfig {
            seed,
            dma: match software {
                Software::Identity => SoftwareDma::Identity,
                Software::Translate => SoftwareDma::Translate,
                Software::Mediate => SoftwareDma::Mediate,
            },
            fault,
        });
        let config = StressConfig {
            vm: vm.validate()?,
            software,
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
    use super::*;

    fn stress(more: &[&str]) -> StressArgs {
        let words = ["pinvisor-stress", "--kernel", "k", "--memory", "64M"];
        Cli::try_parse_from(words.iter().chain(more)).unwrap().args
    }

    #[test]
    fn a_stress_run_is_in_software_or_on_devices() {
        let (config, _) = stress(&["--software", "--seed", "7", "--break", "bit"])
            .into_config()
            .unwrap();
        let software = config.software.unwrap();
        assert_eq!(software.seed, 7);
        assert_eq!(software.fault, Some(EngineFault::Bit));
        assert_eq!(software.dma, SoftwareDma::Identity);
        assert!(config.vm.command_line.starts_with("seed=7 "));

        let device = ["--device", "01:00.0", "--noiommu"];
        let (config, _) = stress(&device).into_config().unwrap();
        assert_eq!(config.software, None);
        let (config, _) = stress(&[&device[..], &["--break", "identity"]].concat())
            .into_config()
            .unwrap();
        assert_eq!(config.vm.devices.len(), 1);
        assert!(matches!(
            stress(&[&device[..], &["--break", "offset"]].concat()).into_config(),
            Err(Error::NoSoftwareEngine)
        ));
        for wrong in [
            &[][..],
            &["--software", "--device", "01:00.0"],
            &["--software=iommu"],
            &["--software", "mediate"],
        ] {
            let words = ["pinvisor-stress", "--kernel", "k", "--memory", "64M"];
            assert!(Cli::try_parse_from(words.iter().chain(wrong)).is_err());
        }
    }

    #[test]
    fn a_guest_whose_dma_is_mediated_gets_the_mode() {
        let mediated = ["--noiommu", "--device", "01:00.0,dma=mediate"];
        for (words, told) in [
            (&["--software=mediate"][..], true),
            (&["--software=translate"], false),
            (&mediated, true),
            (&[&mediated[..], &["--device", "02:00.0"]].concat(), false),
        ] {
            let words = [words, &["--cmdline", "engines=edu"]].concat();
            let (config, _) = stress(&words).into_config().unwrap();
            let line = &config.vm.command_line;
            assert!(line.ends_with(" engines=edu"), "{line}");
            assert_eq!(line.contains(" mode=mediate "), told, "{line}");
        }
        let (config, _) = stress(&["--software=mediate"]).into_config().unwrap();
        assert_eq!(config.software.unwrap().dma, SoftwareDma::Mediate);
    }
}
