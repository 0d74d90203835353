// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The function: its identity, registers and gates.

use devices::dma_window::{DmaWindow, Options, SetupError};
use devices::pci::{PciFunction, Region, Space};

use super::*;

const COMMAND: u16 = 4;
const RAM: u64 = 0x10_0000;
const HOST: u64 = 0x7_6543_2000;

/// A window with two functions behind it, at `00:03.0` and `00:04.1`, and their gates.
fn window() -> (DmaWindow<Box<[TablePage]>>, [BusMasterGate; 2]) {
    let gates = [BusMasterGate::opened(), BusMasterGate::closed()];
    let places = [(3, 0), (4, 1)].map(|(device, function)| Bdf::new(0, 0, device, function));
    let functions = places.into_iter().flatten().zip(gates.clone());
    let mut window = DmaWindow::new(Options {
        registers: Gpa(REGISTERS),
        table: table(&[(RAM, HOST, 0x5000)], TABLE),
        functions: functions.collect(),
    })
    .unwrap();
    window.config_write(COMMAND, &[2, 0]);
    (window, gates)
}

fn config(window: &mut DmaWindow<Box<[TablePage]>>, offset: u16) -> u32 {
    let mut data = [0; 4];
    window.config_read(offset, &mut data);
    u32::from_le_bytes(data)
}

fn read(window: &mut DmaWindow<Box<[TablePage]>>, offset: u64) -> u64 {
    let mut data = [0; 8];
    window.bar_read(Region::Bar(0), offset, &mut data);
    u64::from_le_bytes(data)
}

fn read32(window: &mut DmaWindow<Box<[TablePage]>>, offset: u64) -> u32 {
    let mut data = [0; 4];
    window.bar_read(Region::Bar(0), offset, &mut data);
    u32::from_le_bytes(data)
}

fn write(window: &mut DmaWindow<Box<[TablePage]>>, offset: u64, data: &[u8]) {
    window.bar_write(Region::Bar(0), offset, data);
}

/// Names a function and returns the status.
fn name(window: &mut DmaWindow<Box<[TablePage]>>, value: u32) -> u32 {
    write(window, 0x60, &value.to_le_bytes());
    assert_eq!(read32(window, 0x60), value);
    read32(window, 0x64)
}

#[test]
fn it_identifies_itself() {
    let (window, _) = &mut window();
    for (offset, dword) in [
        (0x00, 0x7057_1234),
        (0x08, 0x0880_0001),
        (0x10, 0xfe00_0000),
        (0x14, 0),
        (0x18, 0x0000_000c),
        (0x1c, 0x0000_00c0),
        (0x20, 0),
        (0x2c, 0x7057_1234),
        (0x34, 0),
        (0x3c, 0),
    ] {
        assert_eq!(config(window, offset), dword, "{offset:#x}");
    }
    assert_eq!(&MAGIC.to_le_bytes(), b"PVDW");
    for (offset, value) in [
        (0x00, u64::from(MAGIC) | 1 << 32),
        (0x08, u64::from(FEATURES) | 3 << 32),
        (0x10, TABLE),
        (0x18, 0x3000),
        (0x20, 1),
        (0x28, 0),
        (0x30, 0),
        (0x60, u64::from(STATUS_NONE) << 32),
        (0xff8, 0),
    ] {
        assert_eq!(read(window, offset), value, "{offset:#x}");
    }
}

#[test]
fn queries_are_asked_and_answered() {
    let (window, _) = &mut window();
    for (gpa, len, answer) in [
        (RAM + 0x123, 0x1000, (HOST + 0x123, 0x1000)),
        (RAM + 0x4fff, u64::MAX, (HOST + 0x4fff, 1)),
        (RAM - 1, 16, (0, 0)),
        (RAM + 0x5000, 1, (0, 0)),
        (RAM, 0, (0, 0)),
        (u64::MAX, u64::MAX, (0, 0)),
    ] {
        write(window, 0x40, &u64::to_le_bytes(gpa));
        write(window, 0x48, &u64::to_le_bytes(len));
        assert_eq!(
            (read(window, 0x50), read(window, 0x58)),
            answer,
            "{gpa:#x} {len:#x}"
        );
    }
    assert_eq!(read(window, 0x28), 4, "refusals");
}

