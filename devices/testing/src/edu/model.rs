// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The engine once more, as plainly as possible: config space byte by byte, data byte by byte,
//! nothing concurrent. Written down apart from the product, to check it.

use devices::pci::MsiMessage;

use super::outside::{Event, Ram};

/// Offset of the MSI capability: the first behind the header.
const MSI: usize = 0x40;
const BUFFER: u64 = 0x40000;
const SIZE: u64 = 65536;

pub(super) struct Model {
    pub ram: Ram,
    pub buffer: Vec<u8>,
    home: u64,
    line_number: u8,
    config: [u8; 256],
    liveness: u32,
    fact: u32,
    computing: bool,
    fact_interrupt: bool,
    status: u32,
    dma: [u64; 4],
    pub refused: u64,
    last: (u64, u64),
    pending: bool,
    line: bool,
    events: Vec<Event>,
}

impl Model {
    pub fn new(ram: Ram, home: u64, line_number: u8) -> Self {
        let mut model = Self {
            ram,
            home,
            line_number,
            buffer: Vec::new(),
            config: [0; 256],
            liveness: 0,
            fact: 0,
            computing: false,
            fact_interrupt: false,
            status: 0,
            dma: [0; 4],
            refused: 0,
            last: (0, 0),
            pending: false,
            line: false,
            events: Vec::new(),
        };
        model.power_on();
        model
    }

    fn power_on(&mut self) {
        self.buffer = vec![0; SIZE as usize];
        self.config = [0; 256];
        for (at, bytes) in [
            (
                0x00,
                &[0x34, 0x12, 0xe8, 0x11, 0, 0, 0x10, 0, 0x10, 0, 0, 0xff][..],
            ),
            (0x10, &(self.home | 4).to_le_bytes()),
            (0x2c, &[0xf4, 0x1a, 0x00, 0x11]),
            (0x34, &[0x40]),
            (0x3c, &[self.line_number, 1]),
            (MSI, &[5, 0, 0x80, 0x01]),
        ] {
            self.config[at..at + bytes.len()].copy_from_slice(bytes);
        }
        self.liveness = 0;
        self.fact = 0;
        self.computing = false;
        self.fact_interrupt = false;
        self.status = 0;
        self.dma = [0; 4];
        self.refused = 0;
        self.last = (0, 0);
    }

    pub fn reset(&mut self) {
        self.power_on();
        self.settle();
    }

    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Whether the BAR answers at home.
    pub fn decodes(&self) -> bool {
        self.config[4] & 2 != 0
            && self.dword(0x10) & 0xffff_fff0 == (self.home & 0xffff_ffff) as u32
            && u64::from(self.dword(0x14)) == self.home >> 32
    }

    pub fn is_master(&self) -> bool {
        self.config[4] & 4 != 0
    }

    pub fn config_read(&self, offset: usize) -> u8 {
        match offset {
            0x06 => self.config[6] | u8::from(self.status != 0 && !self.msi_on()) << 3,
            MSI_PENDING => self.pending.into(),
            _ => self.config.get(offset).copied().unwrap_or(0xff),
        }
    }

    pub fn config_write(&mut self, offset: usize, data: &[u8]) {
        for (at, byte) in (offset..).zip(data) {
            let mask = match at {
                0x04 => 0x07,
                0x05 => 0x04,
                0x0c | 0x13..0x18 | 0x3c => 0xff,
                0x12 => 0xf0,
                0x42 => 0x01,
                0x44 => 0xfc,
                0x45..0x4e => 0xff,
                0x50 => 0x01,
                _ => 0,
            };
            if let Some(old) = self.config.get_mut(at) {
                *old = *old & !mask | byte & mask;
            }
        }
        self.settle();
    }

    pub fn bar_read(&self, offset: u64, width: usize) -> u64 {
        if width < 4 || width == 8 && offset < 0x80 {
            return u64::MAX;
        }
        match offset {
            0x00 => 0x0100_00ed,
            0x04 => self.liveness.into(),
            0x08 => self.fact.into(),
            0x20 => u64::from(self.computing) | u64::from(self.fact_interrupt) << 7,
            0x24 => self.status.into(),
            0x80 | 0x88 | 0x90 | 0x98 => self.dma[(offset as usize - 0x80) / 8],
            0xa0 => 0x4553_5650,
            0xa4 => SIZE,
            0xa8 => self.refused,
            0xb0 => self.last.0,
            0xb8 => self.last.1,
            _ => u64::MAX,
        }
    }

