// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A DMA transfer as programmed: its checks, and its split into bursts.

use std::fmt;
use std::ops::Range;

use thiserror::Error;

/// Device address of the engine's buffer.
pub const BUFFER_ADDRESS: u64 = 0x40000;
/// Bytes of the engine's buffer, at most.
pub const BUFFER_SIZE: u32 = 0x10000;
/// Bytes of QEMU's buffer.
pub const QEMU_BUFFER_SIZE: u32 = 0x1000;
/// Longest burst in bytes. Bursts end at multiples of it on the bus, so none crosses a page.
const BURST: u64 = 256;

/// Which way data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From memory to the engine's buffer.
    Read,
    /// From the engine's buffer to memory.
    Write,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
        })
    }
}

/// Why data was not moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum Reason {
    /// The count is 0 or larger than the buffer.
    #[error("the count is not 1 to {size:#x}")]
    Count {
        /// Bytes of the buffer.
        size: u64,
    },
    /// Not all device addresses are in the buffer.
    #[error("device address {device:#x} to its end is not inside the buffer")]
    Buffer {
        /// First device address.
        device: u64,
    },
    /// The bus addresses run past 2^64.
    #[error("it runs past the end of the address space")]
    WrapAround,
    /// The guest does not let the function master the bus.
    #[error("the function is not a bus master")]
    BusMaster,
    /// Memory refused a burst.
    #[error("the device has no memory there")]
    Memory,
}

/// A transfer or a burst of one that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("DMA {direction} of {length:#x} bytes at bus address {address:#x} refused: {reason}")]
pub struct Refusal {
    /// First bus address.
    pub address: u64,
    /// Bytes that were not moved: the burst's, or the whole transfer's if it was refused at once.
    pub length: u64,
    /// Which way.
    pub direction: Direction,
    /// Why.
    pub reason: Reason,
}

/// A transfer as the guest wrote it to the registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub direction: Direction,
    /// Bus address.
    pub bus: u64,
    /// Device address.
    pub device: u64,
    /// Bytes.
    pub count: u64,
}

/// A part of a transfer that memory takes or refuses as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Burst {
    pub address: u64,
    /// Which bytes of the buffer.
    pub buffer: Range<usize>,
}

impl Request {
    /// The bursts of the transfer, in a buffer of `size` bytes.
    pub fn bursts(self, size: u32) -> Result<impl Iterator<Item = Burst>, Refusal> {
        let size = u64::from(size);
        let refuse = |reason| self.refuse(self.bus, self.count, reason);
        if self.count == 0 || self.count > size {
            return Err(refuse(Reason::Count { size }));
        }
        let device = self.device;
        let start = device
            .checked_sub(BUFFER_ADDRESS)
            .filter(|start| *start <= size - self.count)
            .and_then(|start| usize::try_from(start).ok())
            .ok_or_else(|| refuse(Reason::Buffer { device }))?;
        if self.bus.checked_add(self.count - 1).is_none() {
            return Err(refuse(Reason::WrapAround));
        }
        let mut done = 0;
        let mut from = start;
        Ok(std::iter::from_fn(move || {
            let left = self.count - done;
            if left == 0 {
                return None;
            }
            let address = self.bus + done;
            let length = left.min(BURST - address % BURST);
            let to = from + usize::try_from(length).ok()?;
            let buffer = from..to;
            (done, from) = (done + length, to);
            Some(Burst { address, buffer })
        }))
    }

    /// A refusal of `length` bytes at `address`, part of this transfer.
    pub fn refuse(self, address: u64, length: u64, reason: Reason) -> Refusal {
        Refusal {
            address,
            length,
            direction: self.direction,
            reason,
        }
    }
}
