//! The engine as drivers use it, its faults, and its threads.

use std::num::NonZeroU64;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use address::Gpa;

use super::testing::{Event, Events, PAGE, Ram, TestMemory};
use super::*;
use crate::pci::{MsiMessage, PciFunction, Region};

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
        Self::with(|memory| memory, |events| events)
    }

    fn with(
        memory_through: impl FnOnce(Box<dyn DmaMemory>) -> Box<dyn DmaMemory>,
        events_through: impl FnOnce(Box<dyn InterruptSink>) -> Box<dyn InterruptSink>,
    ) -> Self {
        let memory = TestMemory::new(Ram::new([RAM, RAM + PAGE, RAM + 3 * PAGE]));
        let events = Events::default();
        let (mut edu, worker) = new(Options {
            bar: Gpa(0xfe00_0000),
            interrupt_line: 18,
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

#[test]
fn it_says_what_it_is() {
    let edu = &mut Rig::new().edu;
    let mut header = [0; 4];
    for (offset, dword) in [
        (0x00, 0x11e8_1234_u32),
        (0x08, 0xff00_0010),
        (0x2c, 0x1100_1af4),
        (0x3c, 0x0000_0112),
        (0x40, 0x0180_0005),
    ] {
        edu.config_read(offset, &mut header);
        assert_eq!(u32::from_le_bytes(header), dword, "{offset:#x}");
    }
    assert_eq!(read32(edu, 0x00), 0x0100_00ed);
    assert_eq!(&read32(edu, 0xa0).to_le_bytes(), b"PVSE");
    assert_eq!(read32(edu, 0xa4), 65536);
    write32(edu, 0x04, 0x1234_5678);
    assert_eq!(read32(edu, 0x04), !0x1234_5678);
}

#[test]
fn a_bar_stands_only_on_its_own_size() {
    let (memory, events) = (TestMemory::default(), Events::default());
    let result = new(Options {
        bar: Gpa(0x8000),
        interrupt_line: 0,
        memory: Box::new(memory),
        interrupts: Box::new(events),
    });
    assert!(matches!(result, Err(SetupError::Bar(_))));
}

#[test]
fn factorials_are_those_of_32_bits() {
    let mut rig = Rig::new();
    for (n, result) in [
        (0, 1),
        (1, 1),
        (5, 120),
        (12, 479_001_600),
        (13, 1_932_053_504),
        (33, 0x8000_0000),
        (34, 0),
        (u32::MAX, 0),
    ] {
        write32(&mut rig.edu, 0x08, n);
        assert_eq!(read32(&mut rig.edu, 0x20), 1, "computing");
        write32(&mut rig.edu, 0x08, 7);
        assert!(rig.worker.step());
        assert_eq!(read32(&mut rig.edu, 0x08), result, "{n}!");
        assert_eq!(read32(&mut rig.edu, 0x20), 0);
        assert_eq!(rig.events.take(), []);
    }
    write32(&mut rig.edu, 0x20, u32::MAX);
    write32(&mut rig.edu, 0x08, 3);
    assert_eq!(read32(&mut rig.edu, 0x20), 0x81);
    rig.worker.step();
    assert_eq!(read32(&mut rig.edu, 0x24), 1);
    assert_eq!(rig.events.take(), [Event::Line(true)]);
    assert!(!rig.worker.step(), "all is done");
}

#[test]
fn data_goes_to_the_buffer_and_back() {
    let mut rig = Rig::new();
    let (from, to) = (RAM + 0x123, RAM + PAGE + 0x3ff);
    let before = rig.bytes(RAM, 2 * PAGE);
    rig.transfer(from, BUFFER + 0xfff1, 0xf, TO_BUFFER);
    rig.transfer(from, BUFFER, 1000, TO_BUFFER);
    rig.transfer(BUFFER, to, 1000, TO_MEMORY);
    let mut expected = before.clone();
    expected.copy_within(0x123..0x123 + 1000, 0x13ff);
    assert!(rig.bytes(RAM, 2 * PAGE) == expected);
    rig.transfer(BUFFER + 0xfff1, RAM, 0xf, TO_MEMORY);
    assert_eq!(rig.bytes(RAM, 0xf), before[0x123..0x132]);
    assert_eq!(rig.refused(), [0; 3]);
    let statistics = Statistics {
        transfers: 4,
        bytes_read: 1015,
        bytes_written: 1015,
        refused: 0,
        last_refusal: None,
    };
    assert_eq!(rig.worker.control().statistics(), statistics);
}

#[test]
fn what_memory_refuses_is_counted_and_named() {
    let mut rig = Rig::new();
    let hole = RAM + 2 * PAGE;
    // Ends in the hole: all before it is moved.
    rig.transfer(BUFFER, hole - 300, 1000, TO_MEMORY | WITH_INTERRUPT);
    assert_eq!(rig.refused(), [1, hole, 256]);
    assert_eq!(rig.bytes(hole - 300, 300), [0; 300]);
    assert_eq!(rig.events.take(), [Event::Line(true)], "as if it had been");
    // Begins in it, and ends in it.
    rig.transfer(hole + 0x80, BUFFER, 0x10, TO_BUFFER);
    assert_eq!(rig.refused(), [2, hole + 0x80, 0x10]);
    let refusal = Refusal {
        address: hole + 0x80,
        length: 0x10,
        direction: Direction::Read,
        reason: Reason::Memory,
    };
    let statistics = rig.worker.control().statistics();
    assert_eq!(statistics.last_refusal, Some(refusal));
    assert_eq!((statistics.transfers, statistics.refused), (0, 2));
    assert_eq!(statistics.bytes_written, 300);
    assert_eq!(
        refusal.to_string(),
        "DMA read of 0x10 bytes at bus address 0x100002080 refused: \
         the device has no memory there"
    );
}

#[test]
fn impossible_transfers_move_nothing() {
    let mut rig = Rig::new();
    let before = rig.memory.ram().clone();
    let size = u64::from(BUFFER_SIZE);
    let mut refused = 0;
    for (device, bus, count) in [
        (BUFFER, RAM, 0),
        (BUFFER, RAM, size + 1),
        (BUFFER, RAM, u64::MAX),
        (BUFFER - 1, RAM, 1),
        (BUFFER + 1, RAM, size),
        (BUFFER + size - 3, RAM, 4),
        (BUFFER + size, RAM, 1),
        (0, RAM, 1),
        (u64::MAX, RAM, 2),
        (BUFFER, u64::MAX, 2),
        (BUFFER, u64::MAX - 0xff, 0x101),
    ] {
        rig.transfer(bus, device, count, TO_BUFFER);
        refused += 1;
        assert_eq!(rig.refused(), [refused, bus, count], "to {device:#x}");
        rig.transfer(device, bus, count, TO_MEMORY);
        refused += 1;
        assert_eq!(rig.refused(), [refused, bus, count], "from {device:#x}");
    }
    assert!(*rig.memory.ram() == before);
    assert_eq!(rig.worker.control().statistics().bytes_read, 0);
    // The last byte of the address space is an address like others.
    rig.transfer(u64::MAX, BUFFER, 1, TO_BUFFER);
    assert_eq!(rig.refused(), [refused + 1, u64::MAX, 1]);
    let last = rig.worker.control().statistics().last_refusal.unwrap();
    assert_eq!(last.reason, Reason::Memory);
}

#[test]
fn only_a_bus_master_moves_data_and_sends_messages() {
    let mut rig = Rig::new();
    let before = rig.memory.ram().clone();
    rig.enable_msi();
    set_command(&mut rig.edu, 2);
    rig.transfer(BUFFER, RAM + 5, 100, TO_MEMORY | WITH_INTERRUPT);
    assert_eq!(rig.refused(), [1, RAM + 5, 100]);
    assert!(*rig.memory.ram() == before);
    assert_eq!(read32(&mut rig.edu, 0x24), 0x100);
    assert_eq!(rig.events.take(), []);
    set_command(&mut rig.edu, 6);
    assert_eq!(rig.events.take(), [], "lost, as any write on the bus is");
}

#[test]
fn registers_of_a_transfer_under_way_stand_still() {
    let mut rig = Rig::new();
    start(&mut rig.edu, [RAM, BUFFER, 16, TO_BUFFER]);
    start(&mut rig.edu, [1, 2, 3, TO_MEMORY]);
    for (offset, value) in [(0x80, RAM), (0x88, BUFFER), (0x90, 16), (0x98, 1)] {
        assert_eq!(read(&mut rig.edu, offset), value);
    }
    assert!(rig.worker.step());
    assert!(!rig.worker.step());
    start(&mut rig.edu, [1, 2, 3, 6]);
    assert_eq!(read(&mut rig.edu, 0x80), 1);
    assert_eq!(read(&mut rig.edu, 0x98), 0, "no command without a start");
    assert!(!rig.worker.step());
    write32(&mut rig.edu, 0x80, u32::MAX);
    assert_eq!(read(&mut rig.edu, 0x80), u64::from(u32::MAX));
    write32(&mut rig.edu, 0x84, 7);
    assert_eq!(read(&mut rig.edu, 0x80), u64::from(u32::MAX));
}

#[test]
fn the_line_follows_status_and_command() {
    let mut rig = Rig::new();
    write32(&mut rig.edu, 0x60, 0b110);
    write32(&mut rig.edu, 0x60, 0b001);
    assert_eq!(read32(&mut rig.edu, 0x24), 0b111);
    assert_eq!(rig.events.take(), [Event::Line(true)]);
    assert_eq!(status(&mut rig.edu) & 8, 8);
    set_command(&mut rig.edu, 0x406);
    assert_eq!(rig.events.take(), [Event::Line(false)]);
    assert_eq!(status(&mut rig.edu) & 8, 8, "waits all the same");
    set_command(&mut rig.edu, 0x006);
    assert_eq!(rig.events.take(), [Event::Line(true)]);
    write32(&mut rig.edu, 0x64, 0b101);
    assert_eq!(rig.events.take(), []);
    write32(&mut rig.edu, 0x64, 0b010);
    assert_eq!(rig.events.take(), [Event::Line(false)]);
    assert_eq!(status(&mut rig.edu) & 8, 0);
    write32(&mut rig.edu, 0x60, 0);
    assert_eq!(rig.events.take(), []);
}

#[test]
fn messages_take_the_place_of_the_line() {
    let mut rig = Rig::new();
    write32(&mut rig.edu, 0x60, 1);
    assert_eq!(rig.events.take(), [Event::Line(true)]);
    let message = rig.enable_msi();
    assert_eq!(rig.events.take(), [Event::Line(false)]);
    assert_eq!(status(&mut rig.edu) & 8, 0);
    write32(&mut rig.edu, 0x60, 2);
    rig.transfer(RAM, BUFFER, 1, TO_BUFFER | WITH_INTERRUPT);
    assert_eq!(rig.events.take(), [message, message], "one for each");
    write32(&mut rig.edu, 0x64, 0x103);
    write32(&mut rig.edu, 0x60, 0);
    assert_eq!(rig.events.take(), []);
    write32(&mut rig.edu, 0x60, 1);
    rig.edu.config_write(0x42, &[0, 0]);
    assert_eq!(rig.events.take(), [message, Event::Line(true)]);
}

#[test]
fn a_masked_message_waits() {
    let mut rig = Rig::new();
    let message = rig.enable_msi();
    let mut pending = [0];
    rig.edu.config_write(0x50, &[1]);
    for _ in 0..2 {
        write32(&mut rig.edu, 0x60, 1);
    }
    rig.edu.config_read(0x54, &mut pending);
    assert_eq!((rig.events.take(), pending), (vec![], [1]));
    rig.edu.config_write(0x50, &[0]);
    assert_eq!(rig.events.take(), [message]);
    rig.edu.config_write(0x50, &[1]);
    write32(&mut rig.edu, 0x60, 1);
    write32(&mut rig.edu, 0x64, 1);
    rig.edu.config_write(0x50, &[0]);
    rig.edu.config_read(0x54, &mut pending);
    assert_eq!((rig.events.take(), pending), (vec![], [0]), "satisfied");
}

#[test]
fn a_reset_leaves_nothing() {
    let mut rig = Rig::new();
    rig.transfer(RAM, BUFFER, 16, TO_BUFFER | WITH_INTERRUPT);
    rig.transfer(0, BUFFER, 16, TO_BUFFER);
    rig.edu.config_write(0x3c, &[3]);
    start(&mut rig.edu, [RAM, BUFFER, 16, TO_BUFFER]);
    write32(&mut rig.edu, 0x08, 9);
    assert_eq!(rig.events.take(), [Event::Line(true)]);
    rig.edu.reset();
    assert_eq!(rig.events.take(), [Event::Line(false)]);
    assert!(!rig.worker.step());
    for offset in [0x08, 0x20, 0x24, 0x80, 0x88, 0x90, 0x98, 0xa8, 0xb0, 0xb8] {
        assert_eq!(read32(&mut rig.edu, offset), 0, "{offset:#x}");
    }
    assert_eq!(rig.edu.windows().iter().count(), 0);
    let mut line = [0];
    rig.edu.config_read(0x3c, &mut line);
    assert_eq!(line, [18]);
    set_command(&mut rig.edu, 6);
    rig.transfer(BUFFER, RAM, 16, TO_MEMORY);
    assert_eq!(rig.bytes(RAM, 16), [0; 16]);
    assert_eq!(rig.worker.control().statistics().refused, 1);
}

/// Memory whose every access waits for a word.
struct Slow {
    arrived: Sender<u64>,
    go_on: Mutex<Receiver<()>>,
}

impl DmaMemory for Slow {
    fn read(&self, address: u64, _: &mut [u8]) -> Result<(), DmaRefused> {
        self.arrived.send(address).unwrap();
        self.go_on.lock().unwrap().recv().map_err(|_| DmaRefused)
    }

    fn write(&self, _: u64, _: &[u8]) -> Result<(), DmaRefused> {
        Err(DmaRefused)
    }
}

/// A transfer of three bursts, the first of which waits for a word in the worker's thread.
struct UnderWay {
    edu: Edu,
    control: EduControl,
    events: Events,
    arrivals: Receiver<u64>,
    go: Sender<()>,
    thread: thread::JoinHandle<()>,
}

impl UnderWay {
    fn new() -> Self {
        let (arrived, arrivals) = channel();
        let (go, go_on) = channel();
        let slow = Slow {
            arrived,
            go_on: Mutex::new(go_on),
        };
        let rig = Rig::with(|_| Box::new(slow), |events| events);
        let (mut edu, mut worker) = (rig.edu, rig.worker);
        let control = worker.control();
        let thread = thread::spawn(move || worker.run());
        write32(&mut edu, 0x60, 1);
        assert_eq!(rig.events.take(), [Event::Line(true)]);
        start(&mut edu, [RAM, BUFFER, 768, TO_BUFFER]);
        assert_eq!(arrivals.recv(), Ok(RAM));
        Self {
            edu,
            control,
            events: rig.events,
            arrivals,
            go,
            thread,
        }
    }

    /// Lets the burst end once the line has gone down, which is when `quiesce` has done its part
    /// and waits for the burst. Memory refuses all that follow.
    fn end_burst_during(&mut self, quiesce: impl FnOnce(&mut Edu)) {
        let go = std::mem::replace(&mut self.go, channel().0);
        let events = self.events.clone();
        let releaser = thread::spawn(move || {
            // Bounded, so that a line that stays up fails a test instead of hanging it.
            for _ in 0..1_000_000 {
                if events.take() == [Event::Line(false)] {
                    break;
                }
                thread::yield_now();
            }
            for _ in 0..1000 {
                thread::yield_now();
            }
            go.send(()).unwrap();
        });
        quiesce(&mut self.edu);
        assert_eq!(self.control.statistics().bytes_read, 256, "did not wait");
        releaser.join().unwrap();
    }

    fn wait_for_end(&mut self) {
        while read(&mut self.edu, 0x98) & 1 != 0 {
            thread::yield_now();
        }
    }

    /// Stops the worker. Returns the addresses of the bursts since, and what was done in all.
    fn finish(self) -> (Vec<u64>, Statistics) {
        self.control.stop();
        drop(self.go);
        self.thread.join().unwrap();
        (self.arrivals.iter().collect(), self.control.statistics())
    }
}

#[test]
fn accesses_do_not_wait_for_a_transfer() {
    let mut under_way = UnderWay::new();
    let edu = &mut under_way.edu;
    assert_eq!(read(edu, 0x98), 1);
    write32(edu, 0x64, 1);
    set_command(edu, 0x406);
    assert_eq!(status(edu) & 8, 0);
    for address in [RAM + 256, RAM + 512] {
        under_way.go.send(()).unwrap();
        assert_eq!(under_way.arrivals.recv(), Ok(address));
    }
    under_way.go.send(()).unwrap();
    under_way.wait_for_end();
    let (later, statistics) = under_way.finish();
    assert_eq!((later.len(), statistics.transfers), (0, 1));
}

#[test]
fn a_stop_ends_a_transfer_at_its_burst() {
    let under_way = UnderWay::new();
    under_way.control.stop();
    under_way.go.send(()).unwrap();
    let (later, statistics) = under_way.finish();
    assert_eq!((later.len(), statistics.bytes_read), (0, 256));
    assert_eq!((statistics.transfers, statistics.refused), (0, 0));
}

#[test]
fn no_burst_follows_the_end_of_bus_mastering() {
    let mut under_way = UnderWay::new();
    under_way.end_burst_during(|edu| set_command(edu, 0x402));
    under_way.wait_for_end();
    assert_eq!(read(&mut under_way.edu, 0xb0), RAM + 256);
    let (later, statistics) = under_way.finish();
    assert_eq!((later.len(), statistics.refused), (0, 1));
    let reason = statistics.last_refusal.unwrap().reason;
    assert_eq!(reason, Reason::BusMaster);
}

#[test]
fn no_burst_follows_a_reset() {
    let mut under_way = UnderWay::new();
    under_way.end_burst_during(Edu::reset);
    assert_eq!(read(&mut under_way.edu, 0x98), 0);
    assert_eq!(read(&mut under_way.edu, 0xa8), 0);
    set_command(&mut under_way.edu, 6);
    start(&mut under_way.edu, [RAM + PAGE, BUFFER, 1, TO_BUFFER]);
    under_way.wait_for_end();
    let (later, statistics) = under_way.finish();
    assert_eq!(later, [RAM + PAGE]);
    assert_eq!((statistics.bytes_read, statistics.refused), (256, 1));
}

#[test]
fn a_worker_ends_with_its_function() {
    let rig = Rig::new();
    let mut worker = rig.worker;
    let thread = thread::spawn(move || worker.run());
    drop(rig.edu);
    thread.join().unwrap();
}

#[test]
fn misplaced_memory_is_off_by_the_distance() {
    let page = i64::try_from(PAGE).unwrap();
    let off = |memory| -> Box<dyn DmaMemory> { Box::new(sabotage::Misplaced::new(memory, page)) };
    let mut rig = Rig::with(off, |events| events);
    let second = rig.bytes(RAM + PAGE, 600);
    rig.transfer(RAM, BUFFER, 600, TO_BUFFER);
    rig.transfer(BUFFER, RAM + 2 * PAGE, 600, TO_MEMORY);
    assert_eq!(rig.bytes(RAM + 3 * PAGE, 600), second);
    rig.transfer(RAM + PAGE, BUFFER, 1, TO_BUFFER);
    assert_eq!(rig.refused(), [1, RAM + PAGE, 1], "as the guest knows it");
}

#[test]
fn one_bit_flips_in_every_third_transfer() {
    let every = NonZeroU64::new(3).unwrap();
    let spoil =
        |memory| -> Box<dyn DmaMemory> { Box::new(sabotage::FlippedBits::new(memory, every)) };
    let mut rig = Rig::with(spoil, |events| events);
    let original = rig.bytes(RAM, 1000);
    let wrong_bits = |bytes: &[u8]| -> u32 {
        let pairs = bytes.iter().zip(&original);
        pairs.map(|(one, other)| (one ^ other).count_ones()).sum()
    };
    let mut flips = Vec::new();
    for round in 0..6 {
        // The third and the sixth and so on: in turn a read and a write.
        rig.transfer(RAM, BUFFER, 1000, TO_BUFFER);
        rig.transfer(BUFFER, RAM + PAGE, 1000, TO_MEMORY);
        flips.push(wrong_bits(&rig.bytes(RAM + PAGE, 1000)));
        assert_eq!(wrong_bits(&rig.bytes(RAM, 1000)), 0, "round {round}");
    }
    assert_eq!(flips, [0, 1, 1, 0, 1, 1]);
}

#[test]
fn every_second_interrupt_is_lost() {
    let every = NonZeroU64::new(2).unwrap();
    let lose =
        |sink| -> Box<dyn InterruptSink> { Box::new(sabotage::LostInterrupts::new(sink, every)) };
    let mut rig = Rig::with(|memory| memory, lose);
    for expected in [true, false, true] {
        write32(&mut rig.edu, 0x60, 1);
        let up = rig.events.take() == [Event::Line(true)];
        assert_eq!(up, expected);
        write32(&mut rig.edu, 0x64, 1);
        assert_eq!(rig.events.take(), [Event::Line(false)]);
    }
    let message = rig.enable_msi();
    for expected in [0, 1, 0] {
        write32(&mut rig.edu, 0x60, 1);
        assert_eq!(rig.events.take(), vec![message; expected]);
    }
}
