// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Other processors that write lists and doorbells at the same moment.

use alloc::vec::Vec;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use address::Gpa;
use spin::Mutex;

use super::places::{PAGE, Places, choose};
use crate::memory::Memory;
use crate::registers::Registers;

/// One store of so many is to a doorbell: those take a hundred times as long.
const RING_EVERY: u64 = 512;

/// What other processors do, with one in charge.
#[derive(Debug, Default)]
pub struct Meddler {
    course: Mutex<Option<Places>>,
    doorbells: Mutex<Vec<u64>>,
    running: AtomicBool,
    over: AtomicBool,
    inside: AtomicU64,
    stores: AtomicU64,
}

impl Meddler {
    /// Lets others write to lists of `places`, and to these doorbells.
    pub fn begin(&self, places: &Places, doorbells: &[u64]) {
        *self.course.lock() = Some(places.clone());
        *self.doorbells.lock() = doorbells.into();
        self.running.store(true, SeqCst);
    }

    /// Stops them: when this returns, none writes.
    pub fn stop(&self) {
        self.running.store(false, SeqCst);
        while self.inside.load(SeqCst) > 0 {
            spin_loop();
        }
    }

    /// Lets all processors go.
    pub fn end(&self) {
        self.stop();
        self.over.store(true, SeqCst);
    }

    /// Stores so far.
    pub fn stores(&self) -> u64 {
        self.stores.load(SeqCst)
    }

    /// Takes part as another processor, until the [`end`](Self::end). Calls `idle` while there is nothing to do.
    pub fn take_part<M: Memory, R: Registers>(
        &self,
        memory: &M,
        registers: &R,
        seed: u64,
        idle: impl Fn(),
    ) {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut places: Option<Places> = None;
        while !self.over.load(SeqCst) {
            self.inside.fetch_add(1, SeqCst);
            let runs = self.running.load(SeqCst);
            if runs {
                let places =
                    places.get_or_insert_with(|| self.course.lock().clone().unwrap_or_default());
                self.store(memory, registers, places, &mut random);
                self.stores.fetch_add(1, SeqCst);
            }
            self.inside.fetch_sub(1, SeqCst);
            if !runs {
                idle();
            }
        }
    }

    fn store<M: Memory, R: Registers>(
        &self,
        memory: &M,
        registers: &R,
        places: &Places,
        random: &mut fastrand::Rng,
    ) {
        if random.u64(..RING_EVERY) > 0 {
            scribble(memory, places, random);
            return;
        }
        let doorbells = self.doorbells.lock();
        if let Some(offset) = doorbells.get(random.usize(..doorbells.len().max(1))) {
            registers.write32(*offset, random.u32(..70));
        }
    }
}

/// Changes a word of a list, most often of those that are read first.
pub fn scribble<M: Memory>(memory: &M, places: &Places, random: &mut fastrand::Rng) {
    let slot = match random.u64(..4) {
        0 => random.u64(..512),
        _ => random.u64(..40),
    };
    let page = choose(&places.lists, random);
    let at = page + 8 * slot;
    let word = match random.u64(..16) {
        0 => choose(&places.wrong, random),
        1 => choose(&places.data, random) | random.u64(1..PAGE),
        _ => places.word(slot, random),
    };
    let written = memory.fill(Gpa(at), 8, || word);
    debug_assert!(written.is_ok(), "lists are in RAM");
}
