// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! QEMU's `edu` device (its documentation is docs/specs/edu) and the monitor's own engine, which
//! has the same registers and some more.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use stress_format::{FindingKind, Interrupt};

use super::{Direction, Engine, Outcome, Transfer};
use crate::dma_address::DmaMap;
use crate::registers::Registers;
use crate::shape::Limits;
use crate::signals::{Ended, Signals, Wait};

/// PCI vendor and device.
pub const ID: (u16, u16) = (0x1234, 0x11e8);

const IDENTIFICATION: u64 = 0x00;
const LIVENESS: u64 = 0x04;
const FACTORIAL: u64 = 0x08;
const STATUS: u64 = 0x20;
const IRQ_STATUS: u64 = 0x24;
const IRQ_ACK: u64 = 0x64;
const DMA_SOURCE: u64 = 0x80;
const DMA_DESTINATION: u64 = 0x88;
const DMA_COUNT: u64 = 0x90;
const DMA_COMMAND: u64 = 0x98;
/// The monitor's engine only: reads as [`SOFTWARE`].
const SIGNATURE: u64 = 0xa0;
/// The monitor's engine only: bytes of its buffer.
const BUFFER_BYTES: u64 = 0xa4;
/// The monitor's engine only: transfers that it refused, then the last one's address and length.
const REFUSED: u64 = 0xa8;
const REFUSED_ADDRESS: u64 = 0xb0;
const REFUSED_BYTES: u64 = 0xb8;

/// Identification, but for the version in its upper half.
const EDU: u32 = 0xed;
/// "PVSE".
const SOFTWARE: u32 = 0x4553_5650;

const STATUS_COMPUTING: u32 = 1;
const STATUS_INTERRUPT: u32 = 1 << 7;

const COMMAND_START: u64 = 1;
const COMMAND_TO_MEMORY: u64 = 2;
const COMMAND_INTERRUPT: u64 = 4;

/// Where the device's buffer begins for its DMA engine. QEMU ends itself when a transfer leaves
/// the buffer.
const BUFFER: u64 = 0x4_0000;
/// Bytes of QEMU's buffer.
const QEMU_BUFFER: u64 = 4096;
/// Largest buffer that an engine is believed to have.
const MAX_BUFFER: u64 = 1 << 20;

/// A little less than QEMU takes.
const ASK_AFTER_MS: u64 = 50;
/// A transfer takes 100 ms of the emulator's time.
const TIMEOUT_MS: u64 = 20_000;

/// The driver.
#[derive(Debug)]
pub struct Edu<R, S> {
    registers: R,
    signals: S,
    dma: DmaMap,
    kind: Interrupt,
    buffer: u64,
    refused: u64,
}

impl<R: Registers, S: Signals> Edu<R, S> {
    /// The driver of the device with these registers; `None` if they are of another one.
    pub fn new(registers: R, signals: S, dma: DmaMap) -> Option<Self> {
        if registers.read32(IDENTIFICATION) & 0xff != EDU {
            return None;
        }
        let buffer = match registers.read32(SIGNATURE) {
            SOFTWARE => u64::from(registers.read32(BUFFER_BYTES)).clamp(1, MAX_BUFFER),
            _ => QEMU_BUFFER,
        };
        Some(Self {
            registers,
            signals,
            dma,
            kind: Interrupt::Polling,
            buffer,
            refused: 0,
        })
    }

    /// Whether it is the monitor's own.
    pub fn is_software(&self) -> bool {
        self.registers.read32(SIGNATURE) == SOFTWARE
    }

