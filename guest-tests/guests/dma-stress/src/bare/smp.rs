// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The other processors.

use alloc::vec;
use core::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use spin::Mutex;

pub use super::arch::smp::Cpu;
use super::arch::smp::{Starter, stop};
use super::arch::{controller, interrupts, traps};
use super::clock;

const STACK: usize = 32 << 10;
/// How long a processor may take to come up, and when it is told once more to.
const START_TIMEOUT_MS: u64 = 1000;
const AGAIN_MS: u64 = 200;

/// What processors do once they run, given their number.
type Work = &'static (dyn Fn(usize) + Sync);

static UP: AtomicUsize = AtomicUsize::new(0);
static DONE: AtomicUsize = AtomicUsize::new(0);
static WORK: Mutex<Option<Work>> = Mutex::new(None);

/// Starts the processors `others`, and calls `missing` for each that does not come up. Returns
/// how many run, with this one.
pub fn start(starter: &Starter, others: &[Cpu], ticks_per_ms: u64, missing: impl Fn(Cpu)) -> usize {
    let mut running = 1;
    for id in others {
        let stack = vec![0_u8; STACK].leak();
        let top = stack.as_mut_ptr_range().end.expose_provenance() as u64 & !15;
        starter.start(*id, top, running, ticks_per_ms);
        if comes_up(starter, *id, running, ticks_per_ms) {
            running += 1;
        } else {
            // It may still come: by then nothing may handle it, nor its number.
            starter.cancel(*id);
            missing(*id);
        }
    }
    running
}

/// Waits until it is the `number`th that runs.
fn comes_up(starter: &Starter, id: Cpu, number: usize, ticks_per_ms: u64) -> bool {
    let start = clock::now();
    let mut again = true;
    while UP.load(SeqCst) < number {
        let ms = clock::now().wrapping_sub(start) / ticks_per_ms;
        if again && ms >= AGAIN_MS {
            starter.again(id);
            again = false;
        }
        if ms >= START_TIMEOUT_MS {
            return false;
        }
        core::hint::spin_loop();
    }
    true
}

/// What a processor does, given its number.
pub extern "C" fn enter(number: usize) -> ! {
    traps::load();
    controller::init_local();
    UP.fetch_add(1, SeqCst);
    interrupts::enable();
    let work = loop {
        if let Some(work) = *WORK.lock() {
            break work;
        }
        interrupts::enable_and_hlt();
    };
    work(number);
    DONE.fetch_add(1, SeqCst);
    stop()
}

/// Lets all `running` processors work, this one as number 0, and waits for all to be done.
pub fn work_together(running: usize, work: &(dyn Fn(usize) + Sync)) {
    // SAFETY: every processor that takes it is waited for below, before `work` ends; none takes it
    // twice.
    *WORK.lock() = Some(unsafe { core::mem::transmute::<&(dyn Fn(usize) + Sync), Work>(work) });
    work(0);
    while DONE.load(SeqCst) + 1 < running {
        core::hint::spin_loop();
    }
}
