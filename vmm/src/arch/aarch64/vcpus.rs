// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest's CPUs before they run.

use std::borrow::Cow;
use std::mem::offset_of;

use kvm_bindings::{
    KVM_ARM_VCPU_POWER_OFF, KVM_ARM_VCPU_PSCI_0_2, KVM_REG_ARM_CORE, KVM_REG_ARM64,
    KVM_REG_SIZE_U64, kvm_regs, kvm_vcpu_init, user_pt_regs,
};
use kvm_ioctls::VcpuFd;

use super::error::EntryError;
use super::handover::Start;
use crate::kvm::vm::{Vm, VmError};

/// PSTATE at the entry of a kernel (Documentation/arch/arm64/booting.rst): EL1 with its own stack pointer, and debug,
/// SError, interrupts and fast interrupts masked.
const EL1H_MASKED: u64 = 0x3c5;

/// A guest's CPUs, which know nothing yet.
#[derive(Debug)]
pub struct Vcpus {
    all: Vec<VcpuFd>,
}

impl Vcpus {
    /// Creates `count` CPUs.
    ///
    /// # Errors
    /// [`VmError`]
    pub fn create(vm: &Vm, count: u8) -> Result<Self, VmError> {
        let all = (0..count).map(|index| vm.create_vcpu(index));
        Ok(Self {
            all: all.collect::<Result<_, _>>()?,
        })
    }

    /// `line`, a command line for Linux: these CPUs need no options.
    #[must_use]
    pub fn command_line<'a>(&self, line: &'a str) -> Cow<'a, str> {
        line.into()
    }

    /// Makes them ready to run. The first one begins at `start`; KVM keeps the others waiting for the first to turn
    /// them on through PSCI.
    ///
    /// # Errors
    /// [`EntryError::Kvm`]
    pub fn set_up(self, vm: &Vm, start: &Start) -> Result<Vec<VcpuFd>, EntryError> {
        let mut target = kvm_vcpu_init::default();
        vm.fd()
            .get_preferred_target(&mut target)
            .map_err(failed("the kind of CPU"))?;
        for (index, vcpu) in self.all.iter().enumerate() {
            vcpu.vcpu_init(&features(target, index == 0))
                .map_err(failed("the kind of CPU"))?;
        }
        if let Some(first) = self.all.first() {
            for (offset, value) in [
                (offset_of!(user_pt_regs, regs), start.device_tree.0),
                (offset_of!(user_pt_regs, pc), start.entry.0),
                (offset_of!(user_pt_regs, pstate), EL1H_MASKED),
            ] {
                first
                    .set_one_reg(register(offset), &value.to_le_bytes())
                    .map_err(failed("registers"))?;
            }
        }
        Ok(self.all)
    }
}

fn failed(what: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> EntryError {
    move |source| EntryError::Kvm { what, source }
}

/// `target` with PSCI, and turned off unless it `is_first`.
fn features(target: kvm_vcpu_init, is_first: bool) -> kvm_vcpu_init {
    let mut init = target;
    init.features[0] |= 1 << KVM_ARM_VCPU_PSCI_0_2;
    if !is_first {
        init.features[0] |= 1 << KVM_ARM_VCPU_POWER_OFF;
    }
    init
}

/// KVM's name of the core register of 64 bits at `offset` in [`user_pt_regs`] (Documentation/virt/kvm/api.rst,
/// KVM_SET_ONE_REG).
fn register(offset: usize) -> u64 {
    let at = (offset_of!(kvm_regs, regs) + offset) / size_of::<u32>();
    KVM_REG_ARM64 | KVM_REG_SIZE_U64 | u64::from(KVM_REG_ARM_CORE) | at as u64
}
