// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! aarch64: a machine without firmware, described by a device tree, with a GICv3 and an ITS, or a GICv2 with a frame for
//! messages.
//!
//! What needs KVM of this architecture is built for it only. The rest, which decides and writes bytes, is tested on
//! every architecture.

pub mod bridges;
pub mod cache;
pub mod device_tree;
pub mod error;
pub mod gic_version;
pub mod host_pages;
pub mod image;
pub mod image_file;
pub mod layout;
pub mod v2m;

#[cfg(target_arch = "aarch64")]
pub mod devices;
#[cfg(target_arch = "aarch64")]
pub mod exits;
#[cfg(target_arch = "aarch64")]
pub mod gic;
#[cfg(target_arch = "aarch64")]
pub mod handover;
#[cfg(target_arch = "aarch64")]
pub mod host;
#[cfg(target_arch = "aarch64")]
pub mod irq;
#[cfg(target_arch = "aarch64")]
pub mod kernel_file;
#[cfg(target_arch = "aarch64")]
pub mod low;
#[cfg(target_arch = "aarch64")]
pub mod memory_map;
#[cfg(target_arch = "aarch64")]
pub mod vcpus;
#[cfg(target_arch = "aarch64")]
pub mod vm;