    pub fn bar_write(&mut self, offset: u64, width: usize, value: u64) {
        if width < 4 || width == 8 && offset < 0x80 {
            return;
        }
        let low = value as u32;
        match offset {
            0x04 => self.liveness = u32::MAX - low,
            0x08 if !self.computing => {
                self.fact = low;
                self.computing = true;
            }
            0x20 => self.fact_interrupt = low >> 7 & 1 == 1,
            0x60 => self.raise(low),
            0x64 => {
                self.status &= u32::MAX - low;
                self.settle();
            }
            0x80 | 0x88 | 0x90 if !self.is_transferring() => {
                self.dma[(offset as usize - 0x80) / 8] = value;
            }
            0x98 if !self.is_transferring() && value % 2 == 1 => self.dma[3] = value,
            _ => {}
        }
    }

    /// What the worker does in one step.
    pub fn step(&mut self) -> bool {
        if self.computing {
            let product = (1..=u128::from(self.fact))
                .take_while(|n| *n < 64)
                .fold(1, |product, n| product * n % (1 << 32));
            self.fact = product as u32;
            self.computing = false;
            if self.fact_interrupt {
                self.raise(1);
            }
            return true;
        }
        if !self.is_transferring() {
            return false;
        }
        if let Err((address, length)) = self.transfer() {
            self.refused += 1;
            self.last = (address, length);
        }
        self.dma[3] -= 1;
        if self.dma[3] & 4 != 0 {
            self.raise(0x100);
        }
        true
    }

    fn is_transferring(&self) -> bool {
        self.dma[3] % 2 == 1
    }

    fn transfer(&mut self) -> Result<(), (u64, u64)> {
        let [source, destination, count, command] = self.dma;
        let to_memory = command & 2 != 0;
        let (bus, device) = if to_memory {
            (destination, source)
        } else {
            (source, destination)
        };
        let whole = (bus, count);
        let end = u128::from(device) + u128::from(count);
        let inside = device >= BUFFER && end <= u128::from(BUFFER + SIZE);
        if count == 0 || !inside || u128::from(bus) + u128::from(count) > 1 << 64 {
            return Err(whole);
        }
        for done in 0..count {
            let address = bus + done;
            if done == 0 || address % 256 == 0 {
                let length = (256 - address % 256).min(count - done);
                let missing = (0..length).any(|at| self.ram.byte(address + at).is_none());
                if missing || !self.is_master() {
                    return Err((address, length));
                }
            }
            let inner = &mut self.buffer[(device - BUFFER + done) as usize];
            if let Some(outer) = self.ram.byte(address) {
                if to_memory {
                    *outer = *inner;
                } else {
                    *inner = *outer;
                }
            }
        }
        Ok(())
    }

    fn raise(&mut self, bits: u32) {
        self.status |= bits;
        if self.status != 0 && self.msi_on() {
            self.pending = true;
        }
        self.settle();
    }

    fn settle(&mut self) {
        if self.status == 0 || !self.msi_on() {
            self.pending = false;
        }
        if self.pending && self.config[0x50] & 1 == 0 {
            self.pending = false;
            if self.is_master() {
                self.events.push(Event::Message(MsiMessage {
                    address: u64::from(self.dword(0x48)) << 32 | u64::from(self.dword(0x44)),
                    data: self.dword(0x4c),
                }));
            }
        }
        let line = self.status != 0 && !self.msi_on() && self.config[5] & 4 == 0;
        if line != self.line {
            self.line = line;
            self.events.push(Event::Line(line));
        }
    }

    fn msi_on(&self) -> bool {
        self.config[0x42] & 1 == 1
    }

    fn dword(&self, at: usize) -> u32 {
        (0..4).rev().fold(0, |dword, byte| {
            dword << 8 | u32::from(self.config[at + byte])
        })
    }
}

const MSI_PENDING: usize = MSI + 0x14;
