// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A small NVMe driver: one I/O queue pair on the first namespace of any controller.
//!
//! Written from the NVM Express Base specification 1.4 and 2.0 (sections are cited as "Base 1.4
//! §…"), without unsafe code and without knowledge of the machine: registers, DMA memory and
//! time come from its user through [`Registers`](crate::Registers) of BAR0, [`Dma`] and [`Clock`].
//!
//! ```text
//! let mut nvme = Controller::new(registers, bar0_bytes, &mut dma, clock)?;  // reset, enable, identify, queues
//! let list = PrpList { buffer: &lists, first_page: 0, first_entry: 511 };
//! let prp = PrpBuilder::new(&pages, first_offset, bytes)?.build(&list)?;
//! let id = nvme.submit(Command::read(lba, blocks, prp))?;
//! let mut done = Vec::new();
//! nvme.poll(&mut done)?;                   // (id, Ok(())) once the device has completed it
//! nvme.shutdown()?;
//! ```
//!
//! Interrupts: the completion queue has them on, with vector [`Controller::interrupt_vector`].
//! Setting up (or masking) MSI-X, MSI or INTx is the user's, and so is the waiting: after an
//! interrupt, or as often as one likes, [`Controller::poll`]. All completions of the queues'
//! set-up were consumed before [`Controller::new`] returned, so the first interrupt after it
//! is for the first command.
//!
//! The device is not trusted: whatever its registers, its answers and its completion queue
//! hold gives an error or a defined result, in bounded time. What no driver can prevent
//! without an IOMMU is a device that writes where it must not.

mod access;
mod cmb;
mod command;
mod controller;
mod device;
mod error;
mod identify;
mod prp;
mod queue;
mod registers;
mod setup;
mod status;

#[cfg(test)]
mod tests;

pub use access::{Clock, Dma, DmaBuffer, PAGE_BYTES};
pub use cmb::Cmb;
pub use command::{Command, CommandId, Op};
pub use controller::{Completion, Controller};
pub use error::{CompletionFault, NvmeError, SubmitError, Waiting};
pub use identify::Namespace;
pub use prp::{Prp, PrpBuilder, PrpError, PrpList, Shape};
pub use status::Status;
