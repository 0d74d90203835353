// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The interrupt controllers that KVM emulates: a GICv3 and its ITS, or a GICv2 (Linux,
//! Documentation/virt/kvm/devices/arm-vgic-v3.rst, arm-vgic-its.rst and arm-vgic.rst).

use address::Gpa;
use kvm_bindings::{
    KVM_DEV_ARM_VGIC_CTRL_INIT, KVM_DEV_ARM_VGIC_GRP_ADDR, KVM_DEV_ARM_VGIC_GRP_CTRL,
    KVM_DEV_ARM_VGIC_GRP_NR_IRQS, KVM_VGIC_ITS_ADDR_TYPE, KVM_VGIC_V2_ADDR_TYPE_CPU,
    KVM_VGIC_V2_ADDR_TYPE_DIST, KVM_VGIC_V3_ADDR_TYPE_DIST, KVM_VGIC_V3_ADDR_TYPE_REDIST,
    kvm_create_device, kvm_device_attr, kvm_device_type, kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_ITS,
    kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V2, kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V3,
};
use kvm_ioctls::{DeviceFd, VmFd};

use super::device_tree::Platform;
use super::gic_version::GicVersion;
use super::layout::{
    GIC_CPU_INTERFACE, GIC_DISTRIBUTOR, GIC_REDISTRIBUTORS, ITS, PRIVATE_INTERRUPTS,
};
use crate::bus::address_map::AddressMap;
use crate::kvm::irq::Delivery;
use crate::kvm::vm::VmError;

/// The interrupt controllers of a VM.
#[derive(Debug)]
pub struct Controllers {
    version: GicVersion,
    gic: DeviceFd,
    /// Of a GICv3.
    its: Option<DeviceFd>,
}

impl Controllers {
    /// Creates them for `vm`, before it has CPUs: of the kind of the host's own, as KVM emulates no other.
    ///
    /// # Errors
    /// [`VmError::Refused`]
    pub fn create(vm: &VmFd) -> Result<Self, VmError> {
        match create(
            vm,
            kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V3,
            "create a GICv3",
        ) {
            Ok(gic) => Self::v3(vm, gic),
            Err(VmError::Refused { source, .. }) if source.errno() == libc::ENODEV => Self::v2(vm),
            Err(error) => Err(error),
        }
    }

    fn v3(vm: &VmFd, gic: DeviceFd) -> Result<Self, VmError> {
        place(&gic, KVM_VGIC_V3_ADDR_TYPE_DIST, GIC_DISTRIBUTOR.start)?;
        place(&gic, KVM_VGIC_V3_ADDR_TYPE_REDIST, GIC_REDISTRIBUTORS.start)?;
        let version = GicVersion::V3;
        size(&gic, version)?;
        let its = create(
            vm,
            kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_ITS,
            "create an ITS",
        )?;
        place(&its, KVM_VGIC_ITS_ADDR_TYPE, ITS.start)?;
        let its = Some(its);
        Ok(Self { version, gic, its })
    }

    fn v2(vm: &VmFd) -> Result<Self, VmError> {
        let gic = create(
            vm,
            kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V2,
            "create a GICv2",
        )?;
        place(&gic, KVM_VGIC_V2_ADDR_TYPE_DIST, GIC_DISTRIBUTOR.start)?;
        place(&gic, KVM_VGIC_V2_ADDR_TYPE_CPU, GIC_CPU_INTERFACE.start)?;
        let version = GicVersion::V2;
        size(&gic, version)?;
        Ok(Self {
            version,
            gic,
            its: None,
        })
    }

    /// CPUs that they serve.
    #[must_use]
    pub fn most_cpus(&self) -> u8 {
        self.version.most_cpus()
    }

    /// The machine with them, this number of CPUs, and a PCI bus as in `bus` if there is one.
    #[must_use]
    pub fn platform(&self, cpus: u8, bus: Option<AddressMap>) -> Platform {
        Platform::new(cpus, self.version, bus)
    }

    /// What becomes of the message `data` to `address` from `device`, its requester id in the guest.
    #[must_use]
    pub fn delivery(&self, address: u64, data: u32, device: u16) -> Delivery {
        self.version.delivery(address, data, device)
    }

    /// Makes them ready for all CPUs, which have been created. No interrupt can be raised before.
    ///
    /// # Errors
    /// [`VmError::Refused`]
    pub fn complete(&self) -> Result<(), VmError> {
        for device in [Some(&self.gic), self.its.as_ref()].into_iter().flatten() {
            set(
                device,
                "initialise an interrupt controller",
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

/// Gives `gic` its interrupts.
fn size(gic: &DeviceFd, version: GicVersion) -> Result<(), VmError> {
    let interrupts: u32 = PRIVATE_INTERRUPTS + version.spis();
    set(
        gic,
        "size an interrupt controller",
        kvm_device_attr {
            group: KVM_DEV_ARM_VGIC_GRP_NR_IRQS,
            addr: &raw const interrupts as u64,
            ..Default::default()
        },
    )
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
