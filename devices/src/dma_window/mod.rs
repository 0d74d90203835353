//! The DMA window: a PCI function that tells a guest where its memory lies in the host's.
//!
//! For guests whose memory cannot stand at the host's addresses. The window shows an AMDv1 page
//! table from guest-physical to host-physical addresses in a BAR that the guest reads without
//! leaving the processor, and answers the same question through registers. A driver that knows
//! the window gives its device translated addresses, and tells the window so: until then the
//! device's bus mastering stays off, so that a driver which does not know it fails without harm.
//!
//! What the guest sees is specified in `docs/dma-window.md`; offsets and values there and here
//! are the same. The order of construction:
//!
//! 1. [`GuestMemory`]: what the guest's RAM is made of;
//!    [`bar_size`](GuestMemory::bar_size) says how much room its table needs.
//! 2. [`WindowTable`]: the table, for the guest-physical address at which the BAR will stand. The
//!    monitor maps its [`pages`](WindowTable::pages) there, read-only.
//! 3. [`DmaWindow`]: the function, for the bus. It closes the gates of all functions it is given.

mod function;
mod memory;
mod registers;
mod table;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;

pub use function::{DmaWindow, Options, SetupError};
pub use memory::{GuestMemory, MemoryError, Piece};
pub use registers::{DEVICE, REGISTERS_SIZE, VENDOR, VERSION};
pub use table::{BuildError, WindowTable};
