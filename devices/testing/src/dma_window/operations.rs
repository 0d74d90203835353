// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Sequences of operations of a guest, decoded from bytes: what the fuzzer runs, and what the
//! tests replay.

use std::sync::Arc;

use address::{Bdf, Gpa, Iova};
use amdv1::walk::{self, Window};
use amdv1::{TableAddress, TablePage};
use devices::dma_window::{DmaWindow, Options};
use devices::guest_table::{GuestTable, Piece};
use devices::pci::PciRoot;
use devices::vfio_pci::BusMasterGate;
use vm_device::DeviceMmio;
use vm_device::bus::MmioAddress;

use crate::input::Input;

use super::layout::{self, TABLE};
use super::model::{Model, Shape};

const ECAM: u64 = 0xe000_0000;
/// The window is `00:01.0`.
const FUNCTION: u64 = 8 << 12;
const REGISTERS: u32 = 0xfe00_0000;
/// Names of its functions: `00:02.0` and `00:1f.7`.
const FUNCTIONS: [(u8, u8); 2] = [(2, 0), (31, 7)];

/// Registers, and the places between and behind them.
const OFFSETS: [u64; 24] = [
    0x00, 0x04, 0x08, 0x0c, 0x10, 0x14, 0x18, 0x20, 0x28, 0x2c, 0x30, 0x3c, 0x40, 0x44, 0x48, 0x4c,
    0x50, 0x58, 0x5c, 0x60, 0x64, 0x68, 0x800, 0xff8,
];

/// What happened in a sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Queries answered.
    pub answered: u64,
    /// Queries refused.
    pub refused: u64,
    /// Functions that could become bus masters.
    pub enabled: u64,
    /// Names that the window does not have.
    pub unknown: u64,
    /// Writes to the table.
    pub table_writes: u64,
    /// Trees of more than three levels.
    pub high_trees: u64,
    /// Resets.
    pub resets: u64,
}

impl Seen {
    /// Adds another sequence.
    pub fn add(&mut self, other: &Self) {
        self.answered += other.answered;
        self.refused += other.refused;
        self.enabled += other.enabled;
        self.unknown += other.unknown;
        self.table_writes += other.table_writes;
        self.high_trees += other.high_trees;
        self.resets += other.resets;
    }

    /// Whether each kind of thing happened.
    #[must_use]
    pub fn is_all(&self) -> bool {
        [
            self.answered,
            self.refused,
            self.enabled,
            self.unknown,
            self.table_writes,
            self.high_trees,
            self.resets,
        ]
        .iter()
        .all(|count| *count > 0)
    }
}

/// Runs the operations that `bytes` encode on a window and on the model of it.
///
/// # Panics
///
/// If the two differ in anything that the guest can see, or the table changes.
pub fn run(bytes: &[u8]) -> Seen {
    let mut input = Input(bytes);
    let Some(mut machine) = Machine::new(&mut input) else {
        return Seen::default();
    };
    if !input.byte().is_multiple_of(8) {
        machine.config_write(4, &[6, 0]);
    }
    while !input.0.is_empty() {
        machine.operate(&mut input);
    }
    machine.check();
    machine.reset();
    machine.check();
    machine.check_table();
    machine.seen
}

struct Machine {
    root: PciRoot,
    table: Arc<GuestTable<Box<[TablePage]>>>,
    /// The table's entries when it was new.
    entries: Vec<u64>,
    pieces: Vec<Piece>,
    gates: Vec<BusMasterGate>,
    model: Model,
    seen: Seen,
}

impl Machine {
    fn new(input: &mut Input<'_>) -> Option<Self> {
        let pieces = layout::memory(input);
        let table = super::table(pieces.iter().copied(), Gpa(TABLE))?;
        let gates = FUNCTIONS.map(|_| BusMasterGate::opened());
        let functions = FUNCTIONS.iter().zip(&gates);
        let functions = functions.filter_map(|(&(device, function), gate)| {
            Some((Bdf::new(0, 0, device, function)?, gate.clone()))
        });
        let window = DmaWindow::new(Options {
            registers: Gpa(REGISTERS.into()),
            table: Arc::clone(&table),
            functions: functions.collect(),
        });
        let mut root = PciRoot::new(Gpa(ECAM)).ok()?;
        root.add(1, 0, Box::new(window.ok()?)).ok()?;
        let shape = Shape {
            registers: REGISTERS,
            table: TABLE,
            table_size: table.bar_size(),
            top: table.root().table.get(),
            levels: u32::from(table.root().level.number()) + 1,
            bytes: 4096 * table.pages().len() as u64,
        };
        let ids = FUNCTIONS.map(|(device, function)| u32::from(device << 3 | function));
        Some(Self {
            root,
            entries: entries(table.pages()),
            model: Model::new(pieces.clone(), shape, &ids),
            pieces,
            gates: gates.into(),
            seen: Seen {
                high_trees: u64::from(shape.levels > 3),
                ..Seen::default()
            },
            table,
        })
    }

