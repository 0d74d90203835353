// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The interrupt controllers that KVM emulates: a GICv3 and its ITS (Linux,
//! Documentation/virt/kvm/devices/arm-vgic-v3.rst and arm-vgic-its.rst).

use address::Gpa;
use kvm_bindings::{
    KVM_DEV_ARM_VGIC_CTRL_INIT, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_DEV_ARM_VGIC_GRP_CTRL,
    KVM_DEV_ARM_VGIC_GRP_NR_IRQS, KVM_VGIC_ITS_ADDR_TYPE, KVM_VGIC_V3_ADDR_TYPE_DIST,
    KVM_VGIC_V3_ADDR_TYPE_REDIST, kvm_create_device, kvm_device_attr, kvm_device_type,
    kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_ITS, kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V3,
};
use kvm_ioctls::{DeviceFd, VmFd};

use super::layout::{GIC_DISTRIBUTOR, GIC_REDISTRIBUTORS, ITS, PRIVATE_INTERRUPTS, SPIS};
use crate::kvm::vm::VmError;

/// The interrupt controllers of a VM.
#[derive(Debug)]
pub struct Controllers {
    gic: DeviceFd,
    its: DeviceFd,
}

impl Controllers {
    /// Creates them for `vm`, before it has CPUs.
    ///
    /// # Errors
    /// [`VmError::Refused`], with ENODEV where the host's own controller is older than a GICv3.
    pub fn create(vm: &VmFd) -> Result<Self, VmError> {
        let gic = create(
            vm,
            kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V3,
            "create a GICv3",
        )?;
        place(&gic, KVM_VGIC_V3_ADDR_TYPE_DIST, GIC_DISTRIBUTOR.start)?;
        place(&gic, KVM_VGIC_V3_ADDR_TYPE_REDIST, GIC_REDISTRIBUTORS.start)?;
        let interrupts: u32 = PRIVATE_INTERRUPTS + SPIS;
        set(
            &gic,
            "size a GICv3",
            kvm_device_attr {
                group: KVM_DEV_ARM_VGIC_GRP_NR_IRQS,
                addr: &raw const interrupts as u64,
                ..Default::default()
            },
        )?;
        let its = create(
            vm,
            kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_ITS,
            "create an ITS",
        )?;
        place(&its, KVM_VGIC_ITS_ADDR_TYPE, ITS.start)?;
        Ok(Self { gic, its })
    }

    /// Makes them ready for all CPUs, which have been created. No interrupt can be raised before.
    ///
    /// # Errors
    /// [`VmError::Refused`]
    pub fn complete(&self) -> Result<(), VmError> {
        for (device, operation) in [
            (&self.gic, "initialise a GICv3"),
            (&self.its, "initialise an ITS"),
        ] {
            set(
                device,
                operation,
                kvm_device_attr {
                    group: KVM_DEV_ARM_VGIC_GRP_CTRL,
                    attr: KVM_DEV_ARM_VGIC_CTRL_INIT.into(),
                    ..Default::default()
                },
            )?;
        }
        Ok(())
    }
}

fn create(vm: &VmFd, kind: kvm_device_type, operation: &'static str) -> Result<DeviceFd, VmError> {
    let mut device = kvm_create_device {
        type_: kind,
        ..Default::default()
    };
    vm.create_device(&mut device)
        .map_err(|source| VmError::Refused { operation, source })
}

/// Puts registers of `device` at `at`.
fn place(device: &DeviceFd, registers: u32, at: Gpa) -> Result<(), VmError> {
    set(
        device,
        "place an interrupt controller",
        kvm_device_attr {
            group: KVM_DEV_ARM_VGIC_GRP_ADDR,
            attr: registers.into(),
            addr: &raw const at.0 as u64,
            ..Default::default()
        },
    )
}

/// Sets an attribute whose value, where it has one, lives as long as this call.
fn set(
    device: &DeviceFd,
    operation: &'static str,
    attribute: kvm_device_attr,
) -> Result<(), VmError> {
    device
        .set_device_attr(&attribute)
        .map_err(|source| VmError::Refused { operation, source })
}
