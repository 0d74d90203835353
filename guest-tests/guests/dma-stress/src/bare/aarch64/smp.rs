// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How processors start and stop: PSCI turns them on and off.

use alloc::boxed::Box;
use core::ptr;
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

use smccc::{Hvc, psci};
use spin::Mutex;

use super::{entry, interrupts, paging};
use crate::bare::end::halt;
use crate::bare::smp;

/// What a processor is called: its affinity.
pub type Cpu = u64;

/// What a processor that starts finds.
#[derive(Debug)]
#[repr(C)]
struct Slot {
    /// Its stack's end; 0 if it is to do nothing.
    stack: AtomicU64,
    /// Its number.
    number: u64,
}

/// Starts processors.
#[derive(Debug, Default)]
pub struct Starter {
    /// Of the one that starts.
    slot: Mutex<Option<&'static Slot>>,
}

impl Starter {
    /// Turns a processor on, which is to be the `number`th.
    pub fn start(&self, id: Cpu, stack: u64, number: usize, _: u64) {
        let slot: &Slot = Box::leak(Box::new(Slot {
            stack: stack.into(),
            number: number as u64,
        }));
        *self.slot.lock() = Some(slot);
        let context = ptr::from_ref(slot).expose_provenance() as u64;
        // One that cannot be turned on does not come up.
        let _ = psci::cpu_on::<Hvc>(id, entry::second(), context);
    }

    /// Once is enough.
    pub fn again(&self, _: Cpu) {}

    /// Has the processor do nothing that was to start last, should it come late.
    pub fn cancel(&self, _: Cpu) {
        if let Some(slot) = *self.slot.lock() {
            slot.stack.store(0, SeqCst);
        }
    }
}

/// Where the first instructions of another processor end.
pub extern "C" fn second(number: usize) -> ! {
    // SAFETY: the tables map the image, which is all that is in use.
    unsafe { paging::load() };
    smp::enter(number)
}

/// Turns this processor off.
pub fn stop() -> ! {
    interrupts::disable();
    let _ = psci::cpu_off::<Hvc>();
    halt()
}
