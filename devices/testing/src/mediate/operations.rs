// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Sequences of a guest's operations on a mediated engine, decoded from bytes: what the fuzzer
//! runs, and what the tests replay.

use super::memory::GuestMemory;
use super::model::Model;
use super::rig::Rig;
use crate::input::Input;

/// What happened in a sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Stores that would start a transfer.
    pub attempts: u64,
    /// Transfers that were started.
    pub started: u64,
    /// Transfers refused.
    pub refused: u64,
    /// Starts while a transfer was under way.
    pub busy: u64,
    /// Accesses of shapes that the device does not have.
    pub ignored: u64,
    /// Resets.
    pub resets: u64,
}

impl Seen {
    /// Adds another sequence.
    pub fn add(&mut self, other: &Self) {
        self.attempts += other.attempts;
        self.started += other.started;
        self.refused += other.refused;
        self.busy += other.busy;
        self.ignored += other.ignored;
        self.resets += other.resets;
    }

    /// Whether each kind of thing happened.
    #[must_use]
    pub fn is_all(&self) -> bool {
        let Self {
            attempts: _,
            started,
            refused,
            busy,
            ignored,
            resets,
        } = *self;
        [started, refused, busy, ignored, resets]
            .iter()
            .all(|count| *count > 0)
    }
}

/// Runs the operations that `bytes` encode on a mediated engine and on the model of it.
///
/// # Panics
///
/// If the two differ in anything that the guest can see, or the device receives an address that is
/// not the guest's.
pub fn run(bytes: &[u8]) -> Seen {
    let guest = GuestMemory::default();
    let mut machine = Machine {
        rig: Rig::new(&guest),
        model: Model::new(guest.clone()),
        gpas: guest.gpas(),
        resets: 0,
    };
    let mut input = Input(bytes);
    while !input.0.is_empty() {
        machine.operate(&mut input);
    }
    machine.step();
    machine.check_counters();
    assert!(
        *machine.rig.memory.ram() == machine.model.ram,
        "memory differs"
    );
    let model = &machine.model;
    Seen {
        attempts: model.started + model.refused + model.busy,
        started: model.started,
        refused: model.refused,
        busy: model.busy,
        ignored: model.ignored,
        resets: machine.resets,
    }
}

struct Machine {
    rig: Rig,
    model: Model,
    gpas: Vec<u64>,
    resets: u64,
}

impl Machine {
    fn operate(&mut self, input: &mut Input<'_>) {
        match input.byte() % 32 {
            0..4 => {
                let (offset, width) = place(input);
                let value = self.value(input);
                self.write(offset, width, value);
            }
            4..8 => {
                let (offset, width) = place(input);
                self.read(offset, width);
            }
            8..24 => self.attempt(input),
            24..29 => self.step(),
            29 => self.command(input.byte()),
            30 => self.move_bar(input),
            _ if input.byte().is_multiple_of(8) => self.reset(),
            _ => self.command(6),
        }
    }

    /// Registers in some order, some of them in pieces, and a start.
    fn attempt(&mut self, input: &mut Input<'_>) {
        let choice = input.byte();
        let to_memory = choice & 1 != 0;
        let memory = self.value(input);
        let device = match input.byte() % 4 {
            0 => self.value(input),
            1 => 0x41000 - input.word() % 0x1001,
            _ => 0x40000 + input.word() % 0x200,
        };
        let count = match input.byte() % 8 {
            0 => input.choose(&[0, 0x1000, 0x1001, 0x2000, 1 << 32, 1 << 63, u64::MAX]),
            1 => input.word(),
            2 => 0x1000 - input.word() % 0x20,
            _ => input.word() % 0x200,
        };
        let mut stores = [(0x80, memory), (0x88, device), (0x90, count)];
        if to_memory {
            stores = [(0x80, device), (0x88, memory), (0x90, count)];
        }
        stores.rotate_left(usize::from(choice >> 1 & 3) % 3);
        for (offset, value) in stores {
            match choice >> 3 & 7 {
                0 => {
                    self.write(offset + 4, 4, value >> 32);
                    self.write(offset, 4, value);
                }
                1 => {
                    self.write(offset, 4, value);
                    self.write(offset + 4, 4, value >> 32);
                }
                _ => self.write(offset, 8, value),
            }
        }
        let command = 1 | u64::from(to_memory) << 1;
        let width = if choice & 0x40 == 0 { 8 } else { 4 };
        self.write(0x98, width, command);
        if choice & 0x80 != 0 {
            let value = self.value(input);
            self.write(input.choose(&[0x80, 0x88, 0x90]), 8, value);
        }
    }

    /// An address or something like it.
    fn value(&self, input: &mut Input<'_>) -> u64 {
        let page = input.choose(&self.gpas);
        match input.byte() % 16 {
            0 => input.value(),
            1 => u64::MAX - input.word(),
            2 => page + 0x1000 - input.word() % 0x40,
            3 => page.wrapping_sub(input.word()),
            4 => 0x40000 + input.word() % 0x1000,
            5 => 0x20_0000_0000 + input.word() * 16,
            6 => page | 1 << 63,
            7 => page << 32 | page,
            _ => page + input.word() % 0x1000,
        }
    }

    fn write(&mut self, offset: u64, width: usize, value: u64) {
        self.rig.bus.write(offset, width, value);
        self.model
            .write(offset, width, value & u64::MAX >> (64 - 8 * width));
    }

    fn read(&mut self, offset: u64, width: usize) {
        let read = self.rig.bus.read(offset, width);
        assert_eq!(
            read,
            self.model.read(offset, width),
            "{width} bytes at {offset:#x}"
        );
    }

    fn step(&mut self) {
        assert_eq!(
            self.rig.worker.step(),
            self.model.step(),
            "whether there was work"
        );
    }

    fn command(&mut self, command: u8) {
        self.rig.bus.config_write(4, &[command]);
        self.model.pci_command = command;
    }

    /// The BAR elsewhere or back.
    fn move_bar(&mut self, input: &mut Input<'_>) {
        let bar: u32 = input.choose(&[
            0xfe00_0000,
            0xfe00_0000,
            0xfd00_0000,
            0xffff_ffff,
            0x0010_0000,
        ]);
        self.rig.bus.config_write(0x10, &bar.to_le_bytes());
        self.model.bar = bar;
    }

    fn reset(&mut self) {
        self.rig.bus.reset();
        self.model.reset();
        self.resets += 1;
        self.check_counters();
        self.command(6);
    }

    fn check_counters(&self) {
        let counted = self.rig.counters.read();
        let model = &self.model;
        assert_eq!(
            (
                counted.started,
                counted.refused,
                counted.busy,
                counted.ignored
            ),
            (model.started, model.refused, model.busy, model.ignored),
        );
        assert_eq!(counted.failed, 0);
        assert_eq!(self.rig.violations.list(), Vec::<String>::new());
    }
}

/// A DMA register, or a part of one.
fn place(input: &mut Input<'_>) -> (u64, usize) {
    let choice = input.byte();
    let width = 1 << (choice % 4);
    let offset = 0x80 + u64::from(choice >> 2) % 0x20;
    (offset / width * width, width as usize)
}
