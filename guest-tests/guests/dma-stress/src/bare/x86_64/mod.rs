// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A PC.

pub mod apic;
pub mod boot;
pub mod clock;
pub mod entry;
mod firmware;
pub mod interrupts;
pub mod mmio;
pub mod paging;
pub mod ports;
pub mod power;
pub mod serial;
pub mod smp;
pub mod traps;

pub use apic as controller;
