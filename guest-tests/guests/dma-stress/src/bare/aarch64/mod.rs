// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The monitor's machine for aarch64.

pub mod boot;
pub mod clock;
pub mod controller;
mod device_tree;
pub mod entry;
pub mod interrupts;
mod its;
pub mod mmio;
pub mod paging;
pub mod ports;
pub mod power;
pub mod serial;
pub mod smp;
pub mod traps;
