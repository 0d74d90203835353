// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A driver that can do what no driver should.

use address::Gpa;

use super::Stuck;
use super::commands::Words;
use super::places::{PAGE, Places};
use crate::hostile::Stores;
use crate::memory::Memory;
use crate::registers::Registers;
use crate::stress::Samples;

const CAP: u64 = 0x00;
const CC: u64 = 0x14;
const CSTS: u64 = 0x1c;
const AQA: u64 = 0x24;
const ASQ: u64 = 0x28;
const ACQ: u64 = 0x30;
const DOORBELLS: u64 = 0x1000;

/// Entries of every queue: a page of commands.
pub const ENTRIES: u16 = 64;
/// CC: enabled, with entries of 64 and 16 bytes.
pub const ENABLED: u32 = 0x0046_0001;
const READY: u32 = 1;
const FATAL: u32 = 2;
/// How long anything may take.
const MOST_MS: u64 = 30_000;
/// Phase tag of a completion's second word.
const PHASE: u64 = 1 << 48;

/// Where the driver is in one queue pair.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place {
    /// Next entry of the submission queue.
    pub tail: u16,
    /// Next entry of the completion queue.
    pub head: u16,
    /// Completion queues gone through.
    pub rounds: u64,
}

/// A controller, and the guest's queues: the first is the admin queue.
#[derive(Debug)]
pub struct Controller<'a, M, R> {
    /// Memory.
    pub memory: &'a M,
    /// Registers.
    pub registers: &'a R,
    /// Pages; queue n has the submission and the completion page n.
    pub places: &'a Places,
    /// Time.
    pub clock: &'a Samples,
    /// Where the driver is.
    pub queues: [Place; super::QUEUES],
}

impl<M: Memory, R: Registers + Stores> Controller<'_, M, R> {
    /// Where a doorbell is: the submission queue's, or the completion queue's.
    pub fn doorbell(&self, queue: u64, is_head: bool) -> u64 {
        let stride = 4 << (self.registers.read64(CAP) >> 32 & 0xf);
        DOORBELLS + (2 * queue + u64::from(is_head)) * stride
    }

    /// RDY and CFS.
    pub fn status(&self) -> (bool, bool) {
        let status = self.registers.read32(CSTS);
        (status & READY != 0, status & FATAL != 0)
    }

    /// Waits until something is so.
    pub fn wait<T>(&mut self, mut get: impl FnMut(&mut Self) -> Option<T>) -> Result<T, Stuck> {
        let start = (self.clock.now)();
        let most = MOST_MS.saturating_mul(self.clock.ticks_per_ms);
        loop {
            // The time first: after the last moment there is one more look.
            let is_over = (self.clock.now)().wrapping_sub(start) > most;
            if let Some(found) = get(self) {
                return Ok(found);
            }
            if is_over {
                return Err(Stuck);
            }
            core::hint::spin_loop();
        }
    }

    /// CC.
    pub fn configure(&self, value: u32) {
        self.registers.write32(CC, value);
    }

    /// Disables the controller, and waits until it says so.
    pub fn disable(&mut self) -> Result<(), Stuck> {
        self.configure(ENABLED & !1);
        self.wait(|own| (own.status() == (false, false)).then_some(()))
    }

    /// Enables it, from whatever state, with empty queues.
    pub fn enable(&mut self) -> Result<(), Stuck> {
        self.disable()?;
        self.queues = [Place::default(); super::QUEUES];
        for page in &self.places.completions {
            let cleared = self.memory.fill(Gpa(*page), 4096, || 0);
            debug_assert!(cleared.is_ok(), "queues are in RAM");
        }
        let last = u32::from(ENTRIES - 1);
        self.registers.write32(AQA, last << 16 | last);
        self.registers.write64(ASQ, self.places.submissions[0]);
        self.registers.write64(ACQ, self.places.completions[0]);
        self.configure(ENABLED);
        let is_ready = self.wait(|own| match own.status() {
            (_, true) => Some(false),
            (true, false) => Some(true),
            _ => None,
        })?;
        if is_ready { Ok(()) } else { Err(Stuck) }
    }

    /// Creates the I/O queues, which are polled.
    pub fn create_queues(&mut self) -> Result<(), Stuck> {
        for queue in 1..super::QUEUES {
            let id = queue as u64;
            let shape = id | u64::from(ENTRIES - 1) << 16;
            let base = self.places.completions[queue];
            self.admin([5, 0, 0, base, 0, shape | 1 << 32, 0, 0])?;
            let base = self.places.submissions[queue];
            self.admin([1, 0, 0, base, 0, shape | (1 | id << 16) << 32, 0, 0])?;
        }
        Ok(())
    }

    /// An admin command that must succeed.
    pub fn admin(&mut self, words: Words) -> Result<(), Stuck> {
        self.execute(0, words)
    }

    /// A command that must succeed, with nothing else under way in its queue.
    pub fn execute(&mut self, queue: usize, words: Words) -> Result<(), Stuck> {
        self.put(queue, words);
        self.ring(queue);
        let second = self.wait(|own| own.poll(queue))?;
        if second >> 49 == 0 {
            Ok(())
        } else {
            Err(Stuck)
        }
    }

    /// Writes an entry at the tail.
    pub fn put(&mut self, queue: usize, words: Words) {
        let place = &mut self.queues[queue];
        let at = self.places.submissions[queue] + 64 * u64::from(place.tail);
        place.tail = (place.tail + 1) % ENTRIES;
        let mut next = words.into_iter();
        let written = self.memory.fill(Gpa(at), 64, || next.next().unwrap_or(0));
        debug_assert!(written.is_ok(), "queues are in RAM");
    }

    /// Stores the tail.
    pub fn ring(&self, queue: usize) {
        let tail = self.queues[queue].tail;
        let offset = self.doorbell(queue as u64, false);
        self.registers.write32(offset, tail.into());
    }

    /// The second word of the next completion, if there is one.
    pub fn poll(&mut self, queue: usize) -> Option<u64> {
        let at = self.places.completions[queue] + 16 * u64::from(self.queues[queue].head);
        let second = self.memory.read_word(Gpa(at + 8)).ok()?;
        let place = &mut self.queues[queue];
        if (second & PHASE != 0) != place.rounds.is_multiple_of(2) {
            return None;
        }
        place.head = (place.head + 1) % ENTRIES;
        place.rounds += u64::from(place.head == 0);
        let head = place.head;
        let offset = self.doorbell(queue as u64, true);
        self.registers.write32(offset, head.into());
        Some(second)
    }

    /// Reads LBADS of the first namespace, with the page of the first answer.
    pub fn block_shift(&mut self) -> Result<u32, Stuck> {
        let page = self.places.answers[0];
        self.admin([6 | 1 << 32, 0, 0, page, 0, 0, 0, 0])?;
        let word = |at: u64| self.memory.read_word(Gpa(page + at)).map_err(|_| Stuck);
        // FLBAS is byte 26; the formats have 4 bytes each, from byte 128 on.
        let format = 128 + 4 * (word(24)? >> 16 & 0xf);
        let shift = word(format & !7)? >> (8 * (format % 8) + 16) & 0xff;
        let is_known = (9..=12).contains(&shift) && PAGE.is_power_of_two();
        u32::try_from(shift).ok().filter(|_| is_known).ok_or(Stuck)
    }
}
