// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Sequences of operations of a guest, decoded from bytes: what the fuzzer runs, and what the
//! tests replay.

use address::Gpa;
use devices::pci::PciRoot;
use software_edu::{BUFFER_SIZE, EduControl, EduWorker, Options, new};
use vm_device::DeviceMmio;
use vm_device::bus::MmioAddress;

use crate::input::Input;

use super::model::Model;
use super::outside::{Event, Events, PAGE, Ram, TestMemory};

const ECAM: u64 = 0xe000_0000;
/// The engine is `00:01.0`.
const FUNCTION: u64 = 8 << 12;
const BAR: u64 = 0xc0_0000_0000;
const RAM: u64 = 0x1_0000_0000;
const LINE: u8 = 17;

/// Registers worth trying, and the places between and behind them.
const OFFSETS: [u64; 32] = [
    0x00, 0x04, 0x08, 0x0c, 0x20, 0x24, 0x28, 0x60, 0x64, 0x68, 0x7c, 0x80, 0x84, 0x88, 0x8c, 0x90,
    0x94, 0x98, 0x9c, 0xa0, 0xa4, 0xa8, 0xac, 0xb0, 0xb4, 0xb8, 0xbc, 0xc0, 0xff8, 0x40000,
    0x4fff8, 0xffff8,
];

/// What happened in a sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Transfers that moved everything.
    pub transfers: u64,
    /// Transfers refused.
    pub refused: u64,
    /// Factorials and transfers finished.
    pub steps: u64,
    /// MSI messages.
    pub messages: u64,
    /// Changes of INTA#.
    pub lines: u64,
    /// Resets.
    pub resets: u64,
}

impl Seen {
    /// Adds another sequence.
    pub fn add(&mut self, other: &Self) {
        self.transfers += other.transfers;
        self.refused += other.refused;
        self.steps += other.steps;
        self.messages += other.messages;
        self.lines += other.lines;
        self.resets += other.resets;
    }

    /// Whether each kind of thing happened.
    #[must_use]
    pub fn is_all(&self) -> bool {
        let factorials = self.steps.saturating_sub(self.transfers + self.refused);
        [
            self.transfers,
            self.refused,
            factorials,
            self.messages,
            self.lines,
            self.resets,
        ]
        .iter()
        .all(|count| *count > 0)
    }
}

/// Runs the operations that `bytes` encode on an engine and on the model of it.
///
/// # Panics
///
/// If the two differ in anything that the guest or the outside can see.
pub fn run(bytes: &[u8]) -> Seen {
    let Some(mut machine) = Machine::new() else {
        return Seen::default();
    };
    let mut input = Input(bytes);
    if !input.byte().is_multiple_of(8) {
        machine.config_write(4, &[6, 0]);
    }
    while !input.0.is_empty() {
        machine.operate(&mut input);
        machine.check_events();
    }
    machine.check();
    machine.reset();
    machine.check();
    machine.seen
}

struct Machine {
    root: PciRoot,
    worker: EduWorker,
    control: EduControl,
    memory: TestMemory,
    events: Events,
    model: Model,
    seen: Seen,
}

impl Machine {
    fn new() -> Option<Self> {
        let low = [0, 1, 2, 4, 5].map(|page| RAM + page * PAGE);
        let ram = Ram::new(low.into_iter().chain([u64::MAX - (PAGE - 1)]));
        let memory = TestMemory::new(ram.clone());
        let events = Events::default();
        let options = Options {
            bar: Gpa(BAR),
            interrupt_line: LINE,
            buffer: BUFFER_SIZE,
            memory: Box::new(memory.clone()),
            interrupts: Box::new(events.clone()),
        };
        let (function, worker) = new(options).ok()?;
        let mut root = PciRoot::new(Gpa(ECAM)).ok()?;
        root.add(1, 0, Box::new(function)).ok()?;
        Some(Self {
            root,
            control: worker.control(),
            worker,
            memory,
            events,
            model: Model::new(ram, BAR, LINE),
            seen: Seen::default(),
        })
    }

    fn operate(&mut self, input: &mut Input<'_>) {
        match input.byte() % 16 {
            0..=2 => self.register_access(input),
            3 => self.stray_access(input),
            4 => {
                let command = input.data(2);
                self.config_write(4, &command);
            }
            5 => self.config_access(input),
            6 => self.set_msi(input),
            7..=9 => self.program(input),
            10..=14 => self.step(),
            _ if input.byte().is_multiple_of(4) => self.reset(),
            _ => self.check(),
        }
    }

    /// An access to a register, of its own width or another.
    fn register_access(&mut self, input: &mut Input<'_>) {
        let offset = input.choose(&OFFSETS);
        let choice = input.byte();
        let width = [4, 8, 4, 8, 1, 2][usize::from(choice) % 6];
        if choice & 0x80 == 0 {
            let data = input.data(width);
            self.bar_write(offset, &data);
        } else {
            self.bar_read(offset, width);
        }
    }

    /// An access of any length anywhere near the registers.
    fn stray_access(&mut self, input: &mut Input<'_>) {
        let (offset, choice) = (input.word() % 0x200, input.byte());
        let width = usize::from(choice % 17);
        if choice & 0x80 == 0 {
            let data = input.data(width);
            self.bar_write(offset, &data);
        } else {
            self.bar_read(offset, width);
        }
    }

