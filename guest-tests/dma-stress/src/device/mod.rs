//! Devices that do no DMA, tried by the processor.

pub mod ivshmem;
pub mod pci_testdev;
