// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! x86-64: the CPU's flags, its memory encryption, and what KVM is there.

pub(crate) mod checks;
pub(crate) mod cpu;

use address::{Bdf, BusAddr, Hpa};
use iommufd_backend::{Error, TranslatedBar};
use kvm_ioctls::{Cap, Kvm};

use crate::facts::host_bridge::{HostBridge, HostBridgeError};
use crate::facts::kvm::KvmObstacle;
use crate::sys_root::SysRoot;

/// What every guest needs of KVM (Linux Documentation/virt/kvm/api.rst).
pub(crate) const NEEDED_OF_KVM: &[Cap] = &[
    Cap::UserMemory,
    Cap::Irqchip,
    Cap::Irqfd,
    Cap::IrqfdResample,
    Cap::IrqRouting,
    Cap::Pit2,
    Cap::ImmediateExit,
    Cap::SetTssAddr,
    Cap::ExtCpuid,
];

/// What keeps KVM from running guests, besides a capability that it lacks: nothing.
pub(crate) fn kvm_obstacle(_: &Kvm) -> Option<KvmObstacle> {
    None
}

/// The host bridge of a function, if it is not the same on every machine what it does to addresses and to the CPU's
/// caches: it is.
///
/// # Errors
/// None.
pub(crate) fn described_bridge(_: &SysRoot, _: Bdf) -> Result<Option<HostBridge>, HostBridgeError> {
    Ok(None)
}

/// The options of the kernel's configuration of which KVM needs one beside `KVM`; which one follows from the CPU.
pub(crate) const KVM_OPTIONS: &[&str] = &["KVM_INTEL", "KVM_AMD"];

/// The modules of KVM, as `modprobe` takes them.
pub(crate) const KVM_MODULES: &str = "kvm_amd kvm_intel";

/// The target of the kernel's makefile that builds a kernel to boot.
pub(crate) const KERNEL_TARGET: &str = "bzImage";

/// Whether config space of a guest has the same address on every host.
pub(crate) const HAS_FIXED_CONFIG_SPACE: bool = false;

/// Where the guest's I/O APIC is. Config space is below it, in the 32 bits that can describe it.
pub(crate) const CONFIG_WINDOW_LIMIT: Hpa = Hpa(0xfec0_0000);

/// Whether every device sees what is in the CPU's caches, as on every machine of x86.
pub(crate) const DMA_IS_COHERENT: bool = true;

/// The first BAR of a function that has another address on the device's bus than for the CPU. No host bridge of x86
/// adds an offset to addresses, so that memory has its own address there if BARs have.
///
/// # Errors
/// What sysfs does not show.
pub(crate) fn translated_bar(root: &SysRoot, bdf: Bdf) -> Result<Option<TranslatedBar>, Error> {
    root.pci().translated_bar(bdf, BusAddr::identity)
}
