// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a guest on bare metal needs to try a machine's DMA: engines, transfers of every shape,
//! and a verdict on every byte.
//!
//! Everything here is portable and touches neither memory nor registers by itself: it is handed
//! them as [`Memory`] and [`Registers`]. The image that boots (`src/bare`) brings the real ones,
//! tests bring their own.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod boot_params;
pub mod canary;
pub mod cost;
pub mod device;
pub mod diagnose;
pub mod dma_address;
pub mod engine;
pub mod hostile;
pub mod memory;
pub mod nvme;
pub mod options;
pub mod pair;
pub mod pattern;
pub mod pci;
pub mod place;
pub mod probe;
pub mod ram;
pub mod registers;
pub mod report;
pub mod shape;
pub mod signals;
pub mod stress;
pub mod tally;
pub mod window;

pub use memory::{Memory, OutsideRam};
pub use registers::Registers;
