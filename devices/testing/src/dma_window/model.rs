// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The window as its specification has it, byte by byte.

use std::collections::BTreeMap;

use devices::guest_table::Piece;

/// A function that the window has: its name on the bus and whether it may be a bus master.
pub(super) type Function = (u32, bool);

/// What is behind an address of the guest: config space, registers, and two functions' gates.
#[derive(Clone, Debug)]
pub(super) struct Model {
    pieces: Vec<Piece>,
    config: [u8; 256],
    writable: [u8; 256],
    initial: [u8; 256],
    /// The registers that are not 0, by offset.
    registers: BTreeMap<u64, u32>,
    fixed: BTreeMap<u64, u32>,
    pub functions: Vec<Function>,
}

/// Where the BARs are, and what the table looks like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub registers: u32,
    pub table: u64,
    pub table_size: u64,
    pub top: u64,
    pub levels: u32,
    pub bytes: u64,
}

impl Model {
    pub fn new(mut pieces: Vec<Piece>, shape: Shape, functions: &[u32]) -> Self {
        pieces.sort_by_key(|piece| piece.gpa);
        let mut config = [0; 256];
        let mut writable = [0; 256];
        let size_mask = !(shape.table_size - 1);
        for (offset, value, mask) in [
            (0x00, 0x7057_1234, 0),
            (0x04, 0, 0x0407),
            (0x08, 0x0880_0001, 0),
            (0x0c, 0, 0xff),
            (0x10, shape.registers, 0xffff_f000),
            (0x18, shape.table as u32 | 0xc, size_mask as u32 & !0xf),
            (0x1c, (shape.table >> 32) as u32, (size_mask >> 32) as u32),
            (0x2c, 0x7057_1234, 0),
            (0x3c, 0, 0xff),
        ] {
            config[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
            writable[offset..offset + 4].copy_from_slice(&u32::to_le_bytes(mask));
        }
        let fixed = BTreeMap::from([
            (0x00, u32::from_le_bytes(*b"PVDW")),
            (0x04, 1),
            (0x08, 7),
            (0x0c, shape.levels),
            (0x10, shape.top as u32),
            (0x14, (shape.top >> 32) as u32),
            (0x18, shape.bytes as u32),
            (0x1c, (shape.bytes >> 32) as u32),
            (0x20, 1),
        ]);
        Self {
            pieces,
            config,
            writable,
            initial: config,
            registers: fixed.clone(),
            fixed,
            functions: functions.iter().map(|id| (*id, false)).collect(),
        }
    }

    pub fn reset(&mut self) {
        self.config = self.initial;
        self.registers.clone_from(&self.fixed);
        for (_, is_master) in &mut self.functions {
            *is_master = false;
        }
    }

    pub fn config_read(&self, offset: usize) -> u8 {
        self.config.get(offset).copied().unwrap_or(0xff)
    }

    pub fn config_write(&mut self, offset: usize, data: &[u8]) {
        for (at, value) in (offset..).zip(data) {
            if let (Some(byte), Some(mask)) = (self.config.get_mut(at), self.writable.get(at)) {
                *byte = *byte & !mask | value & mask;
            }
        }
    }

    /// Whether the function answers at the first address of the BAR in registers `bar`.
    pub fn decodes(&self, bar: std::ops::Range<usize>) -> bool {
        self.config[4] & 2 != 0 && self.config[bar.clone()] == self.initial[bar]
    }

    pub fn register(&self, offset: u64) -> u32 {
        self.registers.get(&offset).copied().unwrap_or(0)
    }

    pub fn wide(&self, offset: u64) -> u64 {
        u64::from(self.register(offset)) | u64::from(self.register(offset + 4)) << 32
    }

    pub fn register_byte(&self, offset: u64) -> u8 {
        self.register(offset & !3).to_le_bytes()[(offset & 3) as usize]
    }

    pub fn register_write(&mut self, offset: u64, data: &[u8]) {
        if data.len() != 4 && data.len() != 8 {
            return;
        }
        for (at, dword) in (offset..).step_by(4).zip(data.chunks(4)) {
            let value = dword
                .iter()
                .rev()
                .fold(0, |all, byte| all << 8 | u32::from(*byte));
            match at {
                0x40 | 0x44 | 0x48 | 0x4c => {
                    self.registers.insert(at, value);
                }
                0x60 => self.name(value),
                _ => {}
            }
            if at == 0x4c {
                self.query();
            }
        }
    }

    /// Where `gpa` lies and how many bytes from there on are contiguous.
    pub fn translate(&self, gpa: u64, len: u64) -> (u64, u64) {
        let (mut hpa, mut found) = (0, 0);
        // Ascending, so that each piece is looked at after the one before it.
        for piece in &self.pieces {
            let Some(at) = gpa.checked_add(found) else {
                break;
            };
            let Some(offset) = at.checked_sub(piece.gpa.0).filter(|at| *at < piece.len) else {
                continue;
            };
            let here = piece.hpa.0 + offset;
            if found == 0 {
                hpa = here;
            } else if here != hpa + found {
                break;
            }
            found += piece.len - offset;
        }
        if len == 0 || found == 0 {
            (0, 0)
        } else {
            (hpa, found.min(len))
        }
    }

    fn query(&mut self) {
        let (hpa, len) = self.translate(self.wide(0x40), self.wide(0x48));
        self.set_wide(0x50, hpa);
        self.set_wide(0x58, len);
        if len == 0 {
            self.set_wide(0x28, self.wide(0x28) + 1);
        }
    }

    fn name(&mut self, value: u32) {
        let known = self
            .functions
            .iter_mut()
            .find(|(id, _)| *id == value & 0x7fff_ffff);
        let status = match known {
            _ if value & 0x7fff_0000 != 0 => 4,
            None => 3,
            Some((_, is_master)) => {
                *is_master = value >> 31 == 0;
                if *is_master { 1 } else { 2 }
            }
        };
        self.registers.insert(0x60, value);
        self.registers.insert(0x64, status);
    }

    fn set_wide(&mut self, offset: u64, value: u64) {
        self.registers.insert(offset, value as u32);
        self.registers.insert(offset + 4, (value >> 32) as u32);
    }
}
