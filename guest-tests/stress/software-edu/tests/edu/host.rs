// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The engine as a guest gets it: behind a passed-through function.

use address::Gpa;
use devices::pci::{BusWindows, PciFunction, Region};
use devices::vfio_pci::{
    self, BusMasterGate, HostFunction, InterruptKind, MsiMessage, PassthroughFunction,
};
use devices_testing::edu::{Event, Events, Ram, TestMemory};
use software_edu::{BAR_SIZE, EduHost, QEMU_BUFFER_SIZE, Reason};

use super::*;

const BAR: u64 = 0xfe00_0000;
const MSI: u16 = 0x40;
const RAISE: u64 = 0x60;
const ACKNOWLEDGE: u64 = 0x64;
const ON: u16 = 1;
/// Vector 0's mask bit, in the capability with 64-bit address and mask.
const MASK: u16 = MSI + 0x10;
const PENDING: u16 = MSI + 0x14;

struct Passed {
    function: PassthroughFunction<EduHost>,
    worker: EduWorker,
    memory: TestMemory,
    events: Events,
    gate: BusMasterGate,
}

fn host() -> (EduHost, EduWorker, TestMemory, Events) {
    let memory = TestMemory::new(Ram::new([RAM, RAM + PAGE]));
    let events = Events::default();
    let (host, worker) = EduHost::new(
        "edu",
        Options {
            bar: Gpa(BAR),
            interrupt_line: 18,
            buffer: QEMU_BUFFER_SIZE,
            memory: Box::new(memory.clone()),
            interrupts: Box::new(events.clone()),
        },
    )
    .unwrap();
    (host, worker, memory, events)
}

impl Passed {
    fn new(gate: BusMasterGate) -> Self {
        let (host, worker, memory, events) = host();
        let options = vfio_pci::Options {
            bus_master: gate.clone(),
            interrupt_line: 18,
            bus_windows: BusWindows::default(),
            on_failure: Box::new(|failure| panic!("{failure}")),
        };
        let function = PassthroughFunction::new(host, options).unwrap();
        let mut passed = Self {
            function,
            worker,
            memory,
            events,
            gate,
        };
        passed.config_write(4, &[6, 0]);
        passed
    }

    fn config_write(&mut self, offset: u16, data: &[u8]) {
        self.function.config_write(offset, data);
    }

