// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A DMA engine in software, with the programming interface of QEMU's `edu`.
//!
//! The function has the identity of QEMU's device (`1234:11e8`, revision 0x10, class 0xff), one
//! memory BAR of 1 MiB (64-bit here), INTA#, and MSI with one 64-bit vector (maskable here). A
//! driver for `edu` works unchanged. The differences: a transfer is not delayed to 100 ms, the
//! engine's buffer can be larger, DMA addresses have 64 bits, and a transfer that memory refuses is
//! counted and can be read back.
//!
//! # Registers
//!
//! Source of those below 0xa0: QEMU, `docs/specs/edu.rst`. Below 0x80 accesses have 4 bytes, from
//! 0x80 on 4 or 8. A register responds at its own offset only: 4 bytes of a 64-bit register read
//! its low half, and stored there replace the whole register, upper half 0. Every other read gives
//! all-ones, every other write is dropped.
//!
//! | offset | bits | access | what |
//! |---|---|---|---|
//! | 0x00 | 32 | RO | identification, 0x010000ed |
//! | 0x04 | 32 | RW | liveness: reads as the inverse of what was written |
//! | 0x08 | 32 | RW | factorial: n is stored, n! modulo 2^32 comes back; stores while computing are dropped |
//! | 0x20 | 32 | RW | status: bit 0 (RO) computing, bit 7 raise interrupt 1 when done |
//! | 0x24 | 32 | RO | interrupt status |
//! | 0x60 | 32 | WO | raises an interrupt: the value is or-ed into the interrupt status |
//! | 0x64 | 32 | WO | acknowledges: the value's bits leave the interrupt status |
//! | 0x80 | 64 | RW | DMA source |
//! | 0x88 | 64 | RW | DMA destination |
//! | 0x90 | 64 | RW | DMA count in bytes |
//! | 0x98 | 64 | RW | DMA command: bit 0 start, bit 1 direction (0 memory to buffer, 1 buffer to memory), bit 2 raise interrupt 0x100 at the end; stores without bit 0 are dropped |
//! | 0xa0 | 32 | RO | 0x45535650, "PVSE": this is the software engine |
//! | 0xa4 | 32 | RO | bytes of the buffer, 65536 at most |
//! | 0xa8 | 64 | RO | refused transfers since reset |
//! | 0xb0 | 64 | RO | bus address of the last refusal |
//! | 0xb8 | 64 | RO | bytes of the last refusal |
//!
//! The buffer is at device addresses from 0x40000 on, which name it in the source or
//! destination register; it is not in the BAR. DMA registers cannot be written while a transfer
//! is under way.
//!
//! # Transfers
//!
//! Data moves in bursts of at most 256 bytes that do not cross a multiple of 256 on the bus. A
//! transfer is refused as a whole, without a byte moved, if its count is 0 or larger than the
//! buffer, its device addresses are not all in the buffer, or its bus addresses run past 2^64. It
//! is refused at a burst, with all before it moved, if memory refuses that, or the guest has
//! disabled bus mastering (COMMAND bit 2). Refused or not, a transfer ends with the start bit clear
//! and the requested interrupt: the counter at 0xa8 distinguishes them. For a refusal as a whole
//! 0xb0 and 0xb8 hold the transfer's address and count, else the burst's.
//!
//! # Interrupts
//!
//! With MSI on, each store to 0x60 and each completion that leaves the interrupt status non-zero
//! sends a message, unless the function is not a bus master. While the vector is masked it stays
//! pending instead. With MSI off, INTA# is asserted as long as the interrupt status is not 0 and
//! COMMAND's interrupt-disable bit is clear.

#![forbid(unsafe_code)]

mod function;
mod host;
mod interrupts;
mod outside;
mod registers;
pub mod sabotage;
mod state;
mod transfer;
mod worker;

pub use function::{BAR_SIZE, Edu, Options, SetupError, new};
pub use host::EduHost;
pub use outside::{DmaMemory, DmaRefused, InterruptSink};
pub use registers::SOFTWARE_ENGINE;
pub use state::Statistics;
pub use transfer::{BUFFER_ADDRESS, BUFFER_SIZE, QEMU_BUFFER_SIZE};
pub use transfer::{Direction, Reason, Refusal};
pub use worker::{EduControl, EduWorker};