    fn config_access(&mut self, input: &mut Input<'_>) {
        let (offset, choice) = (input.word() % 0x140, input.byte());
        let width = 1 << (choice % 3);
        let offset = offset / width * width;
        if choice & 0x80 == 0 {
            let data = input.data(width as usize);
            self.config_write(offset, &data);
        } else {
            self.config_read(offset, width as usize);
        }
    }

    fn set_msi(&mut self, input: &mut Input<'_>) {
        let choice = input.byte();
        let address = input.data(8);
        self.config_write(0x44, &address[..4]);
        self.config_write(0x48, &address[4..]);
        self.config_write(0x4c, &[choice, choice >> 4]);
        self.config_write(0x50, &[choice & 1]);
        self.config_write(0x42, &[choice >> 1 & 1]);
    }

    /// A transfer, sensible or not.
    fn program(&mut self, input: &mut Input<'_>) {
        let bus = match input.byte() % 8 {
            0 => u64::MAX - input.word() % 0x1800,
            1 => input.word() << 16,
            _ => RAM + input.word() % (6 * PAGE),
        };
        let device = match input.byte() % 16 {
            0 => 0x50000 - input.word() % 0x200,
            1 => 0x40000_u64.wrapping_sub(input.word()),
            2 => u64::MAX - input.word(),
            3 => input.word() << 48,
            _ => 0x40000 + input.word(),
        };
        let count = match input.byte() % 16 {
            0 => input.choose(&[0, 1, 0x10000, 0x10001, 1 << 32, 1 << 63, u64::MAX]),
            1..4 => input.word(),
            _ => input.word() % 0x400,
        };
        let command = input.byte();
        let (source, destination) = if command & 2 == 0 {
            (bus, device)
        } else {
            (device, bus)
        };
        self.bar_write(0x80, &source.to_le_bytes());
        self.bar_write(0x88, &destination.to_le_bytes());
        self.bar_write(0x90, &count.to_le_bytes());
        self.bar_write(0x98, &[command | 1, 0, 0, 0]);
    }

    fn step(&mut self) {
        let done = self.worker.step();
        assert_eq!(done, self.model.step(), "whether there was work");
        self.seen.steps += u64::from(done);
        assert!(
            *self.memory.ram() == self.model.ram,
            "memory differs after a step"
        );
    }

    fn reset(&mut self) {
        self.seen.resets += 1;
        self.root.reset();
        self.model.reset();
        self.check_events();
    }

    fn bar_write(&mut self, offset: u64, data: &[u8]) {
        self.root.mmio_write(MmioAddress(BAR), offset, data);
        for (at, width) in pieces(offset, data.len()) {
            if self.model.decodes() {
                let from = (at - offset) as usize;
                let value = value(&data[from..from + width]);
                self.model.bar_write(at, width, value);
            }
        }
    }

    fn bar_read(&self, offset: u64, length: usize) {
        let mut data = vec![0xaa; length];
        self.root.mmio_read(MmioAddress(BAR), offset, &mut data);
        for (at, width) in pieces(offset, length) {
            let from = (at - offset) as usize;
            let all = u64::MAX;
            let expected = if self.model.decodes() {
                self.model.bar_read(at, width)
            } else {
                all
            };
            let mask = all >> (64 - 8 * width);
            assert_eq!(
                value(&data[from..from + width]),
                expected & mask,
                "{width} bytes at {at:#x}"
            );
        }
    }

    fn config_write(&mut self, offset: u64, data: &[u8]) {
        self.root
            .mmio_write(MmioAddress(ECAM), FUNCTION + offset, data);
        self.model.config_write(offset as usize, data);
    }

    fn config_read(&self, offset: u64, length: usize) {
        let mut data = vec![0xaa; length];
        self.root
            .mmio_read(MmioAddress(ECAM), FUNCTION + offset, &mut data);
        for (at, byte) in (offset..).zip(data) {
            let expected = self.model.config_read(at as usize);
            assert_eq!(byte, expected, "config space at {at:#x}");
        }
    }

    /// The outside has received the same calls, in the same order.
    fn check_events(&mut self) {
        let events = self.events.take();
        for event in &events {
            match event {
                Event::Message(_) => self.seen.messages += 1,
                Event::Line(_) => self.seen.lines += 1,
            }
        }
        assert_eq!(events, self.model.take_events());
    }

    /// Everything that can be read.
    fn check(&mut self) {
        for offset in OFFSETS {
            for width in [1, 2, 4, 8] {
                self.bar_read(offset / width * width, width as usize);
            }
        }
        for offset in (0..0x108).step_by(4) {
            self.config_read(offset, 4);
        }
        let statistics = self.control.statistics();
        self.seen.transfers = statistics.transfers;
        self.seen.refused = statistics.refused;
        assert!(statistics.refused >= self.model.refused);
    }
}

/// The naturally aligned pieces of an access: where and how long.
fn pieces(offset: u64, length: usize) -> Vec<(u64, usize)> {
    let mut pieces = Vec::new();
    let end = offset + length as u64;
    let mut at = offset;
    while at < end {
        let mut width = 8;
        while !at.is_multiple_of(width) || at + width > end {
            width /= 2;
        }
        pieces.push((at, width as usize));
        at += width;
    }
    pieces
}

fn value(data: &[u8]) -> u64 {
    data.iter()
        .rev()
        .fold(0, |value, byte| value << 8 | u64::from(*byte))
}