    fn config_read(&mut self, offset: u16) -> u32 {
        let mut data = [0; 4];
        self.function.config_read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    fn store(&mut self, offset: u64, value: u32) {
        let data = value.to_le_bytes();
        self.function.bar_write(Region::Bar(0), offset, &data);
    }

    fn raise(&mut self) -> Vec<Event> {
        self.store(RAISE, 4);
        self.events.take()
    }

    fn acknowledge(&mut self) -> Vec<Event> {
        self.store(ACKNOWLEDGE, 4);
        self.events.take()
    }

    fn transfer(&mut self, values: [u64; 4]) {
        for (offset, value) in [0x80, 0x88, 0x90, 0x98].into_iter().zip(values) {
            let data = value.to_le_bytes();
            self.function.bar_write(Region::Bar(0), offset, &data);
        }
        assert!(self.worker.step());
    }

    fn turn_msi_on(&mut self, data: u16) -> Event {
        self.config_write(MSI + 4, &0xfee0_3000_u32.to_le_bytes());
        self.config_write(MSI + 0xc, &data.to_le_bytes());
        self.config_write(MSI + 2, &ON.to_le_bytes());
        Event::Message(MsiMessage {
            address: 0xfee0_3000,
            data: data.into(),
        })
    }
}

#[test]
fn it_moves_data_and_interrupts_by_its_line() {
    let mut passed = Passed::new(BusMasterGate::opened());
    assert_eq!(passed.config_read(0), 0x11e8_1234);
    assert_eq!(passed.config_read(0x3c) & 0xffff, 0x0112);
    passed.transfer([RAM, BUFFER, 64, TO_BUFFER]);
    passed.transfer([BUFFER, RAM + PAGE, 64, TO_MEMORY | WITH_INTERRUPT]);
    assert_eq!(passed.events.take(), [Event::Line(true)]);
    let mut ram = passed.memory.ram();
    for at in 0..64 {
        let moved = ram.byte(RAM + at).copied();
        assert_eq!(ram.byte(RAM + PAGE + at).copied(), moved, "byte {at}");
    }
    drop(ram);
    passed.store(ACKNOWLEDGE, 0x100);
    assert_eq!(passed.events.take(), [Event::Line(false)]);
    // INTx Disable.
    passed.raise();
    passed.config_write(4, &0x406_u16.to_le_bytes());
    assert_eq!(passed.events.take(), [Event::Line(false)]);
    passed.config_write(4, &6_u16.to_le_bytes());
    assert_eq!(passed.events.take(), [Event::Line(true)]);
    // A reset takes it down.
    passed.function.reset();
    assert_eq!(passed.events.take(), [Event::Line(false)]);
}

#[test]
fn messages_are_the_guests_and_wait_while_masked() {
    let mut passed = Passed::new(BusMasterGate::opened());
    let message = passed.turn_msi_on(0x41);
    assert_eq!(passed.raise(), [message]);
    assert_eq!(passed.acknowledge(), []);
    passed.config_write(MASK, &1_u32.to_le_bytes());
    assert_eq!(passed.config_read(PENDING), 0);
    assert_eq!(passed.raise(), []);
    assert_eq!(passed.config_read(PENDING), 1);
    passed.config_write(MASK, &0_u32.to_le_bytes());
    assert_eq!(passed.events.take(), [message]);
    assert_eq!(passed.config_read(PENDING), 0);
    // Off, and what was not acknowledged goes by the line.
    passed.config_write(MSI + 2, &[0, 0]);
    assert_eq!(passed.events.take(), [Event::Line(true)]);
    let other = passed.turn_msi_on(0x52);
    assert_eq!(passed.events.take(), [Event::Line(false)]);
    assert_eq!(passed.raise(), [other]);
    // After a reset nothing is on.
    passed.function.reset();
    passed.config_write(4, &[6, 0]);
    assert_eq!(passed.events.take(), []);
    assert_eq!(passed.raise(), [Event::Line(true)]);
}

#[test]
fn without_the_gate_it_masters_nothing() {
    let mut passed = Passed::new(BusMasterGate::closed());
    passed.transfer([RAM, BUFFER, 64, TO_BUFFER]);
    let refusal = passed.worker.control().statistics().last_refusal.unwrap();
    assert_eq!(refusal.reason, Reason::BusMaster);
    passed.gate.open();
    passed.config_read(0);
    passed.transfer([RAM, BUFFER, 64, TO_BUFFER]);
    assert_eq!(passed.worker.control().statistics().transfers, 1);
}

#[test]
fn a_host_answers_as_one_does() {
    let (mut host, _worker, _memory, events) = host();
    let mut data = [0; 4];
    // Memory decode is off.
    assert!(host.region_read(Region::Bar(0), 0, &mut data).is_err());
    assert!(host.region_write(Region::Bar(0), 0x60, &data).is_err());
    host.config_write(4, &[2, 0]).unwrap();
    host.region_read(Region::Bar(0), 0, &mut data).unwrap();
    assert_eq!(u32::from_le_bytes(data), 0x0100_00ed);
    for (region, offset) in [(Region::Bar(1), 0), (Region::Bar(0), BAR_SIZE)] {
        assert!(host.region_read(region, offset, &mut data).is_err());
    }
    assert!(host.map(0, 0..PAGE, Gpa(BAR)).is_err());

    let message = MsiMessage {
        address: 0xfee0_0000,
        data: 1,
    };
    assert!(host.connect(0, message).is_err(), "MSI is off");
    assert!(host.enable_interrupts(InterruptKind::Msix, 1).is_err());
    host.enable_interrupts(InterruptKind::Msi, 1).unwrap();
    assert!(host.connect(1, message).is_err());
    // Raised before it is connected. Without bus mastering nothing is sent.
    let raise = |host: &mut EduHost| {
        host.region_write(Region::Bar(0), RAISE, &[1, 0, 0, 0])
            .unwrap();
    };
    raise(&mut host);
    assert!(!host.pending(0));
    host.config_write(4, &[6, 0]).unwrap();
    raise(&mut host);
    assert!(host.pending(0));
    host.connect(0, message).unwrap();
    assert_eq!(events.take(), [Event::Message(message)]);
    assert!(!host.pending(0));

    // Config space comes back from a reset as it was, and so does what the host turned on.
    host.reset().unwrap();
    let mut command = [0; 2];
    host.config_read(4, &mut command).unwrap();
    assert_eq!(command, [6, 0]);
    raise(&mut host);
    assert_eq!(events.take(), [Event::Message(message)]);
}
