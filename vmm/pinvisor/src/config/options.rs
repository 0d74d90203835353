// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The options of a run, each of which may be left out: on the command line and, by the same names, in a file.

use std::path::PathBuf;

use clap::Args;
use serde::Deserialize;
use vmm::config::{
    BackendChoice, Config, ConfineConfig, CpuCount, DeviceConfig, LowMemory, MemoryConfig, OnReset,
    Seccomp, SerialConfig, UserName, backend, deserialize_backend, deserialize_path,
};

use super::{HostConfig, RunConfig};
use crate::Error;

/// The kernel's command line where none is given.
const COMMAND_LINE: &str = "console=ttyS0";

/// An option that is required and was not given, neither on the command line nor in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("--{0} is missing on the command line and in the file of --config")]
pub struct Missing(&'static str);

impl Missing {
    /// How to name it.
    #[must_use]
    pub fn hint(self) -> String {
        let value = match self.0 {
            "kernel" => "/boot/vmlinuz-VERSION",
            _ => "512M",
        };
        format!("for example: --{} {value}", self.0)
    }
}

/// What a device's option is made of.
pub const DEVICE_VALUE: &str = "BDF[,dma=auto|iommu|identity|translate|mediate][,profile=FILE][,poll=auto|on|off][,reset=none]";
/// What a device's option means.
pub const DEVICE_HELP: &str = "PCI device to pass through, bound to vfio-pci; may be repeated. \
                               dma=auto, the default, uses an IOMMU if the device has one, else \
                               identity, or mediate for NVMe controllers where hugepages are \
                               missing; translate shows the guest a table of its memory \
                               (docs/reference/dma-window.md); mediate checks and translates \
                               addresses that are written to the device's registers, which \
                               profile=FILE or a shipped profile's name describes \
                               (docs/reference/mediate.md), and needs no profile for an NVMe \
                               controller (docs/guide/guarded-nvme.md), whose queues poll=on looks \
                               at all the time and poll=auto while they are busy, if the host has \
                               a CPU for that. A device that cannot be reset requires reset=none";

/// The options of a run. The comments are the help of the command line.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RunOptions {
    /// Kernel to boot: a bzImage, a vmlinux, or another ELF file, which is entered by PVH if it
    /// has such an entry point, else in 64-bit mode with the zero page's address in RSI
    #[arg(long, value_name = "FILE")]
    #[serde(deserialize_with = "deserialize_path")]
    pub kernel: Option<PathBuf>,

    /// Initramfs for the guest
    #[arg(long, value_name = "FILE")]
    #[serde(deserialize_with = "deserialize_path")]
    pub initramfs: Option<PathBuf>,

    /// Guest RAM, for example 512M. If hugepages are scattered, up to spare=SIZE more (default:
    /// half of SIZE) are pinned temporarily, and the best are kept. Identity-mapped memory in more
    /// than 127 pieces is refused, because Linux may then let devices use memory that is not the
    /// guest's; pieces=any accepts it. layout=packed is for aarch64 guests: memory is at conventional
    /// addresses, which the guest's device tree translates for devices; auto packs memory that
    /// cannot be at its host addresses
    #[arg(
        long,
        value_name = "SIZE[,hugepage_size=2M|1G][,spare=SIZE][,pieces=any][,layout=auto|identity|packed]"
    )]
    pub memory: Option<MemoryConfig>,

    /// Type of the first 640 KiB in the memory map, which devices that use physical addresses must
    /// not access: auto is RAM for Linux, which is prevented from giving it to drivers, and
    /// reserved for other programs; ram is for programs that need it and do not use it for DMA
    /// [default: auto]
    #[arg(long, value_name = "auto|ram|reserved")]
    pub low_memory: Option<LowMemory>,

    /// CPUs of the guest, 1 to 32 [default: 1]
    #[arg(long, value_name = "N")]
    pub cpus: Option<CpuCount>,

    /// Accept that no IOMMU isolates the devices: they can read and write all of the host's memory,
    /// so the guest is trusted like root
    #[arg(long)]
    pub noiommu: bool,

    /// Interface of the host kernel to use for devices without an IOMMU: cdev is character devices and /dev/iommu (Linux
    /// 7.3), group is groups and io_uring (Linux 5.15), and auto is cdev if the host has it [default: auto]
    #[arg(long, value_name = "auto|cdev|group", value_parser = backend)]
    #[serde(deserialize_with = "deserialize_backend")]
    pub backend: Option<BackendChoice>,

    /// Devices to pass through.
    #[arg(long = "device", value_name = DEVICE_VALUE, help = DEVICE_HELP)]
    #[serde(rename = "device")]
    pub devices: Vec<DeviceConfig>,

    /// Kernel command line [default: console=ttyS0]
    #[arg(long, value_name = "STRING")]
    pub cmdline: Option<String>,

    /// Destination of the guest's serial port. pty creates a terminal for other programs and prints
    /// its path; socket=PATH serves one client at a time. A slow reader does not block the guest:
    /// the last MiB of unread output is kept [default: stdio]
    #[arg(long, value_name = "stdio|off|file=PATH|pty|socket=PATH")]
    pub serial: Option<SerialConfig>,

    /// Write the log to FILE instead of standard error, at the level of -v at least
    #[arg(long, value_name = "FILE")]
    #[serde(deserialize_with = "deserialize_path")]
    pub log_file: Option<PathBuf>,

    /// Append events to FILE, one JSON object per line (docs/reference/events.md)
    #[arg(long, value_name = "FILE")]
    #[serde(deserialize_with = "deserialize_path")]
    pub event_file: Option<PathBuf>,

    /// Write events to the open descriptor N
    #[arg(long, value_name = "N")]
    pub event_fd: Option<u32>,

    /// Keep the process ID in FILE while the guest runs. A second run with the same file is
    /// refused; a stale file is replaced
    #[arg(long, value_name = "FILE")]
    #[serde(deserialize_with = "deserialize_path")]
    pub pidfile: Option<PathBuf>,

    /// What to do if the guest restarts: exit ends the run with exit code 7, restart resets the
    /// devices and boots the guest again. Linux may restart after a panic, too [default: exit]
    #[arg(long, value_name = "exit|restart")]
    pub on_reset: Option<OnReset>,

    /// What to do about system calls that a thread needs not: on ends the process, log has the kernel log them, off
    /// installs no filter (docs/reference/confinement.md) [default: on]
    #[arg(long, value_name = "on|log|off")]
    pub seccomp: Option<Seccomp>,

    /// Become this user, with one group, before the guest starts
    #[arg(long, value_name = "NAME|UID[:GID]")]
    pub jail_user: Option<UserName>,

    /// Make DIR, which may be empty, the root directory before the guest starts
    #[arg(long, value_name = "DIR")]
    #[serde(deserialize_with = "deserialize_path")]
    pub jail_root: Option<PathBuf>,

    /// How much is logged; on the command line an option of all commands.
    #[arg(skip)]
    pub verbose: Option<u8>,
}