    fn operate(&mut self, input: &mut Input<'_>) {
        match input.byte() % 16 {
            0..=3 => self.register_access(input),
            4 => self.table_access(input),
            5 => {
                let command = input.data(2);
                self.config_write(4, &command);
            }
            6 => self.config_access(input),
            7..=11 => self.query(input),
            12 | 13 => self.name(input),
            14 if input.byte().is_multiple_of(4) => self.reset(),
            _ => self.check(),
        }
    }

    /// An access of any shape to a register or near one.
    fn register_access(&mut self, input: &mut Input<'_>) {
        let choice = input.byte();
        let (offset, length) = match choice % 8 {
            0 => (input.word() % 0x100, usize::from(input.byte() % 17)),
            1 => (input.choose(&OFFSETS), 1),
            2..5 => (input.choose(&OFFSETS), 4),
            _ => (input.choose(&OFFSETS), 8),
        };
        if choice & 0x80 == 0 {
            let data = input.data(length);
            self.register_write(offset, &data);
        } else {
            self.register_read(offset, length);
        }
    }

    fn table_access(&mut self, input: &mut Input<'_>) {
        let choice = input.byte();
        let offset = match choice % 4 {
            0 => self.table.bar_size() - 1 - input.word() % 64,
            1 => self.table.bytes().saturating_sub(input.word() % 64),
            _ => (input.word() << 3 | u64::from(choice >> 2 & 7)) % self.table.bar_size(),
        };
        let length = usize::from(input.byte() % 17);
        if choice & 0x80 == 0 {
            let data = input.data(length);
            self.root.mmio_write(MmioAddress(TABLE), offset, &data);
            self.seen.table_writes += u64::from(self.model.decodes(0x18..0x20));
        } else {
            self.table_read(offset, length);
        }
    }

    fn table_read(&self, offset: u64, length: usize) {
        let mut data = vec![0xaa; length];
        self.root.mmio_read(MmioAddress(TABLE), offset, &mut data);
        for (at, byte) in (offset..).zip(data) {
            let entry = self.entries.get((at / 8) as usize).copied().unwrap_or(0);
            let is_there = self.model.decodes(0x18..0x20) && at < self.table.bar_size();
            let expected = if is_there {
                entry.to_le_bytes()[(at % 8) as usize]
            } else {
                0xff
            };
            assert_eq!(byte, expected, "table at {at:#x}");
        }
    }

    fn config_access(&mut self, input: &mut Input<'_>) {
        let (offset, choice) = (input.word() % 0x140, input.byte());
        let width = 1 << (choice % 3);
        let offset = if choice & 0x40 == 0 {
            0x10 + offset % 0x10
        } else {
            offset
        };
        let offset = offset / width * width;
        if choice & 0x80 == 0 {
            let data = input.data(width as usize);
            self.config_write(offset, &data);
        } else {
            self.config_read(offset, width as usize);
        }
    }

    /// A query in any order of its registers, near memory or anywhere.
    fn query(&mut self, input: &mut Input<'_>) {
        let piece = usize::from(input.byte());
        let piece = self.pieces.get(piece % self.pieces.len().max(1));
        let (near, size) = piece.map_or((0, 1), |piece| (piece.gpa.0, piece.len));
        let gpa = match input.byte() % 8 {
            0 => input.word() << 40,
            1 => u64::MAX - input.word(),
            2 => near.wrapping_sub(input.word()),
            3 => near + size - 1 - input.word() % size,
            4 => near + size,
            _ => near + (input.word() << (input.byte() % 20)) % size,
        };
        let len = match input.byte() % 8 {
            0 => 0,
            1 => u64::MAX,
            2 => 1 << (input.byte() % 64),
            _ => input.word() + 1,
        };
        match input.byte() % 4 {
            0 => {
                self.register_write(0x44, &gpa.to_le_bytes()[4..]);
                self.register_write(0x40, &gpa.to_le_bytes()[..4]);
                self.register_write(0x48, &len.to_le_bytes()[..4]);
                self.register_write(0x4c, &len.to_le_bytes()[4..]);
            }
            _ => {
                self.register_write(0x40, &gpa.to_le_bytes());
                self.register_write(0x48, &len.to_le_bytes());
            }
        }
        self.register_read(0x50, 8);
        self.register_read(0x58, 8);
        self.register_read(0x28, 8);
        let found = self.walk(gpa, len);
        assert_eq!(
            found,
            self.model.translate(gpa, len),
            "{len:#x} bytes at {gpa:#x}"
        );
        self.seen.answered += u64::from(found.1 > 0);
        self.seen.refused += u64::from(found.1 == 0);
    }

