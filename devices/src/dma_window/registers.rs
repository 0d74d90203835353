// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The register file.

use address::{Bdf, Gpa};
use amdv1::TablePage;

use crate::guest_table::GuestTable;
use crate::vfio_pci::BusMasterGate;

/// Vendor ID: the one under which emulated devices go, not registered for this.
pub const VENDOR: u16 = 0x1234;
/// Device ID: not registered either.
pub const DEVICE: u16 = 0x7057;
/// Register 0x00: "PVDW" in ASCII.
pub(super) const MAGIC: u32 = 0x5744_5650;
/// Register 0x04, and the function's revision ID.
pub const VERSION: u8 = 1;
/// Register 0x08: table, query and enable registers are there.
pub(super) const FEATURES: u32 = 0b111;
/// Bytes of BAR 0.
pub const REGISTERS_SIZE: u64 = 0x1000;

/// Register 0x64: no function was named since reset.
pub(super) const STATUS_NONE: u32 = 0;
/// Register 0x64: the function may be a bus master.
pub(super) const STATUS_ENABLED: u32 = 1;
/// Register 0x64: the function may not be a bus master.
pub(super) const STATUS_DISABLED: u32 = 2;
/// Register 0x64: there is no such function, or it does not need the window.
pub(super) const STATUS_UNKNOWN: u32 = 3;
/// Register 0x64: what was written has no meaning.
pub(super) const STATUS_REFUSED: u32 = 4;

const LENGTH_HIGH: u64 = 0x4c;
const FUNCTION: u64 = 0x60;

const FUNCTION_DISABLE: u32 = 1 << 31;
/// Neither that nor the function's name.
const FUNCTION_RESERVED: u32 = 0x7fff_0000;

/// The table of a window does not change, so this is its first and only generation.
const GENERATION: u64 = 1;

/// So many changes of functions are logged as news between resets.
const NEWS: u32 = 16;

/// A 64-bit register that is written in halves.
#[derive(Clone, Copy, Debug, Default)]
struct Wide(u64);

impl Wide {
    fn set_low(&mut self, value: u32) {
        self.0 = self.0 & !u64::from(u32::MAX) | u64::from(value);
    }

    fn set_high(&mut self, value: u32) {
        self.0 = self.0 & u64::from(u32::MAX) | u64::from(value) << 32;
    }
}

/// A function whose bus mastering the guest enables here.
#[derive(Clone, Debug)]
pub(super) struct Gated {
    pub bdf: Bdf,
    pub gate: BusMasterGate,
}

/// What reset clears.
#[derive(Clone, Debug, Default)]
struct State {
    gpa: Wide,
    len: Wide,
    hpa: u64,
    contiguous: u64,
    refused: u64,
    /// The function register; nothing was named before it was written.
    function: Option<u32>,
    news: u32,
}

/// The registers.
#[derive(Clone, Debug)]
pub(super) struct Registers {
    /// Those at 0x08, 0x10 and 0x18, which locate the table.
    table: [u64; 3],
    functions: Vec<Gated>,
    state: State,
}

impl Registers {
    /// Registers of a window with this table, for these functions, whose gates are closed.
    pub fn new<P>(table: &GuestTable<P>, functions: Vec<Gated>) -> Self
    where
        P: AsRef<[TablePage]>,
    {
        let root = table.root();
        let levels = u64::from(root.level.number()) + 1;
        let registers = Self {
            table: [
                u64::from(FEATURES) | levels << 32,
                root.table.get(),
                table.bytes(),
            ],
            functions,
            state: State::default(),
        };
        registers.close_gates();
        registers
    }

