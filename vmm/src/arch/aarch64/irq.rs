// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Wired interrupts: the GIC's shared peripheral interrupts (SPIs), whose numbers are GSIs.

use std::ops::Range;

use kvm_bindings::{KVM_ARM_IRQ_TYPE_SHIFT, KVM_ARM_IRQ_TYPE_SPI, kvm_irq_routing_entry};
use kvm_ioctls::VmFd;

use super::layout::{PRIVATE_INTERRUPTS, SPIS};
use crate::kvm::irq::pin_route;

/// Routes in all (Linux, include/linux/kvm_host.h KVM_MAX_IRQ_ROUTES).
pub const MAX_ROUTES: u32 = 4096;
/// GSIs for message-signalled interrupts.
pub const MESSAGE_GSIS: Range<u32> = SPIS..MAX_ROUTES;

/// The routes of wired interrupts.
pub fn wired_routes() -> impl Iterator<Item = kvm_irq_routing_entry> {
    (0..SPIS).map(|pin| pin_route(pin, pin))
}

/// What `KVM_IRQ_LINE` calls the wired `gsi` (Linux, Documentation/virt/kvm/api.rst, section 4.25).
#[must_use]
pub fn line(gsi: u32) -> u32 {
    KVM_ARM_IRQ_TYPE_SPI << KVM_ARM_IRQ_TYPE_SHIFT | (gsi + PRIVATE_INTERRUPTS)
}

/// Whether the guest lets the wired `gsi` interrupt it. KVM answers this only while no CPU runs
/// (Documentation/virt/kvm/devices/arm-vgic-v3.rst, KVM_DEV_ARM_VGIC_GRP_DIST_REGS), so it is taken to.
///
/// # Errors
/// None.
pub fn is_handled(_: &VmFd, _: u32) -> Result<bool, kvm_ioctls::Error> {
    Ok(true)
}