    /// Tries what is no DMA: the liveness register, and factorials with and without an interrupt.
    ///
    /// # Errors
    /// What is wrong.
    pub fn self_test(&mut self) -> Result<(), &'static str> {
        for value in [0, 0x1234_5678, u32::MAX] {
            self.registers.write32(LIVENESS, value);
            if self.registers.read32(LIVENESS) != !value {
                return Err("the liveness register does not invert");
            }
        }
        for kind in self.signals.kinds() {
            self.signals.select(kind)?;
            for (of, factorial) in [(1, 1), (5, 120), (12, 479_001_600)] {
                if self.factorial(of, kind)? != factorial {
                    return Err("a factorial is wrong");
                }
            }
        }
        Ok(())
    }

    fn factorial(&self, of: u32, kind: Interrupt) -> Result<u32, &'static str> {
        let interrupt = kind != Interrupt::Polling;
        let seen = self.signals.count();
        let status = if interrupt { STATUS_INTERRUPT } else { 0 };
        self.registers.write32(STATUS, status);
        self.registers.write32(FACTORIAL, of);
        let ended = self.wait(kind, seen, || {
            self.registers.read32(STATUS) & STATUS_COMPUTING == 0
        });
        self.registers.write32(STATUS, 0);
        match ended {
            Ended::Done => Ok(self.registers.read32(FACTORIAL)),
            Ended::Lost => Err("the interrupt of a factorial did not come"),
            Ended::TimedOut => Err("a factorial does not end"),
        }
    }

    fn wait(&self, kind: Interrupt, seen: u64, is_done: impl Fn() -> bool) -> Ended {
        let wait = Wait {
            kind,
            seen,
            ask_after_ms: ASK_AFTER_MS,
            timeout_ms: TIMEOUT_MS,
        };
        wait.until(&self.signals, |quiet| {
            let done = is_done();
            if quiet {
                let pending = self.registers.read32(IRQ_STATUS);
                if pending != 0 {
                    self.registers.write32(IRQ_ACK, pending);
                }
            }
            done
        })
    }

    /// Moves one run of bytes. `device` is an offset into the buffer.
    fn start(&self, direction: Direction, dma: u64, device: u64, len: u64) {
        let inside = BUFFER + device;
        let (source, destination, way) = match direction {
            Direction::ToDevice => (dma, inside, 0),
            Direction::FromDevice => (inside, dma, COMMAND_TO_MEMORY),
        };
        let interrupt = match self.kind {
            Interrupt::Polling => 0,
            _ => COMMAND_INTERRUPT,
        };
        self.registers.write64(DMA_SOURCE, source);
        self.registers.write64(DMA_DESTINATION, destination);
        self.registers.write64(DMA_COUNT, len);
        self.registers
            .write64(DMA_COMMAND, COMMAND_START | way | interrupt);
    }

    /// Moves all of a transfer, as many runs as its addresses have.
    fn transfer(&self, transfer: &Transfer) -> Option<(FindingKind, &'static str)> {
        let outside = transfer
            .device
            .checked_add(transfer.len)
            .is_none_or(|end| end > self.buffer);
        if outside {
            return Some((FindingKind::DeviceError, "the device's buffer is smaller"));
        }
        let mut moved = 0;
        let mut problem = None;
        while moved < transfer.len {
            let run = self.dma.address(transfer.gpa + moved, transfer.len - moved);
            let Ok(run) = run else {
                return Some((FindingKind::DeviceError, "no address to give to the device"));
            };
            let seen = self.signals.count();
            self.start(
                transfer.direction,
                run.start.0,
                transfer.device + moved,
                run.len,
            );
            let ended = self.wait(self.kind, seen, || {
                self.registers.read64(DMA_COMMAND) & COMMAND_START == 0
            });
            match ended {
                Ended::Done => (),
                Ended::Lost => {
                    problem = Some((
                        FindingKind::LostInterrupt,
                        "the transfer's interrupt did not come",
                    ));
                }
                Ended::TimedOut => {
                    return Some((FindingKind::Timeout, "the transfer does not end"));
                }
            }
            moved += run.len;
        }
        problem
    }
}

impl<R: Registers, S: Signals> Engine for Edu<R, S> {
    fn limits(&self) -> Limits {
        Limits {
            granule: 1,
            align: 1,
            most: self.buffer,
            usual: self.buffer,
            room: self.buffer,
            depth: 1,
            writable: true,
        }
    }

    fn kinds(&self) -> Vec<Interrupt> {
        self.signals.kinds()
    }

    fn select(&mut self, kind: Interrupt) -> Result<(), &'static str> {
        self.kind = kind;
        self.signals.select(kind)
    }

    fn complaint(&mut self) -> Option<String> {
        let refused = self.is_software().then(|| self.registers.read64(REFUSED))?;
        if refused == self.refused {
            return None;
        }
        self.refused = refused;
        let (address, bytes) = (
            self.registers.read64(REFUSED_ADDRESS),
            self.registers.read64(REFUSED_BYTES),
        );
        Some(format!(
            "the engine refused {bytes} bytes at bus address {address:#x}"
        ))
    }

    fn run(&mut self, transfers: &[Transfer], outcomes: &mut Vec<Outcome>) {
        for transfer in transfers {
            let start = self.signals.now();
            let problem = self.transfer(transfer);
            outcomes.push(Outcome {
                ticks: self.signals.now().wrapping_sub(start),
                problem,
            });
        }
    }
}
