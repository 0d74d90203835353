// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What is done to the controller, one operation after the other.

use core::fmt::Write;
use core::ops::Range;

use address::Gpa;

use super::commands::Commands;
use super::controller::{Controller, ENABLED, ENTRIES, Place};
use super::meddler::scribble;
use super::places::{PAGE, Places, choose};
use super::proof;
use super::{Attack, Counts, QUEUES, Slot, Stuck};
use crate::hostile::Stores;
use crate::memory::Memory;
use crate::registers::Registers;

/// Sequences between proofs that the controller works.
const PROVE_EVERY: u64 = 256;
/// One sequence of so many resets the function: that takes long.
const RESET_EVERY: u64 = 256;
/// One sequence of so many ends with new queues: those of before may be deleted, or gone with a reset.
const RENEW_EVERY: u64 = 16;
/// Registers that are most worth a store: interrupt masks, NSSR, BPRSEL, BPMBL, CMBMSC, NSSD, PMRCTL, PMRMSC, and what is
/// reserved.
const REGISTERS: [u64; 11] = [
    0x00, 0x0c, 0x20, 0x44, 0x48, 0x50, 0x64, 0xe00, 0xe14, 0xe18, 0x800,
];
const CC: u64 = 0x14;
/// AQA, ASQ, ACQ.
const ADMIN_QUEUES: Range<u64> = 0x24..0x38;
/// Values for them: resets of the subsystem and its shutdown, and boot partitions, among others.
const VALUES: [u64; 8] = [
    0x4e56_4d65,
    0x4e73_684e,
    0x8000_0001,
    3,
    1,
    0xffff_ffff,
    0x0046_0001,
    u64::MAX,
];

/// The course of an attack.
pub struct Course<'a, M, W, R, S> {
    attack: &'a Attack<'a, M, W, R, S>,
    controller: Controller<'a, M, R>,
    random: fastrand::Rng,
    shift: u32,
}