#[test]
fn the_upper_half_of_the_length_asks() {
    let (window, _) = &mut window();
    write(window, 0x44, &0_u32.to_le_bytes());
    write(window, 0x40, &(0x10_0000_u32).to_le_bytes());
    write(window, 0x48, &0x10_u32.to_le_bytes());
    assert_eq!(read(window, 0x58), 0, "not asked yet");
    write(window, 0x4c, &0_u32.to_le_bytes());
    assert_eq!((read(window, 0x50), read(window, 0x58)), (HOST, 0x10));
    write(window, 0x4c, &1_u32.to_le_bytes());
    assert_eq!(
        (read(window, 0x48), read(window, 0x58)),
        (0x1_0000_0010, 0x5000)
    );
}

#[test]
fn narrow_writes_and_those_to_other_places_are_dropped() {
    let (window, gates) = &mut window();
    let before: Vec<_> = (0..0x1000).step_by(8).map(|at| read(window, at)).collect();
    for at in 0..0x1000 {
        write(window, at, &[0xff]);
        if at % 2 == 0 {
            write(window, at, &[0xff; 2]);
        }
        if at % 4 == 0 && !(0x40..0x50).contains(&at) && at != 0x60 {
            write(window, at, &[0xff; 4]);
        }
    }
    let after: Vec<_> = (0..0x1000).step_by(8).map(|at| read(window, at)).collect();
    assert_eq!(before, after);
    assert!(!gates.iter().any(BusMasterGate::is_open));
    let mut byte = [0];
    window.bar_read(Region::Bar(0), 2, &mut byte);
    assert_eq!(byte, *b"D");
    window.bar_read(Region::Bar(1), 0, &mut byte);
    assert_eq!(byte, [0xff]);
}

#[test]
fn writes_to_the_table_change_nothing() {
    let (window, gates) = &mut window();
    let bytes = |window: &mut DmaWindow<Box<[TablePage]>>| -> Vec<_> {
        let mut word = [0; 8];
        let read = |at| {
            window.bar_read(Region::Bar(2), at, &mut word);
            u64::from_le_bytes(word)
        };
        (0..0x4000).step_by(8).map(read).collect()
    };
    let before = bytes(window);
    assert_eq!(before[0], 0x6000_00c0_0000_1401);
    assert!(
        before[0x3000 / 8..].iter().all(|word| *word == 0),
        "behind the tables"
    );
    for at in (0..0x4000).step_by(8) {
        window.bar_write(Region::Bar(2), at, &[0xff; 8]);
        window.bar_write(Region::Bar(2), at, &[0xff]);
    }
    window.bar_write(Region::Bar(2), 0x60, &0x18_u32.to_le_bytes());
    assert_eq!(bytes(window), before);
    assert_eq!(read(window, 0x60), 0, "the registers are elsewhere");
    assert!(!gates[0].is_open());
    window.reset();
    assert_eq!(bytes(window), before);
}

#[test]
fn gates_open_and_close_one_at_a_time() {
    let (window, gates) = &mut window();
    let open = |gates: &[BusMasterGate; 2]| gates.each_ref().map(BusMasterGate::is_open);
    assert_eq!(open(gates), [false, false], "closed from the start");
    assert_eq!(name(window, 0x18), STATUS_ENABLED);
    assert_eq!(open(gates), [true, false]);
    assert_eq!(name(window, 0x21), STATUS_ENABLED);
    assert_eq!(open(gates), [true, true]);
    assert_eq!(name(window, 0x8000_0018), STATUS_DISABLED);
    assert_eq!(name(window, 0x8000_0018), STATUS_DISABLED);
    assert_eq!(open(gates), [false, true]);
    for unknown in [0, 0x08, 0x19, 0x20, 0xffff, 0x8000_0008] {
        assert_eq!(name(window, unknown), STATUS_UNKNOWN, "{unknown:#x}");
    }
    for refused in [0x0001_0018, 0x4000_0018, 0xc000_0021, u32::MAX] {
        assert_eq!(name(window, refused), STATUS_REFUSED, "{refused:#x}");
    }
    assert_eq!(open(gates), [false, true]);
    assert_eq!(name(window, 0x21), STATUS_ENABLED);
    gates[1].close();
    assert_eq!(
        read32(window, 0x64),
        STATUS_DISABLED,
        "it is the gate's state"
    );
}

