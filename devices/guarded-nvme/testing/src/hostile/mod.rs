// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest that does anything, to a device that does all that hardware may do.

mod commands;
mod seen;

use std::time::Duration;

use address::Gpa;
use guarded_nvme::controller::Config;
use guarded_nvme::guest::{Doorbell, Side};
use guarded_nvme::spec::{Completion, PAGE};

use crate::{GuestRam, Input, Misbehaviour, Personality, Physical, Rig};

pub use seen::Seen;

/// Pages of the guest's: 0 and 1 hold its admin queues, 2 to 9 its I/O queues, 10 to 13 lists.
const PAGES: u64 = 64;
const ADMIN_SIZE: u16 = 16;
const IO_SIZE: u16 = 8;
/// I/O queue pairs.
const QUEUES: u16 = 4;

/// The guest's side of a run.
struct Guest<'a> {
    input: Input<'a>,
    rig: Rig,
    seen: Seen,
    tails: [u16; QUEUES as usize + 1],
    heads: [(u16, bool); QUEUES as usize + 1],
    was_ready: bool,
    was_fatal: bool,
    /// The device cannot be reset in the end.
    is_left: bool,
}

/// Does what `bytes` say.
///
/// # Panics
///
/// If a rule is broken: the device went where it must not, or memory was dropped that it could still reach.
#[must_use]
pub fn run(bytes: &[u8]) -> Seen {
    let mut input = Input::new(bytes);
    let seed = input.word16();
    let personality = match input.byte() % 4 {
        0 => Personality::rich(),
        1 => Personality {
            last_entry: 3,
            mdts: 1,
            queues: 2,
            aerl: 0,
            ..Personality::default()
        },
        _ => Personality::default(),
    };
    let physical = Physical::default();
    physical.scatter(seed.is_multiple_of(2));
    let ram = GuestRam::new(physical.clone(), PAGES, |page| match page {
        20 | 21 => None,
        22 | 23 => Some(false),
        _ => Some(true),
    });
    let config = Config {
        queues: QUEUES,
        vectors: QUEUES + 1,
        mdts: if seed.is_multiple_of(16) { 9 } else { 5 },
    };
    let rig = Rig::with(ram, personality, config, seed.into()).expect("an attached device");
    let mut guest = Guest {
        input,
        rig,
        seen: Seen::default(),
        tails: [0; QUEUES as usize + 1],
        heads: [(0, true); QUEUES as usize + 1],
        was_ready: false,
        was_fatal: false,
        is_left: seed % 8 == 1,
    };
    guest.fill_lists();
    guest.enable();
    let mut left = 600;
    while !guest.input.is_empty() && left > 0 {
        left -= 1;
        guest.operation();
        guest.look();
    }
    guest.end(&physical)
}

