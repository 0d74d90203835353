// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Options that every microVM has.

use std::path::PathBuf;

use clap::Args;

use crate::config::RunOptions;
use vmm::config::{CpuCount, LowMemory, MemoryConfig};

/// What a device's option is made of.
pub const DEVICE_VALUE: &str =
    "BDF[,dma=auto|iommu|identity|translate|mediate][,profile=FILE][,reset=none]";
/// What a device's option means.
pub const DEVICE_HELP: &str = "\
PCI device to pass through, bound to vfio-pci; may be repeated. dma=auto, which is the default, \
prefers an IOMMU where there is one, and takes identity else; translate shows the guest a table of \
its memory (docs/reference/dma-window.md), mediate checks and translates what is written to the device's \
registers, which profile=FILE, or the name of a shipped profile, describes (docs/reference/mediate.md). An NVMe controller needs no profile: its commands are checked and translated \
(docs/guide/guarded-nvme.md). A device that cannot be reset is taken \
with reset=none only";

/// What every microVM has.
#[derive(Args, Clone, Debug, Default)]
pub struct VmArgs {
    /// Kernel to boot: a bzImage, a vmlinux, or another ELF file, which is entered by PVH if it
    /// has such an entry point, else in 64-bit mode with the zero page's address in RSI
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,

    /// Initramfs to boot it with
    #[arg(long, value_name = "FILE")]
    pub initramfs: Option<PathBuf>,

    /// Guest RAM, for example 512M. Where hugepages are scattered, up to spare=SIZE more are pinned for
    /// a moment and the worst given back, by default half as much again. Memory at physical addresses
    /// in more than 127 pieces is refused, since Linux may then give memory that is not there to
    /// devices, unless pieces=any accepts it
    #[arg(
        long,
        value_name = "SIZE[,hugepage_size=2M|1G][,spare=SIZE][,pieces=any]"
    )]
    pub memory: Option<MemoryConfig>,

    /// What the memory map calls the first 640 KiB, which devices that use physical addresses must not
    /// get: with auto RAM for Linux, which is kept from giving it to drivers, and reserved for other
    /// programs; ram is for programs that need it and do not use it for DMA [default: auto]
    #[arg(long, value_name = "auto|ram|reserved")]
    pub low_memory: Option<LowMemory>,

    /// CPUs of the guest, 1 to 32 [default: 1]
    #[arg(long, value_name = "N")]
    pub cpus: Option<CpuCount>,

    /// Accept that no IOMMU keeps the devices in check: they can read and write all of the
    /// host's memory, so the guest is trusted like root
    #[arg(long)]
    pub noiommu: bool,
}

impl VmArgs {
    /// The same as options of a run.
    pub fn into_options(self) -> RunOptions {
        RunOptions {
            kernel: self.kernel,
            initramfs: self.initramfs,
            memory: self.memory,
            low_memory: self.low_memory,
            cpus: self.cpus,
            noiommu: self.noiommu,
            ..RunOptions::default()
        }
    }
}
