// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Head doorbells of completion queues: pages of memory that the guest writes without an exit.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use address::Gpa;
use guarded_nvme::controller::Messages;
use guarded_nvme::guest::Doorbell;
use guarded_nvme::registers::Layout;
use iommufd_backend::{Error, OwnPages};

use crate::arch::layout::DEVICE_STORES_ARE_CACHED;
use crate::kvm::vm::{Memslot, Vm, VmError};

/// The doorbells of all I/O completion queues, a page each; none where they have to be trapped.
#[derive(Debug)]
pub struct Heads {
    /// The memslots, while BAR0 answers. Before `pages`, which are what the guest sees.
    shown: Mutex<(Vec<Memslot>, Messages)>,
    /// From queue 1 on, each with its place in the guest.
    pages: Vec<(Gpa, OwnPages)>,
    vm: Arc<Vm>,
}

impl Heads {
    /// Pages for a BAR of this layout at `bar`. The guest does not see them yet.
    ///
    /// # Errors
    /// [`Error::Map`]
    pub fn new(layout: &Layout, bar: Gpa, vm: Arc<Vm>) -> Result<Self, Error> {
        let mapped = match DEVICE_STORES_ARE_CACHED {
            true => layout.queues(),
            false => 0,
        };
        let page = |queue| {
            let place = bar + layout.doorbell(Doorbell::head(queue));
            Ok((place, OwnPages::new(1)?))
        };
        Ok(Self {
            shown: Mutex::default(),
            pages: (1..=mapped).map(page).collect::<Result<_, Error>>()?,
            vm,
        })
    }

    /// The first word of a queue's page; `None` if that doorbell is trapped.
    pub fn word(&self, queue: u16) -> Option<&AtomicU64> {
        let index = usize::from(queue).checked_sub(1)?;
        self.pages.get(index)?.1.words().first()
    }

    /// Shows the pages to the guest, or takes them away. Those that KVM does not take are trapped.
    pub fn show(&self, are_shown: bool) {
        let mut state = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let (shown, messages) = &mut *state;
        shown.clear();
        if !are_shown {
            return;
        }
        let mapped = self
            .pages
            .iter()
            .map(|(gpa, page)| self.vm.map(*gpa, page.mapping()));
        match mapped.collect::<Result<Vec<_>, VmError>>() {
            Ok(slots) => *shown = slots,
            Err(error) if messages.take() => {
                log::warn!("doorbells of a guarded device are trapped: {error}");
            }
            Err(_) => {}
        }
    }
}
