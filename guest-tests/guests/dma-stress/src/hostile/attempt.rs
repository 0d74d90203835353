// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Starts that must be refused.

use core::fmt::Write;
use core::sync::atomic::Ordering::Relaxed;

use stress_format::FindingKind;

use super::guess::spoil;
use super::values::{BUFFER, BUFFER_BYTES, Fate, Values};
use super::{COMMAND, COUNT, Course, DESTINATION, SOURCE, STARTED, Stores, Stuck};
use crate::memory::Memory;

/// One attempt of so many begins with another transfer. The others spoil the same one again, which
/// is fewer stores.
const RENEW_EVERY: u64 = 8;
/// One attempt of so many writes registers in parts.
const SPLIT_EVERY: u64 = 16;
/// One of so many reads them back.
const READ_EVERY: u64 = 64;
/// One of so many is started by an odd store.
const ODD_EVERY: u64 = 16;
/// Bits of a command that neither start nor choose a direction.
const OTHER_BITS: u64 = !3;
/// Stores to the command register that start nothing: offset in it, and bytes.
const ODD_STARTS: [(u64, u8); 6] = [(0, 1), (0, 2), (1, 1), (4, 4), (4, 8), (2, 4)];
/// End of the DMA registers.
const END: u64 = COMMAND + 8;

/// How many of the naturally aligned pieces of a store reach a DMA register in a shape that it
/// does not take: it takes 4 or 8 bytes at its beginning.
fn dropped_pieces(offset: u64, width: u8) -> u64 {
    let (mut at, end) = (offset, offset + u64::from(width));
    let mut dropped = 0;
    while at < end {
        let widths = [8, 4, 2, 1].into_iter();
        let fits = |width: &u64| at.is_multiple_of(*width) && at + width <= end;
        let piece = widths.filter(fits).max().unwrap_or(1);
        let taken = at.is_multiple_of(8) && piece >= 4;
        dropped += u64::from(!taken && at < END);
        at += piece;
    }
    dropped
}

