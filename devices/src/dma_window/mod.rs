// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The DMA window: a PCI function that provides a guest with the host-physical addresses of its
//! memory.
//!
//! For guests whose memory cannot be at the host's addresses. The window shows an AMDv1 page table
//! from guest-physical to host-physical addresses in a BAR that the guest reads without leaving the
//! processor, and answers the same question through registers. A driver that uses the window gives
//! its device translated addresses, and confirms that to the window: until then the device's bus
//! mastering stays off, so that a driver that does not use it fails without harm.
//!
//! What the guest sees is specified in `docs/reference/dma-window.md`; offsets and values there and here
//! are the same. The table is the run's [`GuestTable`](crate::guest_table::GuestTable), built with
//! pointers that are guest-physical addresses of the BAR; the monitor maps its pages there,
//! read-only. [`DmaWindow`] is the function, for the bus. It closes the gates of all functions it is
//! given.

mod function;
mod registers;

pub use function::{DmaWindow, Options, SetupError};
pub use registers::{DEVICE, REGISTERS_SIZE, VENDOR, VERSION};
