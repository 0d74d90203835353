// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! From a device's interrupts to the guest's: eventfds that VFIO signals and KVM listens to.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use devices::vfio_pci::{InterruptKind, MsiMessage};
use vmm_sys_util::eventfd::EventFd;

use super::{PassthroughError, VfioFunction};
use crate::kvm::eventfd;

/// The kind of interrupt that is on.
#[derive(Debug)]
pub(super) enum Active {
    None,
    Intx {
        event: Arc<EventFd>,
    },
    Messages {
        kind: InterruptKind,
        vectors: BTreeMap<u16, Vector>,
    },
}

/// One message-signalled interrupt.
#[derive(Debug)]
pub(super) struct Vector {
    event: Arc<EventFd>,
    route: Option<Route>,
    attached: bool,
}

#[derive(Clone, Copy, Debug)]
struct Route {
    gsi: u32,
    message: MsiMessage,
}

/// Eventfds that a function has from its start on, so that a guest always gets the first interrupt of a
/// kind, however many descriptors are open by then.
#[derive(Debug)]
pub(super) struct OwnEvents {
    /// INTx, or vector 0.
    first: Arc<EventFd>,
    /// KVM signals it when the guest has handled INTx, and the device listens.
    resample: EventFd,
}

impl OwnEvents {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            first: Arc::new(eventfd::new()?),
            resample: eventfd::new()?,
        })
    }

    /// The first one, with nothing in it that was left by its last use.
    fn first(&self) -> Arc<EventFd> {
        take(&self.first);
        Arc::clone(&self.first)
    }
}

impl VfioFunction {
    pub(super) fn enable_intx(&mut self) -> Result<(), PassthroughError> {
        let event = self.events.first();
        let resample = &self.events.resample;
        take(resample);
        self.interrupts
            .attach_level(&event, resample, self.intx_gsi)?;
        if let Err(error) = self.raise_intx(&event, resample) {
            self.detach(&event, self.intx_gsi);
            return Err(error.into());
        }
        self.active = Active::Intx { event };
        Ok(())
    }

    /// Lets the device raise `event`, until `resample` reports that the guest has seen it. Both or
    /// nothing: messages are refused while a device has INTx.
    fn raise_intx(
        &self,
        event: &EventFd,
        resample: &EventFd,
    ) -> Result<(), iommufd_backend::Error> {
        self.device
            .irq_enable(InterruptKind::Intx, 0, &[Some(eventfd::borrow(event))])?;
        self.device
            .intx_unmask_by(eventfd::borrow(resample))
            .inspect_err(|_| {
                if let Err(error) = self.device.irq_disable(InterruptKind::Intx) {
                    log::warn!("{}: {error}", self.info.name);
                }
            })
    }

