// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The engine as drivers use it.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test")]

mod device;
mod host;
mod sabotage;
mod threads;

use address::Gpa;
use devices::pci::{MsiMessage, PciFunction, Region};
use devices_testing::edu::{Event, Events, PAGE, Ram, TestMemory};
use software_edu::{
    BUFFER_ADDRESS, BUFFER_SIZE, DmaMemory, Edu, EduWorker, InterruptSink, Options, new,
};

const RAM: u64 = 0x1_0000_0000;
const BUFFER: u64 = BUFFER_ADDRESS;

const TO_BUFFER: u64 = 1;
const TO_MEMORY: u64 = 3;
const WITH_INTERRUPT: u64 = 4;

struct Rig {
    edu: Edu,
    worker: EduWorker,
    memory: TestMemory,
    events: Events,
}

impl Rig {
    fn new() -> Self {
        Self::with_buffer(BUFFER_SIZE)
    }

    fn with_buffer(size: u32) -> Self {
        Self::make(size, |memory| memory, |events| events)
    }

    fn with(
        memory_through: impl FnOnce(Box<dyn DmaMemory>) -> Box<dyn DmaMemory>,
        events_through: impl FnOnce(Box<dyn InterruptSink>) -> Box<dyn InterruptSink>,
    ) -> Self {
        Self::make(BUFFER_SIZE, memory_through, events_through)
    }

    fn make(
        buffer: u32,
        memory_through: impl FnOnce(Box<dyn DmaMemory>) -> Box<dyn DmaMemory>,
        events_through: impl FnOnce(Box<dyn InterruptSink>) -> Box<dyn InterruptSink>,
    ) -> Self {
        let memory = TestMemory::new(Ram::new([RAM, RAM + PAGE, RAM + 3 * PAGE]));
        let events = Events::default();
        let (mut edu, worker) = new(Options {
            bar: Gpa(0xfe00_0000),
            interrupt_line: 18,
            buffer,
            memory: memory_through(Box::new(memory.clone())),
            interrupts: events_through(Box::new(events.clone())),
        })
        .unwrap();
        set_command(&mut edu, 6);
        Self {
            edu,
            worker,
            memory,
            events,
        }
    }

    fn transfer(&mut self, source: u64, destination: u64, count: u64, command: u64) {
        start(&mut self.edu, [source, destination, count, command]);
        assert!(self.worker.step());
        assert_eq!(read(&mut self.edu, 0x98), command & !1);
    }

    fn bytes(&self, address: u64, count: u64) -> Vec<u8> {
        let mut ram = self.memory.ram();
        let byte = |address| ram.byte(address).copied();
        (address..address + count).map_while(byte).collect()
    }

    /// Refused transfers, and address and length of the last.
    fn refused(&mut self) -> [u64; 3] {
        [0xa8, 0xb0, 0xb8].map(|offset| read(&mut self.edu, offset))
    }

    fn enable_msi(&mut self) -> Event {
        self.edu.config_write(0x44, &0xfee0_1000_u32.to_le_bytes());
        self.edu.config_write(0x4c, &0x41_u16.to_le_bytes());
        self.edu.config_write(0x42, &[1, 0]);
        Event::Message(MsiMessage {
            address: 0xfee0_1000,
            data: 0x41,
        })
    }
}

fn set_command(edu: &mut Edu, command: u16) {
    edu.config_write(4, &command.to_le_bytes());
}

fn status(edu: &mut Edu) -> u8 {
    let mut data = [0];
    edu.config_read(6, &mut data);
    data[0]
}

fn start(edu: &mut Edu, values: [u64; 4]) {
    for (offset, value) in [0x80, 0x88, 0x90, 0x98].into_iter().zip(values) {
        edu.bar_write(Region::Bar(0), offset, &value.to_le_bytes());
    }
}

fn read(edu: &mut Edu, offset: u64) -> u64 {
    let mut data = [0; 8];
    edu.bar_read(Region::Bar(0), offset, &mut data);
    u64::from_le_bytes(data)
}

fn read32(edu: &mut Edu, offset: u64) -> u32 {
    let mut data = [0; 4];
    edu.bar_read(Region::Bar(0), offset, &mut data);
    u32::from_le_bytes(data)
}

fn write32(edu: &mut Edu, offset: u64, value: u32) {
    edu.bar_write(Region::Bar(0), offset, &value.to_le_bytes());
}
