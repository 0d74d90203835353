// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the NVMe Base Specification (2.2) and the NVM Command Set Specification (1.1) define, as far as it is used here.

pub mod admin;
mod command;
mod completion;
pub mod identify;
pub mod nvm;
pub mod registers;
mod status;

pub use command::{Cdw, DeviceCommand, ENTRY_BYTES, Entry};
pub use completion::{COMPLETION_BYTES, Completion};
pub use status::Status;

/// Bytes of a memory page: CC.MPS is 0 (Base 3.1.4.5; no other is offered).
pub const PAGE: u64 = 4096;

/// [`PAGE`] as a size in memory.
pub const PAGE_BYTES: usize = 4096;

/// `NSID` that names all namespaces (Base 3.2.1.2).
pub const ALL_NAMESPACES: u32 = u32::MAX;