    /// The table's result.
    fn walk(&self, gpa: u64, len: u64) -> (u64, u64) {
        let base = TableAddress::new(TABLE);
        let reader = base.map(|base| Window {
            base,
            pages: self.table.pages(),
        });
        let run = reader.map(|reader| walk::run(&reader, self.table.root(), Iova(gpa), len));
        let run = run.and_then(Result::ok);
        assert!(run.is_some(), "the table is malformed at {gpa:#x}");
        run.flatten().map_or((0, 0), |run| (run.hpa.0, run.len))
    }

    fn name(&mut self, input: &mut Input<'_>) {
        let id = self.model.functions[usize::from(input.byte()) % 2].0;
        let value = match input.byte() % 8 {
            0 => input.word() as u32,
            1 => id | (input.word() as u32) << 16,
            2 | 3 => id | 1 << 31,
            _ => id,
        };
        self.register_write(0x60, &value.to_le_bytes());
        self.register_read(0x60, 8);
        match self.model.register(0x64) {
            1 => self.seen.enabled += 1,
            3 | 4 => self.seen.unknown += 1,
            _ => {}
        }
        self.check_gates();
    }

    fn reset(&mut self) {
        self.seen.resets += 1;
        self.root.reset();
        self.model.reset();
    }

    fn register_write(&mut self, offset: u64, data: &[u8]) {
        let base = MmioAddress(REGISTERS.into());
        self.root.mmio_write(base, offset, data);
        for (at, width) in pieces(offset, data.len()) {
            if self.model.decodes(0x10..0x14) && at < 0x1000 {
                let from = (at - offset) as usize;
                self.model.register_write(at, &data[from..from + width]);
            }
        }
    }

    fn register_read(&self, offset: u64, length: usize) {
        let mut data = vec![0xaa; length];
        let base = MmioAddress(REGISTERS.into());
        self.root.mmio_read(base, offset, &mut data);
        for (at, byte) in (offset..).zip(data) {
            let expected = if self.model.decodes(0x10..0x14) && at < 0x1000 {
                self.model.register_byte(at)
            } else {
                0xff
            };
            assert_eq!(byte, expected, "register byte {at:#x}");
        }
    }

    fn config_write(&mut self, offset: u64, data: &[u8]) {
        let base = MmioAddress(ECAM);
        self.root.mmio_write(base, FUNCTION + offset, data);
        self.model.config_write(offset as usize, data);
    }

    fn config_read(&self, offset: u64, length: usize) {
        let mut data = vec![0xaa; length];
        let base = MmioAddress(ECAM);
        self.root.mmio_read(base, FUNCTION + offset, &mut data);
        for (at, byte) in (offset..).zip(data) {
            let expected = self.model.config_read(at as usize);
            assert_eq!(byte, expected, "config space at {at:#x}");
        }
    }

    fn check_gates(&self) {
        for (gate, (id, is_master)) in self.gates.iter().zip(&self.model.functions) {
            assert_eq!(gate.is_open(), *is_master, "gate of {id:#x}");
        }
    }

    /// Everything that can be read but the table.
    fn check(&self) {
        for offset in OFFSETS {
            for width in [1, 2, 4, 8] {
                self.register_read(offset / width * width, width as usize);
            }
        }
        for offset in (0..0x108).step_by(4) {
            self.config_read(offset, 4);
        }
        self.check_gates();
    }

    fn check_table(&self) {
        let now = entries(self.table.pages());
        assert!(now == self.entries, "the table changed");
    }
}

fn entries(pages: &[TablePage]) -> Vec<u64> {
    let entry = |page: &TablePage, index| page.load(index).map_or(0, |entry| entry.0);
    let page = |page| (0..512).map(move |index| entry(page, index));
    pages.iter().flat_map(page).collect()
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
