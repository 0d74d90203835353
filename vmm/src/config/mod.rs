// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The requested run: plain data, which [`Config::validate`] makes a [`ValidConfig`].

mod backend;
mod confine;
mod cpus;
mod device;
mod error;
pub mod input_file;
mod low_memory;
mod memory;
mod memory_layout;
mod on_reset;
mod profile;
mod serial;
mod text;
mod validate;

use std::path::PathBuf;

pub use backend::{backend, deserialize_backend};
pub use confine::{ConfineConfig, Seccomp, UserName};
pub use cpus::{CpuCount, MOST_CPUS};
pub use device::{DeviceConfig, Poll};
pub use error::{ConfigError, ValidateError};
pub use host::{BackendChoice, DmaMode};
pub use low_memory::LowMemory;
pub use memory::MemoryConfig;
pub use memory_layout::MemoryLayout;
pub use on_reset::OnReset;
pub use profile::profile;
pub use serial::SerialConfig;
pub use text::path as deserialize_path;
pub use validate::ValidConfig;

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
    /// The type of the first MiB in the memory map.
    pub low_memory: LowMemory,
    /// CPUs of the guest, 1 to [`MOST_CPUS`].
    pub cpus: CpuCount,
    /// Devices to pass through.
    pub devices: Vec<DeviceConfig>,
    /// Whether devices may be used that no IOMMU keeps in check.
    pub noiommu: bool,
    /// Which of the kernel's interfaces is used for those.
    pub backend: BackendChoice,
    /// Where the first serial port goes.
    pub serial: SerialConfig,
}