impl<'a, M, W, R, S> Course<'a, M, W, R, S>
where
    M: Memory,
    W: Write,
    R: Registers + Stores,
    S: Slot,
{
    pub fn new(
        attack: &'a Attack<'a, M, W, R, S>,
        places: &'a Places,
        random: fastrand::Rng,
    ) -> Self {
        let controller = Controller {
            memory: attack.shared.memory,
            registers: attack.registers,
            places,
            clock: attack.shared.clock,
            queues: [Place::default(); QUEUES],
        };
        Self {
            attack,
            controller,
            random,
            shift: 9,
        }
    }

    /// All sequences, and the proofs between them.
    pub fn run(mut self, counts: &mut Counts) -> Result<(), Stuck> {
        let places = self.controller.places;
        places.fill(self.attack.shared.memory, &mut self.random);
        self.controller.enable()?;
        self.shift = self.controller.block_shift()?;
        self.controller.create_queues()?;
        self.controller.prepare(self.shift)?;
        self.prove(counts)?;
        while counts.sequences < self.attack.shared.options.attempts {
            self.sequence(counts)?;
            counts.sequences += 1;
            if counts.sequences.is_multiple_of(PROVE_EVERY) {
                self.prove(counts)?;
            }
            self.attack.shared.sample();
        }
        self.prove(counts)?;
        self.meddle(false);
        self.controller.disable()
    }

    /// Lets others go on, or stops them.
    fn meddle(&self, is_on: bool) {
        let Some(meddler) = self.attack.meddler else {
            return;
        };
        if !is_on {
            return meddler.stop();
        }
        let own = &self.controller;
        let doorbells = [1, 2].map(|queue| own.doorbell(queue, false));
        meddler.begin(own.places, &doorbells);
    }

    /// A driver that keeps to the rules enables the controller, and uses it; then all goes on.
    fn prove(&mut self, counts: &mut Counts) -> Result<(), Stuck> {
        self.meddle(false);
        self.attack.slot.set_bus_master(true);
        let own = &mut self.controller;
        own.enable()?;
        own.create_queues()?;
        own.prove(counts.proofs, self.shift)?;
        let page = Gpa(own.places.data[0]);
        self.attack.shared.tally.ended(&(page..page + proof::BYTES));
        own.places.fill(self.attack.shared.memory, &mut self.random);
        counts.proofs += 1;
        self.meddle(true);
        Ok(())
    }

    /// Some operations, after which the controller is brought back if it is not ready.
    fn sequence(&mut self, counts: &mut Counts) -> Result<(), Stuck> {
        for _ in 0..self.random.u64(1..6) {
            self.operation(counts);
        }
        if self.random.u64(..RESET_EVERY) == 0 {
            counts.resets += u64::from(self.attack.slot.reset());
        }
        self.read_all(counts);
        let is_ready = self.controller.status() == (true, false);
        if is_ready && self.random.u64(..RENEW_EVERY) > 0 {
            return Ok(());
        }
        counts.revived += u64::from(!is_ready);
        self.attack.slot.set_bus_master(true);
        self.controller.enable()?;
        self.create_queues();
        Ok(())
    }

    /// Asks for the I/O queues as others go on; whether they are there is not known.
    fn create_queues(&mut self) {
        for queue in 1..QUEUES {
            let id = queue as u64;
            let shape = id | u64::from(ENTRIES - 1) << 16;
            let places = self.controller.places;
            let (submission, completion) = (places.submissions[queue], places.completions[queue]);
            self.controller
                .put(0, [5, 0, 0, completion, 0, shape | 1 << 32, 0, 0]);
            let to = (1 | id << 16) << 32;
            self.controller.ring(0);
            self.settle();
            self.controller
                .put(0, [1, 0, 0, submission, 0, shape | to, 0, 0]);
            self.controller.ring(0);
            self.settle();
        }
    }

    /// Gives the controller a moment.
    fn settle(&self) {
        for _ in 0..16 {
            let _ = self.controller.status();
        }
    }

    fn operation(&mut self, counts: &mut Counts) {
        match self.random.u64(..64) {
            0..28 => self.io(counts),
            28..40 => self.admin(counts),
            40..46 => self.ring(counts),
            46..52 => self.store(counts),
            52..55 => self.forge(counts),
            55..61 => {
                for _ in 0..16 {
                    scribble(
                        self.controller.memory,
                        self.controller.places,
                        &mut self.random,
                    );
                }
                counts.scribbled += 16;
            }
            61 => {
                // Shutdown, or disabled with commands under way; then enabled again at once, or later.
                let values = [
                    ENABLED & !1,
                    0,
                    ENABLED | 1 << 14,
                    ENABLED | 2 << 14,
                    ENABLED | 0x80,
                ];
                self.controller
                    .configure(values[self.random.usize(..values.len())]);
                if self.random.bool() {
                    self.controller.configure(ENABLED);
                }
                counts.disabled += 1;
            }
            62 => {
                self.attack.slot.set_bus_master(false);
                self.io(counts);
                self.attack.slot.set_bus_master(self.random.bool());
                counts.masters += 1;
            }
            _ => self.settle(),
        }
    }

    fn io(&mut self, counts: &mut Counts) {
        let commands = self.commands();
        let queue = self.random.usize(1..QUEUES);
        for _ in 0..self.random.u64(1..10) {
            let words = commands.io(&mut self.random);
            self.controller.put(queue, words);
            counts.io += 1;
        }
        self.controller.ring(queue);
    }

    fn admin(&mut self, counts: &mut Counts) {
        let commands = self.commands();
        for _ in 0..self.random.u64(1..4) {
            let words = commands.admin(&mut self.random);
            self.controller.put(0, words);
            counts.admin += 1;
        }
        self.controller.ring(0);
    }

    fn commands(&self) -> Commands<'a> {
        Commands {
            places: self.controller.places,
            block_shift: self.shift,
        }
    }

    /// Any doorbell, with a value that is out of range, backwards, or more than there is.
    fn ring(&mut self, counts: &mut Counts) {
        let queue = self.random.u64(..6);
        let offset = self.controller.doorbell(queue, self.random.bool());
        let value = match self.random.u64(..4) {
            0 => self.random.u64(..),
            _ => self.random.u64(..u64::from(ENTRIES) + 4),
        };
        if offset + 8 <= self.attack.bytes {
            let width = [4, 4, 4, 1, 2, 8][self.random.usize(..6)];
            self.attack.registers.store(offset, width, value);
            counts.rings += 1;
        }
    }

    /// A store to any register but the doorbells.
    fn store(&mut self, counts: &mut Counts) {
        let random = &mut self.random;
        let wrong = choose(&self.controller.places.wrong, random);
        let offset = match random.u64(..4) {
            0 => random.u64(..PAGE - 8),
            _ => REGISTERS[random.usize(..REGISTERS.len())] + [0, 0, 0, 1, 2, 4][random.usize(..6)],
        };
        let value = match random.u64(..4) {
            0 => random.u64(..),
            1 => wrong | random.u64(..16),
            _ => VALUES[random.usize(..VALUES.len())],
        };
        let width: u8 = [1, 2, 4, 4, 4, 8][random.usize(..6)];
        let touches =
            |range: Range<u64>| offset < range.end && range.start < offset + u64::from(width);
        // CC has an operation of its own. If the controller is enabled with other admin queues, then with none that
        // would be memory, and completions of at most a page.
        if touches(CC..CC + 4) || touches(ADMIN_QUEUES) {
            let (offset, width, value) = match random.u64(..4) {
                0 => (0x24, 4, value & 0x00ff_0fff),
                1 => (0x28, 8, wrong),
                2 => (0x30, 8, wrong),
                _ => (0x34, 4, value & 0xffff | 0x100),
            };
            self.attack.registers.store(offset, width, value);
        } else {
            self.attack.registers.store(offset, width, value);
        }
        counts.stores += 1;
    }

    /// Writes completions that the controller has not.
    fn forge(&mut self, counts: &mut Counts) {
        let queue = self.random.usize(..QUEUES);
        let page = self.controller.places.completions[queue];
        for _ in 0..8 {
            let at = page + 16 * self.random.u64(..u64::from(ENTRIES)) + 8;
            let head = self.random.u64(..70);
            let id = self.random.u64(..3) << 16;
            let command = self.random.u64(..64) << 32 | self.random.u64(..4) << 48;
            let written = self
                .controller
                .memory
                .fill(Gpa(at), 8, || head | id | command);
            debug_assert!(written.is_ok(), "queues are in RAM");
            counts.forged += 1;
        }
    }

    /// Reads completions, as many as a queue has at most.
    fn read_all(&mut self, counts: &mut Counts) {
        for queue in 0..QUEUES {
            for _ in 0..ENTRIES {
                let Some(second) = self.controller.poll(queue) else {
                    break;
                };
                counts.completed[usize::from(second >> 49 != 0)] += 1;
            }
        }
    }
}
