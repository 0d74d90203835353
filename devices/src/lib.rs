//! Emulated hardware of a microVM: a PCI bus with passed-through functions, and the few legacy
//! devices that guests expect.
//!
//! Everything here is a state machine driven by its callers' threads: no threads, no file
//! descriptors and no KVM of its own. The monitor registers the devices with `vm-device`'s
//! `IoManager` and gives a passed-through function its host side through the trait
//! [`HostFunction`](vfio_pci::HostFunction).

#![forbid(unsafe_code)]

pub mod dma_window;
pub mod edu;
pub mod guest_table;
pub mod i8042;
pub mod mediate;
pub mod pci;
pub mod power;
pub mod serial;
pub mod vfio_pci;
