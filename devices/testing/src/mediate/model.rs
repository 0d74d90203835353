// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a guest sees of a mediated engine, as plainly as possible. Written down apart from the
//! product, to check it.

use crate::edu::Ram;

use super::host::BAR;
use super::memory::GuestMemory;

/// The engine and its mediator in one.
pub(super) struct Model {
    guest: GuestMemory,
    pub ram: Ram,
    buffer: Vec<u8>,
    /// Source, destination and count as the guest wrote them.
    pub dma: [u64; 3],
    /// The last command that was started; bit 0 while it is not done.
    command: u64,
    /// What it started: GPA, offset in the buffer, bytes.
    work: (u64, usize, u64),
    pub started: u64,
    pub refused: u64,
    pub busy: u64,
    pub ignored: u64,
    pub pci_command: u8,
    pub bar: u32,
}

impl Model {
    pub fn new(guest: GuestMemory) -> Self {
        Self {
            ram: guest.ram(),
            guest,
            buffer: vec![0; 0x1000],
            dma: [0; 3],
            command: 0,
            work: (0, 0, 0),
            started: 0,
            refused: 0,
            busy: 0,
            ignored: 0,
            pci_command: 6,
            bar: BAR as u32,
        }
    }

    pub fn reset(&mut self) {
        self.buffer.fill(0);
        self.dma = [0; 3];
        self.command = 0;
        self.pci_command = 0;
        self.bar = BAR as u32;
    }

    /// Whether the BAR answers where it was.
    pub fn decodes(&self) -> bool {
        self.pci_command & 2 != 0 && u64::from(self.bar & 0xfff0_0000) == BAR
    }

    /// A store of a DMA register, naturally aligned.
    pub fn write(&mut self, offset: u64, width: usize, value: u64) {
        if !self.decodes() {
            return;
        }
        if width < 4 || !offset.is_multiple_of(8) {
            self.ignored += 1;
            return;
        }
        match offset {
            0x80 => self.dma[0] = value,
            0x88 => self.dma[1] = value,
            0x90 => self.dma[2] = value,
            _ if value & 1 != 0 => self.start(value),
            _ => {}
        }
    }

    /// A load of a DMA register, naturally aligned.
    pub fn read(&mut self, offset: u64, width: usize) -> u64 {
        let ones = u64::MAX >> (64 - 8 * width);
        if !self.decodes() {
            return ones;
        }
        if width < 4 || !offset.is_multiple_of(8) {
            // The command register answers, or does not, itself.
            self.ignored += u64::from(offset < 0x98);
            return ones;
        }
        let value = match offset {
            0x80 => self.dma[0],
            0x88 => self.dma[1],
            0x90 => self.dma[2],
            _ => self.command,
        };
        value & ones
    }

    /// The transfer that a start would begin, if it may: GPA, offset in the buffer, bytes.
    fn plan(&self, command: u64) -> Option<(u64, usize, u64)> {
        let [source, destination, count] = self.dma;
        let (gpa, device) = if command & 2 == 0 {
            (source, destination)
        } else {
            (destination, source)
        };
        let fits = (1..=0x1000).contains(&count)
            && (0x40000..0x41000).contains(&device)
            && device + count <= 0x41000;
        self.guest.contiguous(gpa, if fits { count } else { 1 })?;
        fits.then(|| (gpa, device as usize - 0x40000, count))
    }

    fn start(&mut self, command: u64) {
        match self.plan(command) {
            None => self.refused += 1,
            Some(_) if self.command & 1 != 0 => self.busy += 1,
            Some(work) => {
                self.started += 1;
                // Start, direction, and an interrupt at the end.
                self.command = command & 7;
                self.work = work;
            }
        }
    }

    /// Does what was started; false if nothing was.
    pub fn step(&mut self) -> bool {
        if self.command & 1 == 0 {
            return false;
        }
        self.command &= !1;
        let (gpa, at, count) = self.work;
        for step in 0..if self.pci_command & 4 != 0 { count } else { 0 } {
            let hpa = self.guest.byte(gpa + step).unwrap_or_default();
            let byte = &mut self.buffer[at + step as usize];
            if let Some(memory) = self.ram.byte(hpa) {
                if self.command & 2 == 0 {
                    *byte = *memory;
                } else {
                    *memory = *byte;
                }
            }
        }
        true
    }
}
