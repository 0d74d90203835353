// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Options of every microVM.

use std::path::PathBuf;

use clap::Args;

use crate::config::RunOptions;
use vmm::config::{CpuCount, LowMemory, MemoryConfig};

/// What a device's option is made of.
pub const DEVICE_VALUE: &str =
    "BDF[,dma=auto|iommu|identity|translate|mediate][,profile=FILE][,reset=none]";
/// What a device's option means.
pub const DEVICE_HELP: &str = "PCI device to pass through, bound to vfio-pci; may be repeated. \
                               dma=auto, the default, uses an IOMMU if the device has one, else \
                               identity; translate shows the guest a table of its memory \
                               (docs/reference/dma-window.md); mediate checks and translates \
                               addresses that are written to the device's registers, which \
                               profile=FILE or a shipped profile's name describes \
                               (docs/reference/mediate.md). A device that cannot be reset requires \
                               reset=none";

/// Options of every microVM.
#[derive(Args, Clone, Debug, Default)]
pub struct VmArgs {
    /// Kernel to boot: a bzImage, a vmlinux, or another ELF file, which is entered by PVH if it
    /// has such an entry point, else in 64-bit mode with the zero page's address in RSI
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,

    /// Initramfs for the guest
    #[arg(long, value_name = "FILE")]
    pub initramfs: Option<PathBuf>,

    /// Guest RAM, for example 512M. If hugepages are scattered, up to spare=SIZE more (default:
    /// half of SIZE) are pinned temporarily, and the best are kept. Identity-mapped memory in more
    /// than 127 pieces is refused, because Linux may then let devices use memory that is not the
    /// guest's; pieces=any accepts it
    #[arg(
        long,
        value_name = "SIZE[,hugepage_size=2M|1G][,spare=SIZE][,pieces=any]"
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