impl RunOptions {
    /// These, and what they leave open from `file`, whose devices come first.
    #[must_use]
    pub fn or(self, file: Self) -> Self {
        let mut devices = file.devices;
        devices.extend(self.devices);
        Self {
            backend: self.backend.or(file.backend),
            cmdline: self.cmdline.or(file.cmdline),
            cpus: self.cpus.or(file.cpus),
            devices,
            event_fd: self.event_fd.or(file.event_fd),
            event_file: self.event_file.or(file.event_file),
            initramfs: self.initramfs.or(file.initramfs),
            jail_root: self.jail_root.or(file.jail_root),
            jail_user: self.jail_user.or(file.jail_user),
            kernel: self.kernel.or(file.kernel),
            log_file: self.log_file.or(file.log_file),
            low_memory: self.low_memory.or(file.low_memory),
            memory: self.memory.or(file.memory),
            noiommu: self.noiommu || file.noiommu,
            on_reset: self.on_reset.or(file.on_reset),
            pidfile: self.pidfile.or(file.pidfile),
            seccomp: self.seccomp.or(file.seccomp),
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
            confine: ConfineConfig {
                seccomp: self.seccomp.unwrap_or_default(),
                user: self.jail_user.clone(),
                root: self.jail_root.clone(),
            },
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
            backend: self.backend.unwrap_or_default(),
            serial: self.serial.unwrap_or_default(),
        })
    }
}
