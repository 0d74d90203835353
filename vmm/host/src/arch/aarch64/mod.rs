// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! aarch64: what KVM is there. Memory of a machine with devices of its own is not encrypted.

pub(crate) mod checks;
pub(crate) mod encryption;

use address::{Bdf, Hpa};
use iommufd_backend::{Error, TranslatedBar};
use kvm_ioctls::Cap;

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

/// The options of the kernel's configuration of which KVM needs one: there is no other.
pub(crate) const KVM_OPTIONS: &[&str] = &["KVM"];

/// The modules of KVM, as `modprobe` takes them. It is built in wherever there is some.
pub(crate) const KVM_MODULES: &str = "kvm";

/// The target of the kernel's makefile that builds a kernel to boot.
pub(crate) const KERNEL_TARGET: &str = "Image";

/// Config space of a guest is at a place of its own, which is not looked for in the host's map; this is where 32 bits
/// end.
pub(crate) const CONFIG_WINDOW_LIMIT: Hpa = Hpa(1 << 32);

/// Whether every device sees what is in the CPU's caches: here the device tree tells, for each host bridge.
pub(crate) const DMA_IS_COHERENT: bool = false;

/// The first BAR of a function that has another address on the device's bus than for the CPU: its bridge adds an offset
/// to addresses.
///
/// # Errors
/// What sysfs does not show.
pub(crate) fn translated_bar(root: &SysRoot, bdf: Bdf) -> Result<Option<TranslatedBar>, Error> {
    root.pci().translated_bar(bdf)
}
