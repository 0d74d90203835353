// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Wired interrupts: pins of the I/O APIC and of the PIC.

use std::ops::Range;

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE,
    kvm_irq_routing_entry, kvm_irq_routing_irqchip, kvm_irqchip,
};
use kvm_ioctls::VmFd;

/// Pins of the I/O APIC, which are GSIs 0 to 23.
const IO_APIC_PINS: u32 = 24;
/// GSIs of ISA interrupts, which have a second route each, to the PIC.
const ISA_PINS: u32 = 16;
/// Routes in all (Linux, arch/x86/include/asm/kvm_host.h KVM_MAX_IRQ_ROUTES).
pub const MAX_ROUTES: u32 = 4096;
/// GSIs for message-signalled interrupts.
pub const MESSAGE_GSIS: Range<u32> = IO_APIC_PINS..MAX_ROUTES - ISA_PINS;

/// The routes that a VM begins with, which a table of one's own replaces: GSI, chip and pin. The
/// first 16 GSIs are those of ISA and have both chips (Linux, arch/x86/kvm/irq.c `default_routing`).
fn pins() -> impl Iterator<Item = (u32, u32, u32)> {
    let io_apic = (0..IO_APIC_PINS).map(|gsi| (gsi, KVM_IRQCHIP_IOAPIC, gsi));
    let first = (0..8).map(|gsi| (gsi, KVM_IRQCHIP_PIC_MASTER, gsi));
    let second = (8..ISA_PINS).map(|gsi| (gsi, KVM_IRQCHIP_PIC_SLAVE, gsi - 8));
    io_apic.chain(first).chain(second)
}

/// The routes of wired interrupts.
pub fn wired_routes() -> impl Iterator<Item = kvm_irq_routing_entry> {
    pins().map(|(gsi, irqchip, pin)| {
        let mut entry = kvm_irq_routing_entry {
            gsi,
            type_: KVM_IRQ_ROUTING_IRQCHIP,
            ..Default::default()
        };
        entry.u.irqchip = kvm_irq_routing_irqchip { irqchip, pin };
        entry
    })
}

/// What `KVM_IRQ_LINE` calls the wired `gsi`.
#[must_use]
pub fn line(gsi: u32) -> u32 {
    gsi
}

/// Whether the guest lets the I/O APIC's pin `gsi` interrupt it.
///
/// # Errors
/// What KVM returns.
pub fn is_handled(vm: &VmFd, gsi: u32) -> Result<bool, kvm_ioctls::Error> {
    /// Redirection table entry: masked (Intel 82093AA, section 3.2.4).
    const MASKED: u64 = 1 << 16;
    let mut controller = kvm_irqchip {
        chip_id: KVM_IRQCHIP_IOAPIC,
        ..Default::default()
    };
    vm.get_irqchip(&mut controller)?;
    // SAFETY: KVM fills this variant of the union in for the chip that was asked for; every
    // bit pattern of it is valid.
    let pins = unsafe { controller.chip.ioapic }.redirtbl;
    let pin = usize::try_from(gsi).ok().and_then(|pin| pins.get(pin));
    Ok(pin.is_some_and(|pin| {
        // SAFETY: both variants of the union are eight bytes of which every bit pattern is
        // valid.
        let entry = unsafe { pin.bits };
        entry & MASKED == 0
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interrupts_of_isa_reach_both_chips() {
        let to = |gsi| -> Vec<_> {
            let found = pins().filter(|(route, ..)| *route == gsi);
            found.map(|(_, chip, pin)| (chip, pin)).collect()
        };
        assert_eq!(
            to(4),
            [(KVM_IRQCHIP_IOAPIC, 4), (KVM_IRQCHIP_PIC_MASTER, 4)]
        );
        assert_eq!(
            to(12),
            [(KVM_IRQCHIP_IOAPIC, 12), (KVM_IRQCHIP_PIC_SLAVE, 4)]
        );
        assert_eq!(to(16), [(KVM_IRQCHIP_IOAPIC, 16)]);
        assert_eq!(pins().count(), 40);
    }
}
