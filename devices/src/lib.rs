//! Emulated PCI bus and passthrough functions.

#![forbid(unsafe_code)]

pub mod vfio_pci;