    /// Reads `data.len()` bytes, at most 8 and not across a multiple of 8, at `offset`.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        read_part(self.word(offset & !7), offset, data);
    }

    /// Writes 4 or 8 bytes; anything else is dropped. 8 bytes are the lower 4 and then the upper.
    pub fn write<P>(&mut self, offset: u64, data: &[u8], table: &GuestTable<P>)
    where
        P: AsRef<[TablePage]>,
    {
        match *data {
            [a, b, c, d] => self.write_dword(offset, u32::from_le_bytes([a, b, c, d]), table),
            [a, b, c, d, e, f, g, h] => {
                self.write_dword(offset, u32::from_le_bytes([a, b, c, d]), table);
                self.write_dword(offset | 4, u32::from_le_bytes([e, f, g, h]), table);
            }
            _ => {}
        }
    }

    /// Back to power-on: nothing asked, no function a bus master.
    pub fn reset(&mut self) {
        self.state = State::default();
        self.close_gates();
    }

    fn word(&self, offset: u64) -> u64 {
        let state = &self.state;
        match offset {
            0x00 => u64::from(MAGIC) | u64::from(VERSION) << 32,
            0x08 => self.table[0],
            0x10 => self.table[1],
            0x18 => self.table[2],
            0x20 => GENERATION,
            0x28 => state.refused,
            0x40 => state.gpa.0,
            0x48 => state.len.0,
            0x50 => state.hpa,
            0x58 => state.contiguous,
            FUNCTION => u64::from(state.function.unwrap_or(0)) | u64::from(self.status()) << 32,
            _ => 0,
        }
    }

    fn write_dword<P>(&mut self, offset: u64, value: u32, table: &GuestTable<P>)
    where
        P: AsRef<[TablePage]>,
    {
        match offset {
            0x40 => self.state.gpa.set_low(value),
            0x44 => self.state.gpa.set_high(value),
            0x48 => self.state.len.set_low(value),
            LENGTH_HIGH => {
                self.state.len.set_high(value);
                self.query(table);
            }
            FUNCTION => self.name(value),
            _ => {}
        }
    }

    fn query<P: AsRef<[TablePage]>>(&mut self, table: &GuestTable<P>) {
        let run = table.translate(Gpa(self.state.gpa.0), self.state.len.0);
        let state = &mut self.state;
        (state.hpa, state.contiguous) = run.map_or((0, 0), |run| (run.hpa.0, run.len));
        state.refused = state.refused.saturating_add(u64::from(run.is_none()));
    }

    /// Names a function, and opens or closes its gate.
    fn name(&mut self, value: u32) {
        self.state.function = Some(value);
        let Some(named) = self.named() else {
            return;
        };
        let (before, now) = (named.gate.is_open(), value & FUNCTION_DISABLE == 0);
        if before == now {
            return;
        }
        let (bdf, what) = if now {
            named.gate.open();
            (named.bdf, "lets")
        } else {
            named.gate.close();
            (named.bdf, "no longer lets")
        };
        let level = match self.state.news {
            ..NEWS => log::Level::Info,
            NEWS.. => log::Level::Debug,
        };
        self.state.news = self.state.news.saturating_add(1);
        log::log!(level, "DMA window: the guest {what} {bdf} be a bus master");
    }

    /// The function that the register names, if there is one.
    fn named(&self) -> Option<&Gated> {
        let value = self.state.function?;
        let mut functions = self.functions.iter();
        functions.find(|gated| u32::from(gated.bdf.routing_id()) == value & !FUNCTION_DISABLE)
    }

    fn status(&self) -> u32 {
        match (self.state.function, self.named()) {
            (None, _) => STATUS_NONE,
            (_, Some(named)) if named.gate.is_open() => STATUS_ENABLED,
            (_, Some(_)) => STATUS_DISABLED,
            (Some(value), None) if value & FUNCTION_RESERVED != 0 => STATUS_REFUSED,
            (Some(_), None) => STATUS_UNKNOWN,
        }
    }

    fn close_gates(&self) {
        for gated in &self.functions {
            gated.gate.close();
        }
    }
}

/// Copies from `word` the bytes that an access at `offset` covers.
pub(super) fn read_part(word: u64, offset: u64, data: &mut [u8]) {
    let shifted = word >> (8 * (offset & 7));
    for (byte, value) in data.iter_mut().zip(shifted.to_le_bytes()) {
        *byte = value;
    }
}
