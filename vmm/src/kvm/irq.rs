//! Interrupts: which GSI means what, and which eventfd raises it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE, KvmIrqRouting, kvm_irq_routing_entry, kvm_irq_routing_irqchip,
    kvm_irq_routing_msi, kvm_irqchip, kvm_msi,
};
use vm_allocator::IdAllocator;
use vmm_sys_util::eventfd::EventFd;

use super::vm::Vm;

/// Pins of the I/O APIC, which are GSIs 0 to 23.
const IO_APIC_PINS: u32 = 24;
/// GSIs of ISA interrupts, which have a second route each, to the PIC.
const ISA_PINS: u32 = 16;
/// Routes in all (Linux, arch/x86/include/asm/kvm_host.h KVM_MAX_IRQ_ROUTES).
const MOST_ROUTES: u32 = 4096;

/// Why an interrupt cannot be delivered.
#[derive(Debug, thiserror::Error)]
pub enum IrqError {
    /// All GSIs are in use.
    #[error("KVM has no interrupt route left; {MOST_ROUTES} are in use")]
    NoRoute,
    /// KVM did not take a message.
    #[error("KVM: cannot deliver a message to {address:#x}")]
    Message {
        /// Where the message goes.
        address: u64,
        /// Why not.
        source: kvm_ioctls::Error,
    },
    /// KVM refused.
    #[error("KVM: cannot {operation} GSI {gsi}")]
    Refused {
        /// What was asked for, as a verb phrase.
        operation: &'static str,
        /// The interrupt.
        gsi: u32,
        /// Why not.
        source: kvm_ioctls::Error,
    },
}

/// The routes that a VM begins with, which a table of one's own replaces: GSI, chip and pin. The
/// first 16 GSIs are those of ISA and have both chips (Linux, arch/x86/kvm/irq.c `default_routing`).
fn pins() -> impl Iterator<Item = (u32, u32, u32)> {
    let io_apic = (0..IO_APIC_PINS).map(|gsi| (gsi, KVM_IRQCHIP_IOAPIC, gsi));
    let first = (0..8).map(|gsi| (gsi, KVM_IRQCHIP_PIC_MASTER, gsi));
    let second = (8..ISA_PINS).map(|gsi| (gsi, KVM_IRQCHIP_PIC_SLAVE, gsi - 8));
    io_apic.chain(first).chain(second)
}

/// The VM's interrupt routes.
#[derive(Debug)]
pub struct Interrupts {
    vm: Arc<Vm>,
    routes: Mutex<Routes>,
}

#[derive(Debug)]
struct Routes {
    free: IdAllocator,
    messages: BTreeMap<u32, kvm_irq_routing_msi>,
}

impl Interrupts {
    /// The routes of `vm`: its I/O APIC's pins and no messages yet.
    ///
    /// # Errors
    /// [`IrqError::NoRoute`] cannot happen with the constants above.
    pub fn new(vm: Arc<Vm>) -> Result<Arc<Self>, IrqError> {
        let free = IdAllocator::new(IO_APIC_PINS, MOST_ROUTES - ISA_PINS - 1)
            .map_err(|_| IrqError::NoRoute)?;
        Ok(Arc::new(Self {
            vm,
            routes: Mutex::new(Routes {
                free,
                messages: BTreeMap::new(),
            }),
        }))
    }

    /// Takes a GSI for a message-signalled interrupt. It means nothing yet.
    ///
    /// # Errors
    /// [`IrqError::NoRoute`]
    pub fn allocate(&self) -> Result<u32, IrqError> {
        self.routes()
            .free
            .allocate_id()
            .map_err(|_| IrqError::NoRoute)
    }

    /// Gives a GSI back.
    pub fn release(&self, gsi: u32) {
        let mut routes = self.routes();
        routes.messages.remove(&gsi);
        if let Err(error) = routes.free.free_id(gsi) {
            log::error!("GSI {gsi} was free already: {error}");
        }
    }

    /// Makes `gsi` mean the message `data` to `address`.
    ///
    /// # Errors
    /// [`IrqError::Refused`]
    pub fn route(&self, gsi: u32, address: u64, data: u32) -> Result<(), IrqError> {
        let (address_lo, address_hi) = crate::halves(address);
        let message = kvm_irq_routing_msi {
            address_lo,
            address_hi,
            data,
            ..Default::default()
        };
        let mut routes = self.routes();
        let mut messages = routes.messages.clone();
        messages.insert(gsi, message);
        self.apply(&messages).map_err(|source| IrqError::Refused {
            operation: "route",
            gsi,
            source,
        })?;
        routes.messages = messages;
        Ok(())
    }