impl Guest<'_> {
    fn operation(&mut self) {
        match self.input.byte() {
            0..60 => self.io_command(),
            60..90 => self.admin_command(),
            90..96 => self.queue_command(),
            96..100 => self.abort(),
            100..110 => self.ring(),
            110..120 => self.register(),
            120..126 => self.scribble(),
            126..130 => self.enable(),
            130..132 => self.rig.configure(0x0046_0000),
            132..134 => self.rig.configure(0x0046_4001),
            134 => {
                self.seen.resets += u64::from(self.rig.reset().is_ok());
                self.forget_queues();
            }
            135..138 => {
                let result = self
                    .input
                    .choose(&[0x04_0002, 0x02_0101, 0x01_0300, 0x0707, !0]);
                self.rig.model.report(result);
            }
            138 => self.misbehave(),
            139 => self.forge(),
            140 => self.play(),
            141..160 => self.read_all(),
            160..165 => self
                .rig
                .sleep(Duration::from_millis(self.input.byte().into())),
            165 => self.rig.sleep(Duration::from_secs(60)),
            166..190 => self.rig.model.steps(usize::from(self.input.byte() % 32)),
            190..210 => {
                self.rig.service();
            }
            _ => self.rig.run(1 + usize::from(self.input.byte() % 8)),
        }
    }

    /// The controller was reset, so its queues are gone.
    fn forget_queues(&mut self) {
        self.tails = [0; QUEUES as usize + 1];
        self.heads = [(0, true); QUEUES as usize + 1];
    }

    fn look(&mut self) {
        let (is_ready, is_fatal) = (self.rig.is_ready(), self.rig.is_fatal());
        if is_ready && !self.was_ready {
            self.seen.enabled += 1;
            self.forget_queues();
            self.create_pairs();
        }
        self.seen.faults += u64::from(is_fatal && !self.was_fatal);
        (self.was_ready, self.was_fatal) = (is_ready, is_fatal);
    }

    fn fill_lists(&mut self) {
        for slot in 0..4 * 512 {
            let page = 24 + slot % 32;
            self.rig.ram().put(Gpa(10 * PAGE + 8 * slot), page * PAGE);
        }
        for list in 10..14 {
            self.rig
                .ram()
                .put(Gpa(list * PAGE + 4088), (list - 1).max(10) * PAGE);
        }
    }

    fn enable(&mut self) {
        let size = u32::from(ADMIN_SIZE);
        if !self.rig.is_ready() {
            for word in 0..u64::from(ADMIN_SIZE) * 2 {
                self.rig.ram().put(Gpa(PAGE + 8 * word), 0);
            }
        }
        self.rig.set_admin_queues(Gpa(0), Gpa(PAGE), size);
        self.rig.configure(0x0046_0001);
        self.rig.run(usize::from(self.input.byte() % 64));
    }

    /// Makes queues as a driver does, so that there is something to disturb.
    fn create_pairs(&mut self) {
        for id in 1..=1 + u16::from(self.input.byte()) % QUEUES {
            self.create(id, false);
            self.rig.run(20);
            self.create(id, true);
            self.rig.run(20);
            self.read_all();
        }
    }

    /// Where a queue of the guest's is, and its size.
    fn place(queue: u16, side: Side) -> (Gpa, u16) {
        let offset = match side {
            Side::Submission => 0,
            Side::Completion => PAGE,
        };
        match queue.checked_sub(1) {
            None => (Gpa(offset), ADMIN_SIZE),
            Some(pair) => (
                Gpa((2 + 2 * u64::from(pair % QUEUES)) * PAGE + offset),
                IO_SIZE,
            ),
        }
    }

    fn create(&mut self, id: u16, is_submission: bool) {
        let shape = u64::from(id) | u64::from(IO_SIZE - 1) << 16;
        let place = |side: Side| Self::place(id, side).0;
        let words = match is_submission {
            true => {
                let base = place(Side::Submission).0;
                [
                    1,
                    0,
                    0,
                    base,
                    0,
                    shape | (1 | u64::from(id) << 16) << 32,
                    0,
                    0,
                ]
            }
            false => {
                let base = place(Side::Completion);
                for word in 0..u64::from(IO_SIZE) * 2 {
                    self.rig.ram().put(base + 8 * word, 0);
                }
                [
                    5,
                    0,
                    0,
                    base.0,
                    0,
                    shape | (3 | u64::from(id) << 16) << 32,
                    0,
                    0,
                ]
            }
        };
        self.put(0, words);
        if let Some(place) = self.tails.get_mut(usize::from(id)) {
            match is_submission {
                true => *place = 0,
                false => self.heads[usize::from(id)] = (0, true),
            }
        }
    }

    /// Writes an entry at the tail, and rings.
    fn put(&mut self, queue: u16, words: [u64; 8]) {
        let (base, size) = Self::place(queue, Side::Submission);
        let tail = &mut self.tails[usize::from(queue)];
        let at = base + u64::from(*tail) * 64;
        *tail = (*tail + 1) % size;
        let tail = *tail;
        self.rig.ram().put_all(at, &words);
        self.rig.ring(Doorbell::tail(queue), tail);
    }

    fn queue_command(&mut self) {
        let id = u16::from(self.input.byte() % 6);
        match self.input.byte() % 4 {
            0 => self.put(0, [0, 0, 0, 0, 0, id.into(), 0, 0]),
            1 => self.put(0, [4, 0, 0, 0, 0, id.into(), 0, 0]),
            2 => self.create(id.max(1), false),
            _ => self.create(id.max(1), true),
        }
    }

    fn ring(&mut self) {
        let queue = u16::from(self.input.byte() % 6);
        let value = match self.input.byte() {
            0..200 => self.input.word16() % 20,
            _ => self.input.word16(),
        };
        let doorbell = match self.input.byte() % 2 {
            0 => Doorbell::tail(queue),
            _ => Doorbell::head(queue),
        };
        self.rig.ring(doorbell, value);
    }

    /// Reads all completions, as a driver does.
    fn read_all(&mut self) {
        for queue in 0..=QUEUES {
            let (base, size) = Self::place(queue, Side::Completion);
            let (head, phase) = &mut self.heads[usize::from(queue)];
            for _ in 0..size {
                let second = self.rig.ram().get(base + u64::from(*head) * 16 + 8);
                if Completion::phase(second) != *phase {
                    break;
                }
                *head = (*head + 1) % size;
                *phase ^= *head == 0;
            }
            let head = *head;
            self.rig.ring(Doorbell::head(queue), head);
        }
    }

    fn register(&mut self) {
        let offset = match self.input.byte() {
            0..200 => self.input.choose(&[
                0x14, 0x14, 0x14, 0x20, 0x24, 0x28, 0x2c, 0x30, 0x34, 0x48, 0x50, 0x54, 0x64,
                0xe04, 0xe14, 0x1004, 0x0c,
            ]),
            _ => self.input.word64() % 0x1_0000,
        };
        let value = self.input.word64().to_le_bytes();
        let length = self.input.choose(&[1, 2, 4, 4, 4, 8]);
        self.rig.store(offset, &value[..length]);
        let mut data = [0; 8];
        self.rig.registers.read(offset, &mut data[..length]);
    }

    fn scribble(&mut self) {
        let at = Gpa(u64::from(self.input.word16()) * 8 % (PAGES * PAGE));
        let value = match self.input.byte() {
            0..128 => self.page(),
            _ => self.input.word64(),
        };
        self.rig.ram().put(at, value);
    }

    /// Another vCPU writes where the monitor has read, from now on.
    fn play(&mut self) {
        let value = self.page();
        let is_on = self.input.byte() < 128;
        self.rig.ram().play(Box::new(move |ram, gpa| {
            if is_on {
                ram.put(gpa.align_down(8), value);
            }
        }));
    }

    fn misbehave(&mut self) {
        let kind = self.input.byte() % 32;
        self.rig.model.misbehave(Misbehaviour {
            never_ready: kind == 1,
            never_stops: kind == 2 || kind == 7,
            no_reset: kind == 3 || kind == 7,
            fatal: kind == 4,
            gone: kind == 5,
            silent: kind == 6,
            holds_io: kind == 8,
            holds_aborts: kind == 9,
        });
    }

    fn forge(&mut self) {
        if self.input.byte() > 32 {
            return;
        }
        let queue = u16::from(self.input.byte() % 5);
        let words = [self.input.word64(), self.input.word64()];
        self.rig.model.forge_completion(queue, words);
    }

    /// The guest is gone.
    fn end(mut self, physical: &Physical) -> Seen {
        let model = &self.rig.model;
        let io = |opcode: u8| model.executed(false, opcode);
        self.seen.transfers = io(1) + io(2) + io(5);
        self.seen.trims = io(9);
        self.seen.created = model.executed(true, 1);
        self.seen.deleted = model.executed(true, 0);
        self.seen.aborted = model.executed(true, 8);
        if self.is_left {
            self.rig.model.misbehave(Misbehaviour {
                no_reset: true,
                ..Misbehaviour::default()
            });
        }
        let before = physical.monitor_pages();
        let Rig {
            controller, model, ..
        } = self.rig;
        match controller.detach() {
            Ok(_) => assert_eq!(physical.monitor_pages(), 0, "memory is left"),
            Err(_) => {
                assert_eq!(physical.monitor_pages(), before, "memory has gone");
                self.seen.leaked += 1;
            }
        }
        // What the device does now is not the guest's any more.
        model.steps(64);
        self.seen
    }
}
