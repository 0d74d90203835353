// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The virtual machine as KVM sees it: memslots, interrupts and vCPUs.

pub(crate) mod eventfd;
pub mod irq;
pub mod vcpu;
pub mod vm;
