// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Transfers that are right: they run, and move what they should and nothing else.

use core::fmt::Write;
use core::ops::Range;

use address::Gpa;

use super::ground::Ground;
use super::values::{BUFFER, BUFFER_BYTES, Values};
use super::{COMMAND, Course, STARTED, Stores, Stuck};
use crate::memory::Memory;

/// A transfer takes 100 ms of the emulator's time.
const TIMEOUT_MS: u64 = 20_000;

/// A transfer under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flight {
    values: Values,
    /// When it was started.
    since: u64,
}

impl Flight {
    fn range(self) -> Range<Gpa> {
        let gpa = Gpa(self.values.memory());
        gpa..gpa + self.values.count
    }

    /// The bytes of the device's buffer.
    fn device(self) -> Range<usize> {
        let at = usize::try_from(self.values.device() - BUFFER).unwrap_or(0);
        at..at + usize::try_from(self.values.count).unwrap_or(0)
    }
}

impl<M: Memory, W: Write, R: Stores> Course<'_, M, W, R> {
    /// Starts the next one; to the device and back in turn.
    pub(super) fn begin(&mut self) {
        let random = &mut self.random;
        let whole = random.u64(..4) == 0;
        let count = match whole {
            true => BUFFER_BYTES,
            false => random.u64(1..=BUFFER_BYTES),
        };
        let device = BUFFER + random.u64(..=BUFFER_BYTES - count);
        let number = self.begun;
        self.begun += 1;
        // One back of so many crosses a page: it may run or not, as memory has it.
        let crosses = number % 16 == 15 && !whole;
        let pages = if crosses { 2 } else { 1 };
        let Some(page) = self.ground.place(pages, random) else {
            return;
        };
        let offset = match crosses {
            true => BUFFER_BYTES - random.u64(1..=count.min(BUFFER_BYTES - 1)),
            false => random.u64(..=BUFFER_BYTES - count),
        };
        let gpa = page.0 + offset;
        self.launch(match number % 2 {
            0 => Values::from_memory(gpa, device, count),
            _ => Values::to_memory(device, gpa, count),
        });
    }

    fn launch(&mut self, values: Values) {
        self.write(values);
        self.store(COMMAND, 8, values.command);
        self.flight = Some(Flight {
            values,
            since: (self.attack.shared.clock.now)(),
        });
    }

    /// Runs one, with nothing else going on.
    pub(super) fn run_one(&mut self, values: Values) -> Result<(), Stuck> {
        self.launch(values);
        self.wait()?;
        self.land();
        Ok(())
    }

    /// Fills all of the device.
    pub(super) fn fill_all(&mut self) -> Result<(), Stuck> {
        match self.ground.place(1, &mut self.random) {
            Some(gpa) => self.run_one(Values::from_memory(gpa.0, BUFFER, BUFFER_BYTES)),
            None => Ok(()),
        }
    }

    /// Fetches all that the device has.
    pub(super) fn fetch_all(&mut self) -> Result<(), Stuck> {
        match self.ground.place(1, &mut self.random) {
            Some(gpa) => self.run_one(Values::to_memory(BUFFER, gpa.0, BUFFER_BYTES)),
            None => Ok(()),
        }
    }

    /// Waits until the device is idle.
    pub(super) fn wait(&mut self) -> Result<(), Stuck> {
        let clock = self.attack.shared.clock;
        let start = (clock.now)();
        while self.attack.registers.load(COMMAND) & STARTED != 0 {
            if (clock.now)().wrapping_sub(start) / clock.ticks_per_ms >= TIMEOUT_MS {
                return Err(Stuck);
            }
            self.attack.shared.sample();
            core::hint::spin_loop();
        }
        Ok(())
    }

    pub(super) fn check_time(&self) -> Result<(), Stuck> {
        let clock = self.attack.shared.clock;
        let since = self.flight.map_or_else(clock.now, |flight| flight.since);
        match (clock.now)().wrapping_sub(since) / clock.ticks_per_ms {
            ms if ms < TIMEOUT_MS => Ok(()),
            _ => Err(Stuck),
        }
    }

    /// Checks the transfer that has ended.
    pub(super) fn land(&mut self) {
        let Some(flight) = self.flight.take() else {
            return;
        };
        let ticks = (self.attack.shared.clock.now)().wrapping_sub(flight.since);
        let range = flight.range();
        if !flight.values.is_to_memory() {
            let moved = self.ground.expected(&range);
            self.buffer[flight.device()].copy_from_slice(&moved);
            self.accepted(&range, ticks);
            return;
        }
        let pages = Ground::<M>::pages(&range);
        let was = self.ground.expected(&pages);
        let is = self.ground.actual(&pages);
        let mut should = was.clone();
        let at = usize::try_from(range.start - pages.start).unwrap_or(0);
        let moved = &self.buffer[flight.device()];
        should[at..at + moved.len()].copy_from_slice(moved);
        self.ground.restore(&pages);

        let crosses = pages.end - pages.start > BUFFER_BYTES;
        if crosses && is == was {
            self.counts.refused += 1;
            return;
        }
        let wrong = should.iter().zip(&is).position(|(should, is)| should != is);
        if let Some(at) = wrong {
            self.failures.accepted += 1;
            let text = "a transfer that is right did not move what it should";
            self.wrong_data(pages.start + at as u64, text);
        }
        self.accepted(&range, ticks);
    }

    fn accepted(&mut self, range: &Range<Gpa>, ticks: u64) {
        self.latency.add(ticks);
        self.busy += ticks;
        self.counts.accepted += 1;
        self.attack.shared.tally.ended(range);
    }
}
