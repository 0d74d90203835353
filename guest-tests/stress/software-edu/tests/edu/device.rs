// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Registers, transfers and interrupts, one step at a time.

use software_edu::{Direction, QEMU_BUFFER_SIZE, Reason, Refusal, SetupError, Statistics};

use super::*;

#[test]
fn it_identifies_itself() {
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
fn a_bar_is_aligned_to_its_size() {
    let (memory, events) = (TestMemory::default(), Events::default());
    let result = new(Options {
        bar: Gpa(0x8000),
        interrupt_line: 0,
        buffer: BUFFER_SIZE,
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
        "DMA read of 0x10 bytes at bus address 0x100002080 refused: the device has no memory there"
    );
}

#[test]
fn impossible_transfers_move_nothing() {
    for size in [BUFFER_SIZE, QEMU_BUFFER_SIZE, 1] {
        refuse_impossible(Rig::with_buffer(size), size.into());
    }
}

fn refuse_impossible(mut rig: Rig, size: u64) {
    assert_eq!(u64::from(read32(&mut rig.edu, 0xa4)), size);
    let before = rig.memory.ram().clone();
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
fn registers_of_a_transfer_under_way_do_not_change() {
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
