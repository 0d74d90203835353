// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! aarch64: what KVM is there. Memory of a machine with devices of its own is not encrypted.

pub(crate) mod checks;
pub(crate) mod encryption;

use address::{Bdf, Hpa};
use iommufd_backend::{Error, TranslatedBar};
use kvm_bindings::{
    kvm_create_device, kvm_device_type, kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_ITS,
    kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V2, kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V3,
};
use kvm_ioctls::{Cap, Kvm};

use crate::facts::bus_range::on_bus;
use crate::facts::host_bridge::{HostBridge, HostBridgeError, host_bridge};
use crate::facts::kvm::KvmObstacle;
use crate::sys_root::SysRoot;

/// What every guest needs of KVM (Linux Documentation/virt/kvm/api.rst). Interrupt controllers are devices, which the
/// kernel has where the CPU has; that messages have device ids (`KVM_CAP_MSI_DEVID`) is known of a VM with an ITS only.
pub(crate) const NEEDED_OF_KVM: &[Cap] = &[
    Cap::UserMemory,
    Cap::Irqchip,
    Cap::Irqfd,
    Cap::IrqfdResample,
    Cap::IrqRouting,
    Cap::DeviceCtrl,
    Cap::OneReg,
    Cap::ArmPsci02,
    Cap::ImmediateExit,
];

/// What keeps KVM from running guests, besides a capability that it lacks: the host's interrupt controller. Which ones KVM
/// emulates is known of a VM only.
pub(crate) fn kvm_obstacle(kvm: &Kvm) -> Option<KvmObstacle> {
    let emulates = |kinds: &[kvm_device_type]| {
        // What refuses a VM refuses it again when a guest is to run, and says why.
        let Ok(vm) = kvm.create_vm() else { return true };
        kinds.iter().all(|kind| {
            let mut device = kvm_create_device {
                type_: *kind,
                ..Default::default()
            };
            vm.create_device(&mut device).is_ok()
        })
    };
    let v3 = kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V3;
    // A guest has a GICv3 wherever there is one.
    let is_enough = match emulates(&[v3]) {
        true => emulates(&[v3, kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_ITS]),
        false => emulates(&[kvm_device_type_KVM_DEV_TYPE_ARM_VGIC_V2]),
    };
    (!is_enough).then_some(KvmObstacle::NoGic)
}

/// The host bridge of a function, if it is not the same on every machine what it does to addresses and to the CPU's
/// caches.
///
/// # Errors
/// [`HostBridgeError`]
pub(crate) fn described_bridge(
    root: &SysRoot,
    bdf: Bdf,
) -> Result<Option<HostBridge>, HostBridgeError> {
    // A map that cannot be read has a check of its own.
    let ram: Vec<_> = root
        .iomem()
        .map_or_else(|_| Vec::new(), |map| map.system_ram().collect());
    host_bridge(root, bdf, &ram).map(Some)
}

/// The options of the kernel's configuration of which KVM needs one: there is no other.
pub(crate) const KVM_OPTIONS: &[&str] = &["KVM"];

/// The modules of KVM, as `modprobe` takes them. It is built in wherever there is some.
pub(crate) const KVM_MODULES: &str = "kvm";

/// The target of the kernel's makefile that builds a kernel to boot.
pub(crate) const KERNEL_TARGET: &str = "Image";

/// Whether config space of a guest has the same address on every host: where no host has RAM or BARs.
pub(crate) const HAS_FIXED_CONFIG_SPACE: bool = true;

/// Config space of a guest is at a place of its own, which is not looked for in the host's map; this is where 32 bits
/// end.
pub(crate) const CONFIG_WINDOW_LIMIT: Hpa = Hpa(1 << 32);

/// Whether every device sees what is in the CPU's caches: here the device tree tells, for each host bridge.
pub(crate) const DMA_IS_COHERENT: bool = false;

/// The first BAR of a function whose address on the device's bus is not the one that its host bridge gives it: another
/// bridge translates.
///
/// # Errors
/// What sysfs does not show.
pub(crate) fn translated_bar(root: &SysRoot, bdf: Bdf) -> Result<Option<TranslatedBar>, Error> {
    // A bridge that cannot be understood is refused by itself.
    let windows = host_bridge(root, bdf, &[]).map_or_else(|_| Vec::new(), |bridge| bridge.windows);
    root.pci().translated_bar(bdf, |cpu| on_bus(&windows, cpu))
}