#[test]
fn reset_forgets_everything_and_closes_the_gates() {
    let (window, gates) = &mut window();
    name(window, 0x18);
    write(window, 0x40, &[0xff; 8]);
    write(window, 0x48, &[0xff; 8]);
    window.config_write(0x10, &[0; 4]);
    window.reset();
    assert!(!gates[0].is_open());
    for offset in [0x28, 0x40, 0x48, 0x50, 0x58, 0x60] {
        assert_eq!(read(window, offset), 0, "{offset:#x}");
    }
    assert_eq!(config(window, 0x10), 0xfe00_0000);
    assert_eq!(config(window, 4), 0);
}

#[test]
fn bars_answer_where_the_guest_puts_them() {
    let (window, _) = &mut window();
    let found = |window: &DmaWindow<Box<[TablePage]>>, at| window.windows().find(Space::Memory, at);
    assert_eq!(found(window, REGISTERS + 8), Some((Region::Bar(0), 8)));
    assert_eq!(
        found(window, TABLE + 0x3ff8),
        Some((Region::Bar(2), 0x3ff8))
    );
    window.config_write(0x10, &0xfd00_0000_u32.to_le_bytes());
    assert_eq!(config(window, 0x10), 0xfd00_0000);
    assert_eq!(found(window, REGISTERS), None);
    assert_eq!(found(window, 0xfd00_0000), Some((Region::Bar(0), 0)));
    assert_eq!(found(window, TABLE), Some((Region::Bar(2), 0)));
    window.config_write(0x1c, &[0xff; 4]);
    assert_eq!(config(window, 0x1c), u32::MAX, "sizing");
    assert_eq!(found(window, TABLE), None);
    window.config_write(0x1c, &0xc0_u32.to_le_bytes());
    window.config_write(0x10, &0xfe00_0000_u32.to_le_bytes());
    assert_eq!(found(window, REGISTERS), Some((Region::Bar(0), 0)));
    assert_eq!(found(window, TABLE), Some((Region::Bar(2), 0)));
    window.config_write(COMMAND, &[5, 0]);
    assert_eq!(found(window, REGISTERS), None);
}

#[test]
fn what_cannot_be_a_window_is_refused_before_a_gate_closes() {
    let at = |base| {
        DmaWindow::new(Options {
            registers: Gpa(REGISTERS),
            table: table(&[(RAM, HOST, 0x40_0000)], base),
            functions: Vec::new(),
        })
    };
    let size = 0x8000;
    for base in [0, RAM, RAM + 0x3f_8000] {
        let base = Gpa(base);
        let refused = Some(SetupError::Table { base, size });
        assert_eq!(at(base.0).err(), refused);
    }
    for base in [0x1000, TABLE + 0x1000] {
        let refused = at(base).err();
        assert!(matches!(refused, Some(SetupError::Bar { index: 2, .. })));
    }
    assert!(at(RAM + 0x40_0000).is_ok());
    let table = || table(&[(RAM, HOST, 0x5000)], TABLE);
    for registers in [0x800, 1 << 32, u64::MAX] {
        let result = DmaWindow::new(Options {
            registers: Gpa(registers),
            table: table(),
            functions: Vec::new(),
        });
        assert!(
            matches!(result, Err(SetupError::Bar { index: 0, .. })),
            "{registers:#x}"
        );
    }
    let there = Bdf::new(0, 0, 3, 0).unwrap();
    let elsewhere = Bdf::new(1, 0, 4, 0).unwrap();
    for (functions, bdf) in [
        (vec![there, there], there),
        (vec![there, elsewhere], elsewhere),
    ] {
        let gate = BusMasterGate::opened();
        let result = DmaWindow::new(Options {
            registers: Gpa(REGISTERS),
            table: table(),
            functions: functions
                .into_iter()
                .map(|bdf| (bdf, gate.clone()))
                .collect(),
        });
        assert_eq!(result.unwrap_err(), SetupError::Function { bdf });
        assert!(gate.is_open());
    }
}
