// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The engine's worker.

use std::fmt;
use std::sync::Arc;

use crate::outside::DmaMemory;
use crate::registers::{Work, factorial};
use crate::state::{Job, Shared, Statistics};
use crate::transfer::{Burst, Direction, Reason, Refusal, Request};

/// Does what the guest starts: factorials and transfers, one after another.
///
/// The monitor gives it a thread with [`run`](Self::run); tests call [`step`](Self::step).
pub struct EduWorker {
    shared: Arc<Shared>,
    memory: Box<dyn DmaMemory>,
}

/// The monitor's hold on an engine. Clones are the same engine's.
#[derive(Clone)]
pub struct EduControl(Arc<Shared>);

impl fmt::Debug for EduWorker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EduWorker").finish_non_exhaustive()
    }
}

impl fmt::Debug for EduControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EduControl").finish_non_exhaustive()
    }
}

impl EduControl {
    /// Ends [`EduWorker::run`], in the middle of a transfer too. Does not wait: no access to
    /// memory follows once `run` has returned. The engine does nothing any more afterwards.
    pub fn stop(&self) {
        self.0.stop();
    }

    /// What the engine has done so far.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.0.state().statistics
    }
}

/// A transfer ends before its last byte.
#[derive(Clone, Copy)]
enum End {
    Refused(Refusal),
    /// By a reset or a stop: nothing is left to be reported.
    Abandoned,
}

impl EduWorker {
    pub(crate) fn new(shared: Arc<Shared>, memory: Box<dyn DmaMemory>) -> Self {
        Self { shared, memory }
    }

    /// A hold on the engine.
    #[must_use]
    pub fn control(&self) -> EduControl {
        EduControl(Arc::clone(&self.shared))
    }

    /// Works until [`EduControl::stop`] is called or the function is dropped.
    pub fn run(&mut self) {
        while self.shared.wait() {
            self.step();
        }
    }

    /// Does one factorial or one transfer, if one is waiting. Returns whether one was.
    pub fn step(&mut self) -> bool {
        let Some(job) = self.shared.state().job() else {
            return false;
        };
        match job.work {
            Work::Factorial(n) => {
                let result = factorial(n);
                let mut state = self.shared.state();
                if state.is_wanted(&job) {
                    state.finish_factorial(result);
                }
            }
            Work::Transfer(request) => self.finish_transfer(&job, self.transfer(&job, request)),
        }
        true
    }

    fn finish_transfer(&self, job: &Job, result: Result<(), End>) {
        let result = match result {
            Ok(()) => Ok(()),
            Err(End::Refused(refusal)) => Err(refusal),
            Err(End::Abandoned) => return,
        };
        let mut state = self.shared.state();
        if state.is_wanted(job) {
            state.finish_transfer(result);
        }
    }

    fn transfer(&self, job: &Job, request: Request) -> Result<(), End> {
        let size = self.shared.state().registers.buffer_size();
        let bursts = request.bursts(size).map_err(End::Refused)?;
        self.memory.begin();
        for burst in bursts {
            self.burst(job, request, burst)?;
        }
        Ok(())
    }

    /// Moves a burst, unless it was cancelled or is no longer allowed. The lock on the buffer makes
    /// sure that none follows the access to config space, or the reset, that does that.
    fn burst(&self, job: &Job, request: Request, burst: Burst) -> Result<(), End> {
        let length = burst.buffer.len();
        let refuse = |reason| End::Refused(request.refuse(burst.address, length as u64, reason));
        let mut buffer = self.shared.buffer();
        {
            let state = self.shared.state();
            if !state.is_wanted(job) {
                return Err(End::Abandoned);
            }
            if !state.config.is_bus_master() {
                return Err(refuse(Reason::BusMaster));
            }
        }
        let data = &mut buffer[burst.buffer];
        let moved = match request.direction {
            Direction::Read => self.memory.read(burst.address, data),
            Direction::Write => self.memory.write(burst.address, data),
        };
        moved.map_err(|_| refuse(Reason::Memory))?;
        self.shared.state().count(request.direction, length);
        Ok(())
    }
}
