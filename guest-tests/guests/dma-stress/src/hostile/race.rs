// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Other processors that write the registers at the same moment.

use alloc::vec::Vec;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use spin::Mutex;

use super::Stores;
use super::values::{BUFFER, BUFFER_BYTES};

const SOURCE: u64 = 0x80;
const DESTINATION: u64 = 0x88;
const COUNT: u64 = 0x90;
const COMMAND: u64 = 0x98;

/// Device addresses: right ones, and wrong ones whichever side they are taken for.
const DEVICE: [u64; 6] = [
    BUFFER,
    BUFFER + 1,
    BUFFER - 1,
    BUFFER + BUFFER_BYTES,
    BUFFER | 1 << 63,
    u64::MAX,
];
const COUNTS: [u64; 7] = [
    1,
    64,
    BUFFER_BYTES,
    0,
    BUFFER_BYTES + 1,
    1 << 32 | 64,
    u64::MAX,
];
/// To memory, mostly. From memory none of them may run.
const COMMANDS: [u64; 4] = [3, 3, 3, 1];

/// Looks for others until the race begins without them.
const MAX_POLLS: u64 = 1 << 26;

/// A race for the registers, with one processor in charge.
#[derive(Debug, Default)]
pub struct Race {
    /// Addresses in memory to choose from.
    addresses: Mutex<Vec<u64>>,
    running: AtomicBool,
    over: AtomicBool,
    inside: AtomicU64,
    stores: AtomicU64,
    starts: AtomicU64,
}

impl Race {
    /// Begins it, and waits a moment for others to take part. Transfers to `right` may run and
    /// those to `wrong` may not.
    pub fn begin(&self, right: &[u64], wrong: &[u64]) {
        *self.addresses.lock() = [right, wrong].concat();
        self.running.store(true, SeqCst);
        for _ in 0..MAX_POLLS {
            if self.stores() > 0 {
                break;
            }
            spin_loop();
        }
    }

    /// Stops it: when this returns, no other CPU writes registers.
    pub fn stop(&self) {
        self.running.store(false, SeqCst);
        while self.inside.load(SeqCst) > 0 {
            spin_loop();
        }
    }

    /// Lets all CPUs go.
    pub fn end(&self) {
        self.stop();
        self.over.store(true, SeqCst);
    }

    /// Stores by others so far.
    pub fn stores(&self) -> u64 {
        self.stores.load(SeqCst)
    }

    /// Starts asked for so far, by all.
    pub fn starts(&self) -> u64 {
        self.starts.load(SeqCst)
    }

    /// Takes part as another processor, until the [`end`](Self::end). Calls `idle` while there is
    /// no race.
    pub fn take_part(&self, registers: &impl Stores, seed: u64, idle: impl Fn()) {
        let mut random = fastrand::Rng::with_seed(seed);
        while !self.over.load(SeqCst) {
            self.inside.fetch_add(1, SeqCst);
            let runs = self.running.load(SeqCst);
            if runs {
                self.store(registers, &mut random);
                self.stores.fetch_add(1, SeqCst);
            }
            self.inside.fetch_sub(1, SeqCst);
            if !runs {
                idle();
            }
        }
    }

    /// One store, by whomever.
    pub fn store(&self, registers: &impl Stores, random: &mut fastrand::Rng) {
        let (offset, value) = match random.u64(..6) {
            0 => (SOURCE, DEVICE[random.usize(..DEVICE.len())]),
            1 | 2 => {
                let addresses = self.addresses.lock();
                let chosen = addresses.get(random.usize(..addresses.len().max(1)));
                (DESTINATION, chosen.copied().unwrap_or(0))
            }
            3 => (COUNT, COUNTS[random.usize(..COUNTS.len())]),
            _ => {
                self.starts.fetch_add(1, SeqCst);
                (COMMAND, COMMANDS[random.usize(..COMMANDS.len())])
            }
        };
        registers.store(offset, 8, value);
    }
}
