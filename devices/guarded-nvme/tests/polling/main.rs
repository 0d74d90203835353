// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest that stores to a doorbell while the device's thread goes to sleep and wakes up, in every order in which the two
//! can run (loom).

#![expect(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use guarded_nvme::controller::Next;
use guarded_nvme::polling::{Duty, Polling, work};
use loom::model::Builder;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

const IDLE: Duration = Duration::from_secs(1);

/// What the guest and the thread share: a doorbell as KVM has it, and an eventfd.
struct Shared {
    doorbell: AtomicUsize,
    /// Whether the doorbell is memory. A store there is before a change or after it, as KVM takes a page away only once
    /// no CPU of the guest can store to it.
    is_memory: Mutex<bool>,
    bell: Mutex<Bell>,
    rings: Condvar,
}

#[derive(Default)]
struct Bell {
    is_rung: bool,
    /// The guest stores nothing any more.
    is_last: bool,
}

impl Shared {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            doorbell: AtomicUsize::new(0),
            is_memory: Mutex::new(false),
            bell: Mutex::new(Bell::default()),
            rings: Condvar::new(),
        })
    }

    /// A store of the guest's: in memory, or by an exit.
    fn store(&self, value: usize) {
        let is_memory = self.is_memory.lock().unwrap();
        if *is_memory {
            self.doorbell.store(value, Ordering::Relaxed);
            return;
        }
        drop(is_memory);
        self.doorbell.store(value, Ordering::Release);
        self.bell.lock().unwrap().is_rung = true;
        self.rings.notify_one();
    }

    fn end(&self) {
        self.bell.lock().unwrap().is_last = true;
        self.rings.notify_one();
    }
}

/// A thread that is at its end when it has seen the last store.
struct Servant {
    shared: Arc<Shared>,
    seen: usize,
    last: usize,
    now: Duration,
    polling: Polling,
    /// Polling ends without a last look: what must not be.
    is_careless: bool,
}

impl Duty for Servant {
    fn is_over(&self) -> bool {
        self.seen == self.last
    }

    fn serve(&mut self) -> Next {
        let value = self.shared.doorbell.load(Ordering::Acquire);
        let is_busy = value != self.seen;
        self.seen = value;
        Next {
            is_busy,
            within: None,
            has_queues: true,
        }
    }

    fn show_tails(&mut self, are_memory: bool) -> bool {
        *self.shared.is_memory.lock().unwrap() = are_memory;
        if !are_memory && self.is_careless {
            self.sleep(None);
        }
        are_memory
    }

    fn pause(&mut self) {
        // Two looks in vain, and polling ends, unless it never does.
        self.now += IDLE / 2;
        if self.polling == Polling::Always {
            thread::yield_now();
        }
    }

    fn sleep(&mut self, _: Option<Duration>) {
        let mut bell = self.shared.bell.lock().unwrap();
        while !bell.is_rung && !bell.is_last {
            bell = self.shared.rings.wait(bell).unwrap();
        }
        let is_rung = std::mem::take(&mut bell.is_rung);
        drop(bell);
        // Nothing would ever wake the thread.
        let is_all = self.shared.doorbell.load(Ordering::Acquire) == self.seen;
        assert!(is_rung || is_all, "a store is lost");
    }

    fn now(&self) -> Duration {
        self.now
    }
}

/// The guest stores 1 to `last`, one after the other, while the thread works.
fn explore(last: usize, polling: Polling, is_careless: bool) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(5);
    builder.check(move || {
        let shared = Shared::new();
        let mut servant = Servant {
            shared: Arc::clone(&shared),
            seen: 0,
            last,
            now: Duration::ZERO,
            polling,
            is_careless,
        };
        let guest = thread::spawn(move || {
            (1..=last).for_each(|value| shared.store(value));
            shared.end();
        });
        work(&mut servant, polling);
        guest.join().unwrap();
    });
}

const BUSY: Polling = Polling::WhileBusy {
    after: 1,
    idle: IDLE,
};

#[test]
fn no_store_is_lost() {
    for polling in [Polling::Never, BUSY, Polling::Always] {
        explore(2, polling, false);
    }
}

#[test]
#[should_panic(expected = "a store is lost")]
fn without_a_last_look_one_would_be() {
    explore(2, BUSY, true);
}