    fn apply(
        &self,
        messages: &BTreeMap<u32, kvm_irq_routing_msi>,
    ) -> Result<(), kvm_ioctls::Error> {
        let pins = pins().map(|(gsi, irqchip, pin)| {
            let mut entry = kvm_irq_routing_entry {
                gsi,
                type_: KVM_IRQ_ROUTING_IRQCHIP,
                ..Default::default()
            };
            entry.u.irqchip = kvm_irq_routing_irqchip { irqchip, pin };
            entry
        });
        let messages = messages.iter().map(|(gsi, message)| {
            let mut entry = kvm_irq_routing_entry {
                gsi: *gsi,
                type_: KVM_IRQ_ROUTING_MSI,
                ..Default::default()
            };
            entry.u.msi = *message;
            entry
        });
        let entries: Vec<_> = pins.chain(messages).collect();
        let table = KvmIrqRouting::from_entries(&entries)
            .map_err(|_| kvm_ioctls::Error::new(libc::E2BIG))?;
        self.vm.fd().set_gsi_routing(&table)
    }

    /// Makes `eventfd` raise `gsi` without this process taking part. What it holds already is
    /// delivered at once, and stays in it.
    ///
    /// # Errors
    /// [`IrqError::Refused`]
    pub fn attach(&self, eventfd: &EventFd, gsi: u32) -> Result<(), IrqError> {
        self.vm
            .fd()
            .register_irqfd(eventfd, gsi)
            .map_err(|source| IrqError::Refused {
                operation: "raise",
                gsi,
                source,
            })
    }

    /// Makes `eventfd` hold the level-triggered `gsi` up until the guest has handled it, upon
    /// which `resample` is signalled.
    ///
    /// # Errors
    /// [`IrqError::Refused`]
    pub fn attach_level(
        &self,
        eventfd: &EventFd,
        resample: &EventFd,
        gsi: u32,
    ) -> Result<(), IrqError> {
        self.vm
            .fd()
            .register_irqfd_with_resample(eventfd, resample, gsi)
            .map_err(|source| IrqError::Refused {
                operation: "raise",
                gsi,
                source,
            })
    }

    /// Ends what [`attach`](Self::attach) or [`attach_level`](Self::attach_level) began.
    ///
    /// # Errors
    /// [`IrqError::Refused`]
    pub fn detach(&self, eventfd: &EventFd, gsi: u32) -> Result<(), IrqError> {
        self.vm
            .fd()
            .unregister_irqfd(eventfd, gsi)
            .map_err(|source| IrqError::Refused {
                operation: "stop raising",
                gsi,
                source,
            })
    }

    /// Delivers the message `data` to `address` once.
    ///
    /// # Errors
    /// [`IrqError::Message`]
    pub fn signal(&self, address: u64, data: u32) -> Result<(), IrqError> {
        let (address_lo, address_hi) = crate::halves(address);
        let message = kvm_msi {
            address_lo,
            address_hi,
            data,
            ..Default::default()
        };
        self.vm
            .fd()
            .signal_msi(message)
            .map(drop)
            .map_err(|source| IrqError::Message { address, source })
    }

    /// Holds the level-triggered `gsi` up, or lets go of it.
    ///
    /// # Errors
    /// [`IrqError::Refused`]
    pub fn set_line(&self, gsi: u32, asserted: bool) -> Result<(), IrqError> {
        self.vm
            .fd()
            .set_irq_line(gsi, asserted)
            .map_err(|source| IrqError::Refused {
                operation: "raise",
                gsi,
                source,
            })
    }

    /// Whether the guest lets the I/O APIC's pin `gsi` interrupt it: it has a handler there.
    ///
    /// # Errors
    /// [`IrqError::Refused`]
    pub fn is_handled(&self, gsi: u32) -> Result<bool, IrqError> {
        /// Redirection table entry: masked (Intel 82093AA, section 3.2.4).
        const MASKED: u64 = 1 << 16;
        let mut controller = kvm_irqchip {
            chip_id: KVM_IRQCHIP_IOAPIC,
            ..Default::default()
        };
        self.vm
            .fd()
            .get_irqchip(&mut controller)
            .map_err(|source| IrqError::Refused {
                operation: "look at",
                gsi,
                source,
            })?;
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

    fn routes(&self) -> std::sync::MutexGuard<'_, Routes> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
