// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a VM of this architecture has before its memory and CPUs.

use kvm_ioctls::{Cap, Kvm, VmFd};

use super::gic::Controllers;
use crate::kvm::vm::VmError;

/// Bits of a guest-physical address where KVM does not say how many it can have
/// (Documentation/virt/kvm/api.rst, KVM_CREATE_VM).
const DEFAULT_BITS: u8 = 40;

/// Gives a new VM its interrupt controllers.
///
/// # Errors
/// [`VmError::Refused`]
pub fn equip(fd: &VmFd) -> Result<Controllers, VmError> {
    Controllers::create(fd)
}

/// Has KVM forget a deleted memslot alone, as it always does here.
///
/// # Errors
/// None.
pub fn keep_other_slots(_: &VmFd) -> Result<(), kvm_ioctls::Error> {
    Ok(())
}

/// What KVM's CPUs can do on this host.
#[derive(Clone, Copy, Debug)]
pub struct CpuFeatures {
    address_bits: u8,
}

impl CpuFeatures {
    /// Asks KVM.
    ///
    /// # Errors
    /// None.
    pub fn of(kvm: &Kvm) -> Result<Self, VmError> {
        // A VM is created with as many.
        let bits = match kvm.check_extension(Cap::ArmVmIPASize) {
            true => kvm.get_host_ipa_limit(),
            false => 0,
        };
        let bits = u8::try_from(bits).unwrap_or(0);
        Ok(Self {
            address_bits: if bits == 0 { DEFAULT_BITS } else { bits },
        })
    }

    /// Bits of a guest-physical address.
    #[must_use]
    pub fn address_bits(&self) -> u8 {
        self.address_bits
    }
}
