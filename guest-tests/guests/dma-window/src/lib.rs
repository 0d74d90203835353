// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest's side of the DMA window, as `docs/reference/dma-window.md` specifies it.
//!
//! A guest whose memory is not at the host's addresses must not give a device its guest-physical
//! addresses. The window is a PCI function that provides the right ones:
//!
//! 1. [`locate`](fn@locate) recognises the function by its config space and returns where its BARs are. The
//!    guest makes them accessible (memory decode in COMMAND, a mapping) behind [`Bars`].
//! 2. [`DmaWindow::open`] makes sure that it is a window of a version known here.
//! 3. [`DmaWindow::translate`] returns the address for a device. It reads the table in the BAR,
//!    which does not leave the guest.
//! 4. [`DmaWindow::enable`] lets a device be a bus master, once its driver uses such addresses.
//!
//! ```
//! # use dma_window::{Bars, DmaWindow, EnableError, TranslateError};
//! # use address::{Bdf, Gpa};
//! /// Gives a device the addresses of a buffer, piece by piece.
//! fn program<B: Bars>(
//!     window: &DmaWindow<B>,
//!     mut gpa: Gpa,
//!     mut len: u64,
//!     mut descriptor: impl FnMut(u64, u64),
//! ) -> Result<(), TranslateError> {
//!     while len > 0 {
//!         let run = window.translate(gpa, len)?;
//!         descriptor(run.hpa.0, run.len);
//!         (gpa, len) = (gpa + run.len, len - run.len);
//!     }
//!     Ok(())
//! }
//! ```
//!
//! Needs neither `std` nor, in this package, a heap (`amdv1` links `alloc`, so an image has to
//! have an allocator).

#![no_std]
#![forbid(unsafe_code)]

mod locate;
mod registers;
#[cfg(test)]
mod tests;
mod window;

pub use amdv1::{Run, WalkError};
pub use locate::{DEVICE, Location, VENDOR, locate};
pub use registers::{MAGIC, VERSION};
pub use window::{Bars, DmaWindow, EnableError, OpenError, TranslateError};
