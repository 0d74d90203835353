// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Facts about a host, without verdicts and texts for users, which are in
//! [`checks`](crate::checks).

pub(crate) mod auto_dma;
pub(crate) mod available_memory;
pub(crate) mod backend;
pub(crate) mod bus_range;
pub(crate) mod config_space;
pub(crate) mod config_window;
pub(crate) mod device;
pub(crate) mod dma_mode;
pub(crate) mod guarded;
pub(crate) mod host_bridge;
pub(crate) mod in_use;
pub(crate) mod interrupts;
pub(crate) mod iommu;
pub(crate) mod kept;
pub(crate) mod kernel;
pub(crate) mod kvm;
pub(crate) mod memory;
pub(crate) mod names;
pub(crate) mod network;
pub(crate) mod open_files;
pub(crate) mod privilege;
pub(crate) mod sleep;
pub(crate) mod storage;
pub(crate) mod sysfs;
pub(crate) mod uses;
