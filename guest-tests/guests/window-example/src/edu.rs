// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! QEMU's `edu` device (its documentation is docs/specs/edu): copies up to 4 KiB between memory and
//! its own buffer.

use std::sync::atomic::{Ordering, fence};
use std::thread;
use std::time::{Duration, Instant};

use address::Hpa;
use anyhow::{Result, bail, ensure};
use dma_window::Run;

use crate::mapping::Mapping;

pub const VENDOR: u16 = 0x1234;
pub const DEVICE: u16 = 0x11e8;

/// Bytes of the device's buffer.
pub const BUFFER: u64 = 4096;
/// Where it begins, for the device. QEMU ends itself when a transfer leaves the buffer.
const BUFFER_START: u64 = 0x4_0000;

const IDENTIFICATION: u64 = 0x00;
// These take one store of 8 bytes.
const SOURCE: u64 = 0x80;
const DESTINATION: u64 = 0x88;
const COUNT: u64 = 0x90;
const COMMAND: u64 = 0x98;

const START: u64 = 1;
const TO_MEMORY: u64 = 2;

/// A transfer takes 100 ms.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(10);

/// Where data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    ToDevice,
    ToMemory,
}

/// The device.
#[derive(Debug)]
pub struct Edu(Mapping);

impl Edu {
    pub fn open(registers: Mapping) -> Result<Self> {
        let found = registers.read32(IDENTIFICATION);
        ensure!(found & 0xff == 0xed, "edu identifies itself as {found:#x}");
        Ok(Self(registers))
    }

    /// Moves `run.len` bytes between the device's buffer, from `offset` on, and memory at `run.hpa`: an address
    /// as the device needs it.
    pub fn transfer(&self, direction: Direction, offset: u64, run: Run) -> Result<()> {
        let Run {
            hpa: Hpa(memory),
            len,
        } = run;
        let end = offset.saturating_add(len);
        ensure!(
            len > 0 && end <= BUFFER,
            "{len:#x} bytes at {offset:#x} do not fit into edu"
        );
        let device = BUFFER_START + offset;
        let (source, destination, command) = match direction {
            Direction::ToDevice => (memory, device, START),
            Direction::ToMemory => (device, memory, START | TO_MEMORY),
        };
        self.0.write64(SOURCE, source);
        self.0.write64(DESTINATION, destination);
        self.0.write64(COUNT, len);
        // The device must see what was written to the buffer before.
        fence(Ordering::SeqCst);
        self.0.write64(COMMAND, command);
        let deadline = Instant::now() + TRANSFER_TIMEOUT;
        while self.0.read64(COMMAND) & START != 0 {
            if Instant::now() > deadline {
                bail!("edu does not end a transfer; it has memory address {memory:#x}");
            }
            thread::sleep(Duration::from_millis(1));
        }
        fence(Ordering::SeqCst);
        Ok(())
    }
}
