// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Interrupts: the meaning of each GSI, and the eventfd that raises it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use kvm_bindings::{
    KVM_IRQ_ROUTING_MSI, KvmIrqRouting, kvm_irq_routing_entry, kvm_irq_routing_msi, kvm_msi,
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
    messages: BTreeMap<u32, kvm_irq_routing_msi>,
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
        let messages = messages.iter().map(|(gsi, message)| {
            let mut entry = kvm_irq_routing_entry {
                gsi: *gsi,
                type_: KVM_IRQ_ROUTING_MSI,
                ..Default::default()
            };
            entry.u.msi = *message;
            entry
        });
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
