// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Devices that do no DMA, tried by the processor.

pub mod ivshmem;
pub mod pci_testdev;
