// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the function and its worker share, and the locks around it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use devices::pci::EmulatedConfig;

use crate::interrupts::Interrupts;
use crate::registers::{Effect, Registers, Work};
use crate::transfer::{Direction, Refusal};

/// So many refusals are logged as warnings between resets.
const WARNINGS: u64 = 16;

/// What the engine has done since it was made, resets or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Transfers that moved all their bytes.
    pub transfers: u64,
    /// Bytes moved from memory, those of transfers refused later on included.
    pub bytes_read: u64,
    /// Bytes moved to memory, likewise.
    pub bytes_written: u64,
    /// Transfers that were refused.
    pub refused: u64,
    /// The last refusal.
    pub last_refusal: Option<Refusal>,
}

/// All but the buffer.
pub(crate) struct State {
    pub config: EmulatedConfig,
    pub registers: Registers,
    pub interrupts: Interrupts,
    pub statistics: Statistics,
    /// Counts resets. Work that was taken before one is not finished.
    epoch: u64,
    stopped: bool,
}

/// Something to do, and the reset that it comes after.
pub(crate) struct Job {
    pub work: Work,
    pub epoch: u64,
}

impl State {
    /// What there is to do. Nothing after a stop.
    pub fn job(&self) -> Option<Job> {
        let work = self.registers.work().filter(|_| !self.stopped)?;
        let epoch = self.epoch;
        Some(Job { work, epoch })
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Whether a job is still to be done.
    pub fn is_wanted(&self, job: &Job) -> bool {
        !self.stopped && self.epoch == job.epoch
    }

    /// Writes to the register file. Returns whether there is work.
    pub fn write(&mut self, offset: u64, width: usize, value: u64) -> bool {
        match self.registers.write(offset, width, value) {
            Effect::None => return false,
            Effect::Work => return true,
            Effect::Raise(bits) => self.raise(bits),
            Effect::Acknowledge(bits) => {
                self.registers.interrupts &= !bits;
                self.settle();
            }
        }
        false
    }

    /// Follows a change of config space.
    pub fn settle(&mut self) {
        let command = self.config.command();
        self.interrupts.settle(self.registers.interrupts, command);
    }

    pub fn finish_factorial(&mut self, result: u32) {
        let bits = self.registers.finish_factorial(result);
        self.complete(bits);
    }

    pub fn finish_transfer(&mut self, result: Result<(), Refusal>) {
        let refusal = result.err();
        let bits = self.registers.finish_transfer(refusal.as_ref());
        match refusal {
            None => self.statistics.transfers += 1,
            Some(refusal) => self.report(refusal),
        }
        self.complete(bits);
    }

    /// Counts a burst that was moved.
    pub fn count(&mut self, direction: Direction, bytes: usize) {
        match direction {
            Direction::Read => self.statistics.bytes_read += bytes as u64,
            Direction::Write => self.statistics.bytes_written += bytes as u64,
        }
    }

    /// Back to power-on, except for the interrupt line's number.
    pub fn reset(&mut self) {
        self.epoch += 1;
        self.config.reset();
        self.registers = Registers::new(self.registers.buffer_size());
        self.interrupts.reset();
    }

    fn complete(&mut self, bits: u32) {
        if bits != 0 {
            self.raise(bits);
        }
    }

    fn raise(&mut self, bits: u32) {
        self.registers.interrupts |= bits;
        let command = self.config.command();
        self.interrupts.raise(self.registers.interrupts, command);
    }

    fn report(&mut self, refusal: Refusal) {
        self.statistics.refused += 1;
        self.statistics.last_refusal = Some(refusal);
        match self.registers.refused() {
            ..WARNINGS => log::warn!("edu: {refusal}"),
            WARNINGS => log::warn!("edu: {refusal}; more are logged for debugging only"),
            _ => log::debug!("edu: {refusal}"),
        }
    }
}

/// The engine. A caller that needs both locks takes that of the buffer first.
pub(crate) struct Shared {
    state: Mutex<State>,
    /// There is work, or it is time to stop.
    news: Condvar,
    /// Locked while a burst is moved, so that having it means that none is.
    buffer: Mutex<Box<[u8]>>,
}

impl Shared {
    /// At power-on, with a buffer of `size` bytes.
    pub fn new(config: EmulatedConfig, interrupts: Interrupts, size: u32) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                config,
                registers: Registers::new(size),
                interrupts,
                statistics: Statistics::default(),
                epoch: 0,
                stopped: false,
            }),
            news: Condvar::new(),
            buffer: Mutex::new(vec![0; size as usize].into()),
        })
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The buffer; waits for a burst under way.
    pub fn buffer(&self) -> MutexGuard<'_, Box<[u8]>> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the worker.
    pub fn notify(&self) {
        self.news.notify_all();
    }

    /// Stops the worker.
    pub fn stop(&self) {
        self.state().stopped = true;
        self.notify();
    }

    /// Waits for work or a stop; false for the latter.
    pub fn wait(&self) -> bool {
        let idle = |state: &mut State| !state.stopped && state.job().is_none();
        let state = self.news.wait_while(self.state(), idle);
        !state.unwrap_or_else(PoisonError::into_inner).is_stopped()
    }
}
