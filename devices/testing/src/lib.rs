// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Test doubles for hardware, hosts and guests, for tests and fuzzers of `devices`. The product
//! does not depend on it.
//!
//! [`SimulatedHost`] is a device behind `HostFunction`, which keeps VFIO's rules and fails on demand; [`operations`]
//! drives a passed-through function on it. [`edu`], [`dma_window`] and [`mediate`] have models of the emulated devices,
//! written down apart from these, and drivers that hold the two against each other.
//!
//! The drivers decode their operations from bytes: the fuzz targets in `devices/fuzz` give them any, the tests those that
//! were kept ([`corpus`]) and random ones.

#![forbid(unsafe_code)]

mod calls;
mod device;
pub mod dma_window;
pub mod edu;
mod host;
mod input;
mod interrupts;
pub mod mediate;
pub mod operations;
mod rules;
mod trigger;

use std::path::Path;
use std::{fs, io};

pub use device::{DeviceImage, ImageError};
pub use host::{Call, SimulatedHost, Witness};
pub use trigger::Count;

/// The inputs kept from the fuzz target `name`.
///
/// # Errors
/// If one cannot be read.
pub fn corpus(name: &str) -> io::Result<Vec<Vec<u8>>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    let entries = fs::read_dir(folder.join(name))?;
    entries.map(|entry| fs::read(entry?.path())).collect()
}
