// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the engine needs from outside: memory and interrupt delivery.

use thiserror::Error;

use devices::pci::MsiMessage;

/// Memory did not take a burst: not a byte of it was moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Error)]
#[error("the device has no memory there")]
pub struct DmaRefused;

/// Memory as the engine sees it: by bus addresses, which are what the guest programmed.
///
/// Called on the worker's thread only. A call must not access the engine itself, and must return:
/// a reset of the engine waits for it.
pub trait DmaMemory: Send {
    /// A transfer begins; all bursts until the next call are part of it.
    fn begin(&self) {}

    /// Reads 1 to 256 bytes at `address` into `data`.
    ///
    /// # Errors
    ///
    /// If the device may not read all of them.
    fn read(&self, address: u64, data: &mut [u8]) -> Result<(), DmaRefused>;

    /// Writes `data`, 1 to 256 bytes, at `address`.
    ///
    /// # Errors
    ///
    /// If the device may not write all of them.
    fn write(&self, address: u64, data: &[u8]) -> Result<(), DmaRefused>;
}

/// Where interrupts go.
///
/// Called with the engine's registers locked, from the worker's or a vCPU's thread, in the order
/// of events: a call passes the news on and must neither block nor access the engine.
pub trait InterruptSink: Send {
    /// The engine sends an MSI message.
    fn message(&self, message: MsiMessage);

    /// INTA# changes to this level; it starts deasserted.
    fn line(&self, asserted: bool);
}
