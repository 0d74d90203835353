// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The ITS: what makes interrupts of messages (Arm IHI 0069, chapter 5).

use alloc::collections::BTreeMap;
use core::ops::Range;
use core::ptr;

use address::Gpa;

use super::controller::pages;
use crate::bare::mmio::Mmio;

/// The only event of each device: the data of its messages.
pub const EVENT: u32 = 0;

const CONTROL: u64 = 0;
const QUEUE: u64 = 0x80;
const WRITTEN: u64 = 0x88;
const READ: u64 = 0x90;
const TABLES: Range<u64> = 0x100..0x140;
/// Where messages are written to.
const TRANSLATER: u64 = 0x1_0040;

const ENABLED: u32 = 1;
const VALID: u64 = 1 << 63;
/// Inner cacheable and inner shareable.
const SHARED_CACHED: u64 = 7 << 59 | 1 << 10;
/// Kinds of tables.
const DEVICES: u64 = 1;
const COLLECTIONS: u64 = 4;
const PAGES_64K: u64 = 2 << 8;
const PAGE_64K: usize = 1 << 16;

const QUEUE_BYTES: u64 = 4096;
const COMMAND: u64 = 32;
const SYNC: u64 = 5;
const MAP_DEVICE: u64 = 8;
const MAP_COLLECTION: u64 = 9;
const MAP_EVENT: u64 = 10;

/// Bytes of a device's table of two events, and what it is a multiple of.
const EVENTS: usize = 256;

/// The ITS. Collections have the numbers of redistributors, by which KVM names processors, too (GITS_TYPER.PTA is 0 there).
#[derive(Debug)]
pub struct Its {
    registers: Mmio,
    base: Gpa,
    queue: u64,
    tail: u64,
    /// Tables of devices' events, by requester ID.
    events: BTreeMap<u32, u64>,
}

impl Its {
    /// Takes it into use.
    ///
    /// # Safety
    /// Its registers are there, mapped as a device's, and used by nothing else.
    pub unsafe fn new(range: &Range<Gpa>) -> Self {
        // SAFETY: as the caller promises.
        let registers = unsafe { Mmio::new(range.clone()) };
        registers.set32(CONTROL, 0);
        for table in TABLES.step_by(8) {
            let kind = registers.get64(table) >> 56 & 7;
            if kind == DEVICES || kind == COLLECTIONS {
                let memory = pages(PAGE_64K, PAGE_64K);
                registers.set64(table, VALID | SHARED_CACHED | PAGES_64K | memory);
            }
        }
        let queue = pages(QUEUE_BYTES as usize, PAGE_64K);
        registers.set64(QUEUE, VALID | SHARED_CACHED | queue);
        registers.set64(WRITTEN, 0);
        registers.set32(CONTROL, ENABLED);
        Self {
            registers,
            base: range.start,
            queue,
            tail: 0,
            events: BTreeMap::new(),
        }
    }

    /// Where messages go.
    pub fn message_address(&self) -> u64 {
        self.base.0 + TRANSLATER
    }

    /// Makes a collection for the processor with this redistributor.
    pub fn add_processor(&mut self, number: usize) {
        let number = number as u64;
        self.command([MAP_COLLECTION, 0, VALID | number << 16 | number, 0]);
        self.sync(number);
    }

    /// Has the messages of a device raise `interrupt` on a processor.
    pub fn route(&mut self, requester: u32, interrupt: u32, number: usize) {
        let device = u64::from(requester) << 32;
        let events = *(self.events.entry(requester)).or_insert_with(|| pages(EVENTS, EVENTS));
        self.command([MAP_DEVICE | device, 0, VALID | events, 0]);
        let event = u64::from(EVENT) | u64::from(interrupt) << 32;
        self.command([MAP_EVENT | device, event, number as u64, 0]);
        self.sync(number as u64);
    }

    fn sync(&mut self, number: u64) {
        self.command([SYNC, 0, number << 16, 0]);
    }

    /// Has a command executed.
    fn command(&mut self, command: [u64; 4]) {
        let at = ptr::with_exposed_provenance_mut::<[u64; 4]>((self.queue + self.tail) as usize);
        // SAFETY: the tail is inside the queue, which only this function writes to.
        unsafe { at.write_volatile(command) };
        self.tail = (self.tail + COMMAND) % QUEUE_BYTES;
        self.registers.set64(WRITTEN, self.tail);
        while self.registers.get64(READ) != self.tail {
            core::hint::spin_loop();
        }
    }
}