    /// Turns `count` vectors on, or as many as the host has, and returns how many.
    pub(super) fn enable_messages(
        &mut self,
        kind: InterruptKind,
        count: u16,
    ) -> Result<u16, PassthroughError> {
        let mut count = count;
        loop {
            match self.turn_on(kind, 0..count) {
                Ok(vectors) => {
                    self.active = Active::Messages { kind, vectors };
                    return Ok(count);
                }
                Err(error) if count > 1 => {
                    log::warn!("{}: {count} {kind} vectors: {error}", self.info.name);
                    count /= 2;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Lets the device raise vectors `range`, none of which is on.
    fn turn_on(
        &self,
        kind: InterruptKind,
        range: Range<u16>,
    ) -> Result<BTreeMap<u16, Vector>, PassthroughError> {
        let start = range.start.into();
        let added = range
            .map(|number| {
                let event = match number {
                    0 => self.events.first(),
                    _ => Arc::new(eventfd::spare().map_err(PassthroughError::EventFd)?),
                };
                let vector = Vector {
                    event,
                    route: None,
                    attached: false,
                };
                Ok((number, vector))
            })
            .collect::<Result<BTreeMap<_, _>, PassthroughError>>()?;
        let fds: Vec<_> = added
            .values()
            .map(|vector| Some(eventfd::borrow(&vector.event)))
            .collect();
        self.device.irq_enable(kind, start, &fds)?;
        Ok(added)
    }

    /// Has VFIO write the table's entries of the vectors that are on again (`drivers/vfio/pci/vfio_pci_intrs.c
    /// vfio_msi_set_vector_signal`).
    pub(super) fn set_vectors_again(&mut self) -> Result<(), PassthroughError> {
        let Active::Messages { kind, vectors } = &self.active else {
            return Ok(());
        };
        for (number, vector) in vectors {
            let event = eventfd::borrow(&vector.event);
            self.device
                .irq_enable(*kind, (*number).into(), &[Some(event)])?;
        }
        Ok(())
    }

    pub(super) fn disable(&mut self) -> Result<(), PassthroughError> {
        // The device first, so that nothing is raised any more.
        match &self.active {
            Active::None => return Ok(()),
            Active::Intx { .. } => self.device.irq_disable(InterruptKind::Intx)?,
            Active::Messages { kind, .. } => self.device.irq_disable(*kind)?,
        }
        match std::mem::replace(&mut self.active, Active::None) {
            Active::None => {}
            Active::Intx { event } => self.detach(&event, self.intx_gsi),
            Active::Messages { vectors, .. } => {
                for vector in vectors.into_values() {
                    let Some(Route { gsi, .. }) = vector.route else {
                        continue;
                    };
                    if vector.attached {
                        self.detach(&vector.event, gsi);
                    }
                    self.interrupts.release(gsi);
                }
            }
        }
        Ok(())
    }

    /// Lets go of an eventfd that nothing signals any more; KVM would do so when it is closed.
    fn detach(&self, event: &EventFd, gsi: u32) {
        if let Err(error) = self.interrupts.detach(event, gsi) {
            log::warn!("{}: {error}", self.info.name);
        }
    }

    fn vector(active: &mut Active, vector: u16) -> Result<&mut Vector, PassthroughError> {
        match active {
            Active::Messages { vectors, .. } => vectors.get_mut(&vector),
            _ => None,
        }
        .ok_or(PassthroughError::Absent("interrupt vector of that number"))
    }

    /// Turns a vector on that is not, if the kind grows.
    fn add_vector(&mut self, vector: u16) -> Result<(), PassthroughError> {
        let kind = match &self.active {
            Active::Messages { kind, vectors } if !vectors.contains_key(&vector) => *kind,
            _ => return Ok(()),
        };
        if !self.info.interrupts[kind].grows {
            return Ok(());
        }
        let mut added = self.turn_on(kind, vector..vector.saturating_add(1))?;
        if let Active::Messages { vectors, .. } = &mut self.active {
            vectors.append(&mut added);
        }
        Ok(())
    }

    pub(super) fn connect_vector(
        &mut self,
        vector: u16,
        message: MsiMessage,
    ) -> Result<(), PassthroughError> {
        self.add_vector(vector)?;
        let (interrupts, requester) = (&self.interrupts, self.requester);
        let vector = Self::vector(&mut self.active, vector)?;
        let gsi = match vector.route {
            Some(route) => route.gsi,
            None => interrupts.allocate()?,
        };
        if vector.route.is_none_or(|route| route.message != message) {
            if let Err(error) = interrupts.route(gsi, message.address, message.data, requester) {
                if vector.route.is_none() {
                    interrupts.release(gsi);
                }
                return Err(error.into());
            }
            vector.route = Some(Route { gsi, message });
        }
        if !vector.attached {
            hand_over(&vector.event, || interrupts.attach(&vector.event, gsi))?;
            vector.attached = true;
        }
        Ok(())
    }

    pub(super) fn disconnect_vector(&mut self, vector: u16) -> Result<(), PassthroughError> {
        let vector = Self::vector(&mut self.active, vector)?;
        if let (true, Some(route)) = (vector.attached, vector.route) {
            self.interrupts.detach(&vector.event, route.gsi)?;
            vector.attached = false;
        }
        Ok(())
    }

    /// Whether a disconnected vector has been raised.
    pub(super) fn is_pending(&mut self, vector: u16) -> bool {
        let Ok(vector) = Self::vector(&mut self.active, vector) else {
            return false;
        };
        // Reading takes the count, so it is put back; the device may add to it meanwhile.
        let caught = if vector.attached {
            0
        } else {
            take(&vector.event)
        };
        put_back(&vector.event, caught);
        caught != 0
    }
}

/// Gives `event` to KVM with `attach`. KVM delivers what it finds in an eventfd at that moment, but
/// leaves it there (virt/kvm/eventfd.c `kvm_irqfd_assign`), to be found and delivered a second time
/// when it is attached again; what is written to it later it takes out. So what was caught before
/// is written afterwards.
fn hand_over<E>(event: &EventFd, attach: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
    let caught = take(event);
    let attached = attach();
    put_back(event, caught);
    attached
}

/// Takes what `event` has counted.
fn take(event: &EventFd) -> u64 {
    // It does not block; an empty counter is not an error.
    event.read().unwrap_or(0)
}

fn put_back(event: &EventFd, count: u64) {
    if count == 0 {
        return;
    }
    if let Err(error) = event.write(count) {
        log::error!("An interrupt is lost: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_begins_anew_with_each_use() {
        let events = OwnEvents::new().unwrap();
        events.first().write(3).unwrap();
        assert_eq!(take(&events.first()), 0, "left by the last use");
    }

    #[test]
    fn what_was_caught_is_delivered_once() {
        let event = eventfd::new().unwrap();
        event.write(3).unwrap();
        let attached: Result<(), ()> = hand_over(&event, || {
            assert_eq!(take(&event), 0, "KVM would deliver it now and again later");
            Ok(())
        });
        assert_eq!((attached, take(&event)), (Ok(()), 3));
        assert_eq!(hand_over(&event, || Ok::<(), ()>(())), Ok(()));
        assert_eq!(take(&event), 0, "nothing came of nothing");
        event.write(1).unwrap();
        assert_eq!(hand_over(&event, || Err(())), Err(()));
        assert_eq!(take(&event), 1, "still pending");
    }
}
