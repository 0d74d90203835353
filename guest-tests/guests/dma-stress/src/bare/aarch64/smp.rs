// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How processors start: PSCI turns them on.

use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

use smccc::{Hvc, psci};

use super::{entry, paging};

/// What a processor is called: its affinity.
pub type Cpu = u64;

/// What the processor that starts next finds.
#[repr(C)]
pub struct Slot {
    /// Its stack's end; 0 if it is to do nothing.
    stack: AtomicU64,
    /// Its number.
    number: AtomicU64,
}

/// Read by the first instructions.
pub static SLOT: Slot = Slot {
    stack: AtomicU64::new(0),
    number: AtomicU64::new(0),
};

/// Starts processors.
#[derive(Debug)]
pub struct Starter;

impl Starter {
    /// Turns a processor on, which is to be the `number`th.
    pub fn start(&self, id: Cpu, stack: u64, number: usize, _: u64) {
        SLOT.number.store(number as u64, SeqCst);
        SLOT.stack.store(stack, SeqCst);
        // One that cannot be turned on does not come up.
        let _ = psci::cpu_on::<Hvc>(id, entry::second(), paging::root());
    }

    /// Once is enough.
    pub fn again(&self, _: Cpu) {}

    /// Has a processor that comes late do nothing.
    pub fn cancel(&self, _: Cpu) {
        SLOT.stack.store(0, SeqCst);
    }
}
