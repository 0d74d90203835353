//! What the user wants to run.

mod cpus;
mod device;
mod error;
mod host;
mod memory;
mod serial;

use std::path::PathBuf;

pub use cpus::{CpuCount, MOST_CPUS};
pub use device::{DeviceConfig, DmaMode};
pub use error::ConfigError;
pub use host::{HostConfig, RunConfig};
pub use memory::MemoryConfig;
pub use serial::SerialConfig;

/// A microVM to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The kernel: a bzImage or an ELF file.
    pub kernel: PathBuf,
    /// An initramfs for it.
    pub initramfs: Option<PathBuf>,
    /// The kernel's command line.
    pub command_line: String,
    /// Guest RAM.
    pub memory: MemoryConfig,
    /// CPUs of the guest, 1 to [`MOST_CPUS`].
    pub cpus: CpuCount,
    /// Devices to pass through.
    pub devices: Vec<DeviceConfig>,
    /// Whether devices may be used that no IOMMU keeps in check.
    pub noiommu: bool,
    /// Software in place of devices and of physical memory.
    pub software: Option<SoftwareConfig>,
    /// Where the first serial port goes.
    pub serial: SerialConfig,
}

/// A machine whose physical memory is synthetic and whose only device is a DMA engine in
/// software, so that it needs nothing of the host but KVM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SoftwareConfig {
    /// Decides where memory is.
    pub seed: u64,
    /// What the engine does wrong, if anything.
    pub fault: Option<EngineFault>,
}

/// What a DMA engine can be made to do wrong, to see that it is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineFault {
    /// It adds a page to every bus address.
    Offset,
    /// Now and then it does not interrupt.
    Interrupt,
    /// Now and then it flips a bit.
    Bit,
}
