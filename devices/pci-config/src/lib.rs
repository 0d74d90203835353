// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! PCI config space: the offsets and bits of its registers ([`regs`]), and the one rule by which its two lists of
//! capabilities are walked ([`capabilities`], [`extended_capabilities`]).
//!
//! Config space is hardware's or another program's: lists run in circles, point into the header or to where nothing
//! responds. A walk visits each place once and ends at the first that cannot be a capability, so it always ends.
//!
//! What the kinds of interrupt are, and what config space says of each, is in [`InterruptKind`].
//!
//! What is walked is anything that can be read ([`ConfigRead`]): bytes that were read before, or a device through a
//! closure that may fail.
//!
//! ```
//! use std::io;
//!
//! use pci_config::{Words, capabilities, find_capability, regs};
//!
//! // What a device shows: MSI at 0x50, then Power Management at 0x40.
//! let mut config = [0_u8; 256];
//! config[usize::from(regs::STATUS)] = 0x10; // it has a list
//! config[usize::from(regs::CAPABILITIES)] = 0x50;
//! config[0x50..0x52].copy_from_slice(&[regs::CAP_MSI, 0x40]);
//! config[0x40..0x42].copy_from_slice(&[regs::CAP_PM, 0]);
//!
//! let ids: Vec<u16> = capabilities(&config[..]).map(|Ok(found)| found.id).collect();
//! assert_eq!(ids, [5, 1]);
//!
//! // The same device behind a call that fails from 0x40 on.
//! let device = Words(|offset: u16| match offset {
//!     0x40.. => Err(io::Error::other("no such register")),
//!     _ => Ok(u16::from_le_bytes([config[usize::from(offset)], config[usize::from(offset) + 1]])),
//! });
//! assert!(find_capability(device, regs::CAP_PM).is_err());
//! ```

#![no_std]
#![forbid(unsafe_code)]

mod bar;
mod capability;
mod interrupt;
mod message;
mod read;
pub mod regs;

pub use bar::BarKind;
pub use capability::{
    Capabilities, Capability, MAX_CAPABILITIES, MAX_EXTENDED_CAPABILITIES, capabilities,
    extended_capabilities, find_capability, find_extended_capability, hides_capabilities,
};
pub use interrupt::{InterruptKind, PerKind, interrupt_vectors};
pub use message::{MsiControl, MsixControl, MsixLocation};
pub use read::{ConfigRead, Dwords, Words, word};
