// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Interrupts: the meaning of each GSI, and the eventfd that raises it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_MSI_VALID_DEVID, KvmIrqRouting,
    kvm_irq_routing_entry, kvm_irq_routing_irqchip, kvm_irq_routing_msi, kvm_msi,
};
use vm_allocator::IdAllocator;
use vmm_sys_util::eventfd::EventFd;

use super::vm::Vm;
use crate::arch::irq::{self, MAX_ROUTES};
use crate::error::explain::{ExitCode, Explain};

/// Why an interrupt cannot be delivered.
#[derive(Debug, thiserror::Error)]
pub enum IrqError {
    /// All GSIs are in use.
    #[error("KVM has no interrupt route left: {MAX_ROUTES} are in use")]
    NoRoute,
    /// KVM did not take a message.
    #[error("KVM on the host refused: cannot deliver an MSI message to {address:#x}")]
    Message {
        /// Where the message goes.
        address: u64,
        /// Why not.
        source: kvm_ioctls::Error,
    },
    /// KVM refused.
    #[error("KVM on the host refused: cannot {operation} GSI {gsi}")]
    Refused {
        /// What was asked for, as a verb phrase.
        operation: &'static str,
        /// The interrupt.
        gsi: u32,
        /// Why not.
        source: kvm_ioctls::Error,
    },
}

impl Explain for IrqError {
    fn ids() -> Vec<&'static str> {
        vec!["irq"]
    }

    fn id(&self) -> &'static str {
        "irq"
    }

    fn exit_code(&self) -> ExitCode {
        ExitCode::Host
    }
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
    messages: BTreeMap<u32, Message>,
}

/// What becomes of a message that a device writes, by the guest's interrupt controllers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "each architecture has other kinds of controllers")
)]
pub enum Delivery {
    /// KVM delivers it, whichever device wrote it.
    Anyone,
    /// KVM delivers it if it knows the device by this number.
    From(u32),
    /// It raises this pin of the interrupt controller.
    Pin(u32),
    /// No controller receives it: KVM drops it.
    Nowhere,
}

impl Delivery {
    /// Flags of a message for KVM, and the number of the device.
    fn sender(self) -> (u32, u32) {
        match self {
            Self::From(device) => (KVM_MSI_VALID_DEVID, device),
            Self::Anyone | Self::Pin(_) | Self::Nowhere => (0, 0),
        }
    }
}

/// The route by which `gsi` is `pin` of the interrupt controller.
pub fn pin_route(gsi: u32, pin: u32) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry {
        gsi,
        type_: KVM_IRQ_ROUTING_IRQCHIP,
        ..Default::default()
    };
    entry.u.irqchip = kvm_irq_routing_irqchip { irqchip: 0, pin };
    entry
}

/// What a message-signalled interrupt writes, and the requester id of the device that writes it.
#[derive(Clone, Copy, Debug)]
struct Message {
    address: u64,
    data: u32,
    device: u16,
}

impl Message {
    /// The route by which `gsi` means this, which has this `delivery`.
    fn route(self, gsi: u32, delivery: Delivery) -> kvm_irq_routing_entry {
        if let Delivery::Pin(pin) = delivery {
            return pin_route(gsi, pin);
        }
        let (address_lo, address_hi) = crate::halves(self.address);
        let (flags, devid) = delivery.sender();
        let mut entry = kvm_irq_routing_entry {
            gsi,
            type_: KVM_IRQ_ROUTING_MSI,
            flags,
            ..Default::default()
        };
        entry.u.msi = kvm_irq_routing_msi {
            address_lo,
            address_hi,
            data: self.data,
            ..Default::default()
        };
        entry.u.msi.__bindgen_anon_1.devid = devid;
        entry
    }
}

impl Interrupts {
    /// The routes of `vm`: its I/O APIC's pins and no messages yet.
    ///
    /// # Errors
    /// [`IrqError::NoRoute`] cannot happen with the constants above.
    pub fn new(vm: Arc<Vm>) -> Result<Arc<Self>, IrqError> {
        let free = IdAllocator::new(irq::MESSAGE_GSIS.start, irq::MESSAGE_GSIS.end - 1)
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
            log::error!("Cannot free GSI {gsi}: {error}");
        }
    }

    /// Makes `gsi` mean the message `data` to `address` from `device`, its requester id in the guest.
    ///
    /// # Errors
    /// [`IrqError::Refused`]
    pub fn route(&self, gsi: u32, address: u64, data: u32, device: u16) -> Result<(), IrqError> {
        let message = Message {
            address,
            data,
            device,
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

    fn apply(&self, messages: &BTreeMap<u32, Message>) -> Result<(), kvm_ioctls::Error> {
        let messages = messages
            .iter()
            .map(|(gsi, message)| message.route(*gsi, self.delivery(message)));
        let entries: Vec<_> = irq::wired_routes().chain(messages).collect();
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

    /// Delivers the message `data` to `address` from `device`, its requester id in the guest, once.
    ///
    /// # Errors
    /// [`IrqError::Message`]
    pub fn signal(&self, address: u64, data: u32, device: u16) -> Result<(), IrqError> {
        let sent = Message {
            address,
            data,
            device,
        };
        let delivery = self.delivery(&sent);
        if let Delivery::Pin(pin) = delivery {
            return self.pulse(pin);
        }
        let (address_lo, address_hi) = crate::halves(address);
        let (flags, devid) = delivery.sender();
        let message = kvm_msi {
            address_lo,
            address_hi,
            data,
            flags,
            devid,
            ..Default::default()
        };
        self.vm
            .fd()
            .signal_msi(message)
            .map(drop)
            .map_err(|source| IrqError::Message { address, source })
    }

    /// Raises the edge-triggered `pin` of the interrupt controller once.
    ///
    /// # Errors
    /// [`IrqError::Refused`]
    pub fn pulse(&self, pin: u32) -> Result<(), IrqError> {
        self.set_line(pin, true)?;
        self.set_line(pin, false)
    }

    fn delivery(&self, message: &Message) -> Delivery {
        let Message {
            address,
            data,
            device,
        } = *message;
        self.vm.controllers().delivery(address, data, device)
    }

    /// Holds the level-triggered `gsi` up, or lets go of it.
    ///
    /// # Errors
    /// [`IrqError::Refused`]
    pub fn set_line(&self, gsi: u32, asserted: bool) -> Result<(), IrqError> {
        self.vm
            .fd()
            .set_irq_line(irq::line(gsi), asserted)
            .map_err(|source| IrqError::Refused {
                operation: "raise",
                gsi,
                source,
            })
    }

    /// Whether the guest lets the wired `gsi` interrupt it: it has a handler there.
    ///
    /// # Errors
    /// [`IrqError::Refused`]
    pub fn is_handled(&self, gsi: u32) -> Result<bool, IrqError> {
        irq::is_handled(self.vm.fd(), gsi).map_err(|source| IrqError::Refused {
            operation: "look at",
            gsi,
            source,
        })
    }

    fn routes(&self) -> std::sync::MutexGuard<'_, Routes> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
