// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a VM of this architecture has before its memory and CPUs: interrupt controllers and a timer.

use kvm_bindings::{
    CpuId, KVM_CAP_DISABLE_QUIRKS2, KVM_PIT_SPEAKER_DUMMY, KVM_X86_QUIRK_SLOT_ZAP_ALL,
    kvm_enable_cap, kvm_pit_config,
};
use kvm_ioctls::{Kvm, VmFd};
use vm_memory::GuestMemoryMmap;

use super::acpi::Platform;
use super::cpuid;
use super::layout::{IDENTITY_MAP, TASK_STATE};
use crate::bus::address_map::AddressMap;
use crate::config::MOST_CPUS;
use crate::kvm::irq::Delivery;
use crate::kvm::vm::VmError;

/// The interrupt controllers of a VM.
#[derive(Debug)]
pub struct Controllers;

impl Controllers {
    /// Makes them ready for all CPUs, which have been created. Nothing to do: each CPU brings its own.
    ///
    /// # Errors
    /// None.
    pub fn complete(&self) -> Result<(), VmError> {
        Ok(())
    }

    /// CPUs that they serve.
    #[must_use]
    pub fn most_cpus(&self) -> u8 {
        MOST_CPUS
    }

    /// The machine with them, this number of CPUs, and a PCI bus as in `bus` if there is one.
    #[must_use]
    pub fn platform(&self, cpus: u8, bus: Option<AddressMap>) -> Platform {
        Platform::new(cpus, bus)
    }

    /// What becomes of a message: its address names the CPU.
    #[must_use]
    pub fn delivery(&self, _: u64, _: u32, _: u16) -> Delivery {
        Delivery::Anyone
    }
}

/// Gives a new VM its interrupt controllers and its timer.
///
/// # Errors
/// [`VmError::Refused`]
pub fn equip(fd: &VmFd) -> Result<Controllers, VmError> {
    let refused = |operation| move |source| VmError::Refused { operation, source };
    fd.set_identity_map_address(IDENTITY_MAP.0)
        .map_err(refused("place the identity map"))?;
    let task_state = usize::try_from(TASK_STATE.0).unwrap_or(usize::MAX);
    fd.set_tss_address(task_state)
        .map_err(refused("place the task state"))?;
    fd.create_irq_chip()
        .map_err(refused("create interrupt controllers"))?;
    // Kernels that do not support KVM's clock measure the TSC with the PIT, which needs no
    // description: ports 0x40 to 0x43, and 0x61, whose bit reports that it has counted down.
    let pit = kvm_pit_config {
        flags: KVM_PIT_SPEAKER_DUMMY,
        ..Default::default()
    };
    fd.create_pit2(pit).map_err(refused("create a timer"))?;
    Ok(Controllers)
}

/// Cleans what this process wrote into guest memory. Nothing to do: DMA bypasses no caches.
pub fn clean_caches(_: &GuestMemoryMmap) {}

/// Has KVM zap the entries of a deleted memslot alone (Linux 6.12, Documentation/virt/kvm/api.rst
/// `KVM_X86_QUIRK_SLOT_ZAP_ALL`).
///
/// # Errors
/// That this kernel cannot.
pub fn keep_other_slots(fd: &VmFd) -> Result<(), kvm_ioctls::Error> {
    fd.enable_cap(&kvm_enable_cap {
        cap: KVM_CAP_DISABLE_QUIRKS2,
        args: [KVM_X86_QUIRK_SLOT_ZAP_ALL.into(), 0, 0, 0],
        ..Default::default()
    })
}

/// What KVM's CPUs can do on this host: the CPUID leaves that it supports.
#[derive(Clone, Debug)]
pub struct CpuFeatures(pub(super) CpuId);

impl CpuFeatures {
    /// Asks KVM.
    ///
    /// # Errors
    /// [`VmError::Refused`]
    pub fn of(kvm: &Kvm) -> Result<Self, VmError> {
        let supported = cpuid::supported(kvm).map_err(|source| VmError::Refused {
            operation: "read the supported CPUID",
            source,
        })?;
        Ok(Self(supported))
    }

    /// Bits of a guest-physical address.
    #[must_use]
    pub fn address_bits(&self) -> u8 {
        cpuid::address_bits(&self.0)
    }
}
