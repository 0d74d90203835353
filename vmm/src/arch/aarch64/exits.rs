// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Exits of KVM_RUN that only this architecture has: none.

use kvm_ioctls::{VcpuExit, VcpuFd};
use vm_device::device_manager::IoManager;

/// What KVM_RUN ended with, of what only this architecture has.
#[derive(Debug)]
pub enum ArchExit {}

impl ArchExit {
    /// Gives `exit` back.
    ///
    /// # Errors
    /// The exit.
    pub fn of(exit: VcpuExit<'_>) -> Result<Self, VcpuExit<'_>> {
        Err(exit)
    }

    /// Serves it.
    pub fn serve(self, _: &mut VcpuFd, _: &IoManager) {
        match self {}
    }
}