impl<M: Memory, W: Write, R: Stores> Course<'_, M, W, R> {
    /// Tries one start that must be refused. A transfer may be under way.
    pub(super) fn attempt(&mut self) {
        if self.right.count == 0 || self.random.u64(..RENEW_EVERY) == 0 {
            self.renew();
        }
        let ram = self.attack.shared.ram;
        let wrong = spoil(self.right, ram, self.attack.own.0, &mut self.random);
        if self.random.u64(..SPLIT_EVERY) == 0 {
            self.write_in_parts(wrong);
        } else {
            self.write(wrong);
        }
        if self.random.u64(..READ_EVERY) == 0 {
            self.check_registers();
        }
        self.start(wrong.command);
    }

    /// Chooses a transfer to spoil.
    fn renew(&mut self) {
        let random = &mut self.random;
        let count = random.u64(1..=BUFFER_BYTES);
        let device = BUFFER + random.u64(..=BUFFER_BYTES - count);
        if let Some(gpa) = self.ground.place(1, random) {
            self.right = match random.bool() {
                true => Values::to_memory(device, gpa.0, count),
                false => Values::from_memory(gpa.0, device, count),
            };
        }
    }

    /// One store by this processor alone.
    pub(super) fn store(&mut self, offset: u64, width: u8, value: u64) {
        self.attack.registers.store(offset, width, value);
        self.counts.dropped += dropped_pieces(offset, width);
    }

    /// Writes those registers that do not hold it yet, in any order.
    pub(super) fn write(&mut self, values: Values) {
        let mut all = [
            (SOURCE, self.held.source, values.source),
            (DESTINATION, self.held.destination, values.destination),
            (COUNT, self.held.count, values.count),
        ];
        self.random.shuffle(&mut all);
        for (offset, held, value) in all {
            if held != value {
                self.store(offset, 8, value);
            }
        }
        self.held = values;
    }

    /// Writes registers byte by byte, by halves, overlapping one another. What they hold then
    /// must not be right by chance.
    fn write_in_parts(&mut self, values: Values) {
        let mut all = [
            (SOURCE, values.source),
            (DESTINATION, values.destination),
            (COUNT, values.count),
        ];
        self.random.shuffle(&mut all);
        for (offset, value) in all {
            let width = [1, 2, 4, 8][self.random.usize(..4)];
            let mut parts: [u64; 8] = [0, 1, 2, 3, 4, 5, 6, 7];
            self.random.shuffle(&mut parts);
            // All parts of wide ones; some of narrow ones, as each takes its time.
            let mut left = 4;
            for at in parts.into_iter().filter(|at| at % u64::from(width) == 0) {
                if left > 0 {
                    self.store(offset + at, width, value >> (8 * at));
                    left -= 1;
                }
            }
            if self.random.bool() {
                // Into the next register, but not as far as the command.
                let at = offset + self.random.u64(1..8);
                let most = COMMAND - at;
                let width = [2, 4, 8][self.random.usize(..3)];
                if u64::from(width) <= most {
                    let value = self.random.u64(..);
                    self.store(at, width, value);
                }
            }
        }
        self.read_back(values.command);
        if self.held.fate(self.attack.shared.ram) != Fate::Refused {
            self.write(Values {
                count: 0,
                ..self.held
            });
        }
    }

    /// Finds out what the registers hold.
    pub(super) fn read_back(&mut self, command: u64) {
        let registers = self.attack.registers;
        self.held = Values {
            source: registers.load(SOURCE),
            destination: registers.load(DESTINATION),
            count: registers.load(COUNT),
            command,
        };
    }

    /// Registers read as what was written, whatever the device was given.
    fn check_registers(&mut self) {
        let registers = self.attack.registers;
        let found = [SOURCE, DESTINATION, COUNT].map(|offset| registers.load(offset));
        let held = [self.held.source, self.held.destination, self.held.count];
        if found != held {
            self.failures.refused += 1;
            let text = "the registers read as something that was not written";
            self.attack
                .finding(FindingKind::DeviceError, found[0], text);
        }
    }

    fn start(&mut self, command: u64) {
        let random = &mut self.random;
        let other = match random.u64(..8) {
            0 => random.u64(..) & OTHER_BITS,
            _ => 0,
        };
        match random.u64(..ODD_EVERY) {
            0 => {
                let (at, width) = ODD_STARTS[random.usize(..ODD_STARTS.len())];
                self.store(COMMAND + at, width, command);
                self.counts.malformed += 1;
            }
            1 => {
                self.store(COMMAND, 4, command | other & 0xffff_ffff);
                self.counts.refused += 1;
            }
            _ => {
                self.store(COMMAND, 8, command | other);
                self.counts.refused += 1;
            }
        }
    }

    /// Looks at the device: a transfer that is right may have ended, one that is wrong may not
    /// have begun.
    pub(super) fn look(&mut self) -> Result<(), Stuck> {
        let is_busy = self.attack.registers.load(COMMAND) & STARTED != 0;
        match (self.flight.is_some(), is_busy) {
            (true, false) => {
                self.land();
                Ok(())
            }
            (true, true) => self.check_time(),
            (false, false) => Ok(()),
            (false, true) => {
                self.failures.refused += 1;
                self.attack.shared.tally.failures.fetch_add(1, Relaxed);
                let text = "a transfer started that should have been refused";
                self.attack
                    .finding(FindingKind::DeviceError, self.held.memory(), text);
                self.wait()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_that_no_register_takes_are_counted() {
        for (at, width, dropped) in [
            (SOURCE, 8, 0),
            (SOURCE, 4, 0),
            (COUNT, 2, 1),
            (SOURCE + 4, 4, 1),
            // 1, 2, 4, 1.
            (SOURCE + 1, 8, 4),
            // 4 to one register, 4 to the next, which takes them.
            (SOURCE + 4, 8, 1),
            // 2, 2.
            (COMMAND + 2, 4, 2),
            // Half of it goes past the last register.
            (COMMAND + 4, 8, 1),
        ] {
            assert_eq!(dropped_pieces(at, width), dropped, "{at:#x} {width}");
        }
    }
}
