// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Doorbells that are pages of memory, which the guest writes without an exit: heads of completion queues always, tails
//! of submission queues while the device's thread looks at them.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use address::Gpa;
use guarded_nvme::controller::Messages;
use guarded_nvme::guest::{Doorbell, Side};
use guarded_nvme::registers::Layout;
use iommufd_backend::{Error, OwnPages};

use crate::arch::layout::DEVICE_STORES_ARE_CACHED;
use crate::kvm::vm::{Memslot, Vm};

/// The doorbells of all I/O queues that can be memory, a page each; none where all have to be trapped. A store that traps
/// ends in the same page.
#[derive(Debug)]
pub struct DoorbellPages {
    shown: Mutex<Shown>,
    /// From queue 1 on.
    heads: Vec<Page>,
    /// The same; none if the thread never polls.
    tails: Vec<Page>,
    vm: Arc<Vm>,
}

/// A page, and its place in the guest.
#[derive(Debug)]
struct Page {
    gpa: Gpa,
    page: OwnPages,
}

/// What the guest sees.
#[derive(Debug, Default)]
struct Shown {
    /// BAR0 answers where the pages are.
    is_home: bool,
    /// The thread looks at tails.
    are_tails_wanted: bool,
    heads: Slots,
    tails: Slots,
    messages: Messages,
}

/// The memslots of pages, in their order.
#[derive(Debug, Default)]
struct Slots(Vec<Option<Memslot>>);

impl DoorbellPages {
    /// Pages for a BAR of this layout at `bar`; with `polls` for tails too. The guest does not see them yet.
    ///
    /// # Errors
    /// [`Error::Map`]
    pub fn new(layout: &Layout, bar: Gpa, vm: Arc<Vm>, polls: bool) -> Result<Self, Error> {
        let pages = |are_possible: bool, doorbell: fn(u16) -> Doorbell| {
            let queues = if are_possible { layout.queues() } else { 0 };
            let page = |queue| {
                let gpa = bar + layout.doorbell(doorbell(queue));
                let page = OwnPages::new(1)?;
                Ok(Page { gpa, page })
            };
            (1..=queues).map(page).collect::<Result<Vec<_>, Error>>()
        };
        let heads = pages(DEVICE_STORES_ARE_CACHED, Doorbell::head)?;
        let tails = pages(DEVICE_STORES_ARE_CACHED && polls, Doorbell::tail)?;
        if !tails.is_empty() {
            vm.keep_other_slots();
        }
        Ok(Self {
            shown: Mutex::default(),
            heads,
            tails,
            vm,
        })
    }

    /// The first word of a doorbell's page; `None` if it is never memory.
    pub fn word(&self, doorbell: Doorbell) -> Option<&AtomicU64> {
        let pages = match doorbell.side {
            Side::Completion => &self.heads,
            Side::Submission => &self.tails,
        };
        let index = usize::from(doorbell.queue).checked_sub(1)?;
        pages.get(index)?.page.words().first()
    }

    /// BAR0 answers at its home, or does not.
    pub fn follow(&self, is_home: bool) {
        let mut shown = self.shown();
        shown.is_home = is_home;
        self.update(&mut shown);
    }

    /// Makes tails memory, or has stores to them trap. Returns whether any of them is memory now.
    ///
    /// KVM takes a memslot away only when no CPU of the guest can store there any more (virt/kvm/kvm_main.c
    /// `kvm_invalidate_memslot`: all of them leave the guest), so that what they stored is visible here.
    pub fn show_tails(&self, are_wanted: bool) -> bool {
        let mut shown = self.shown();
        shown.are_tails_wanted = are_wanted;
        self.update(&mut shown);
        shown.tails.is_any_shown()
    }

    fn update(&self, shown: &mut Shown) {
        let are_tails_shown = shown.is_home && shown.are_tails_wanted;
        for (slots, pages, are_wanted) in [
            (&mut shown.heads, &self.heads, shown.is_home),
            (&mut shown.tails, &self.tails, are_tails_shown),
        ] {
            match are_wanted {
                true => slots.show(pages, &self.vm, &mut shown.messages),
                false => slots.hide(&mut shown.messages),
            }
        }
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slots {
    /// Shows the pages that are not shown. Those that KVM does not take are trapped.
    fn show(&mut self, pages: &[Page], vm: &Arc<Vm>, messages: &mut Messages) {
        self.0.resize_with(pages.len(), || None);
        for (slot, Page { gpa, page }) in self.0.iter_mut().zip(pages) {
            if slot.is_some() {
                continue;
            }
            match vm.map(*gpa, page.mapping()) {
                Ok(mapped) => *slot = Some(mapped),
                Err(error) if messages.take() => {
                    log::warn!("a doorbell of a guarded device is trapped: {error}");
                }
                Err(_) => {}
            }
        }
    }

    /// Takes all away. Those that KVM keeps stay memory.
    fn hide(&mut self, messages: &mut Messages) {
        for slot in &mut self.0 {
            match slot.as_mut().map(Memslot::delete) {
                Some(Err(error)) => {
                    if messages.take() {
                        log::error!("a doorbell of a guarded device cannot be trapped: {error}");
                    }
                }
                _ => *slot = None,
            }
        }
    }

    fn is_any_shown(&self) -> bool {
        self.0.iter().any(Option::is_some)
    }
}

#[cfg(test)]
mod tests;
