// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What it costs a guest to find the addresses for a device, in ticks of the time-stamp counter.
//!
//! On a machine whose clock counts instructions, a tick is one: of the guest, and of everything
//! that the machine runs while the guest waits for an access that leaves it.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::hint::black_box;
use core::ops::Range;

use address::Gpa;
use dma_window::{Bars, DmaWindow, TranslateError};

use crate::hostile::Stores;

/// What it is called on the command line.
pub const NAME: &str = "cost";

const PAGE: u64 = 4096;
/// How often everything is measured. What the machine does beside is in some of the rounds: the
/// smallest is the cost. They are more than the refusals that the monitor logs one by one.
const ROUNDS: u64 = 24;
/// Addresses that are translated in a round.
const EACH: usize = 64;
/// Transfers that are started, each of which takes an emulator 100 ms.
const STARTS: u64 = 3;
/// How often a device is asked whether it is done.
const MAX_POLLS: u64 = 1 << 20;
/// Bytes that are translated at once.
const LENGTHS: [u64; 3] = [PAGE, 16 * PAGE, 512 * PAGE];

/// A register that takes anything, and means nothing to DMA.
const LIVENESS: u64 = 0x4;
const SOURCE: u64 = 0x80;
const DESTINATION: u64 = 0x88;
const COUNT: u64 = 0x90;
const COMMAND: u64 = 0x98;
const START: u64 = 1;
/// Where the device's buffer begins for its DMA engine.
const BUFFER: u64 = 0x4_0000;

/// Refusals that [`Meter::registers`] provokes.
pub const REFUSALS: u64 = ROUNDS;

/// What something costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cost {
    /// What.
    pub what: String,
    /// How often it was done.
    pub times: u64,
    /// Ticks for all of them.
    pub ticks: u64,
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, times, ticks } = self;
        write!(f, "cost of {what}: times={times} ticks={ticks}")
    }
}

/// A source of ticks.
#[derive(Clone, Copy, Debug)]
pub struct Meter<N>(pub N);

impl<N: Fn() -> u64> Meter<N> {
    fn once(&self, work: impl FnOnce()) -> u64 {
        let start = (self.0)();
        work();
        (self.0)().wrapping_sub(start)
    }

    fn least(&self, what: &str, times: usize, mut work: impl FnMut()) -> Cost {
        let rounds = (0..ROUNDS).map(|_| self.once(&mut work));
        Cost {
            what: what.into(),
            times: times as u64,
            ticks: rounds.min().unwrap_or(0),
        }
    }

    /// A known number of instructions: what a tick is.
    pub fn tick(&self, instructions: usize, work: impl FnMut()) -> Cost {
        self.least("an instruction", instructions, work)
    }

    /// Translating pages of `memory` through the window, by the table and by its registers.
    ///
    /// # Errors
    /// Memory that cannot be translated.
    pub fn window<B: Bars>(
        &self,
        window: &mut DmaWindow<B>,
        memory: &[Range<Gpa>],
        random: &mut fastrand::Rng,
    ) -> Result<Vec<Cost>, TranslateError> {
        let addresses = pages(memory, random);
        let mut costs = Vec::new();
        for len in LENGTHS {
            let mut found = 0;
            for gpa in &addresses {
                found += window.translate(*gpa, len)?.len;
            }
            let mean = found / PAGE / addresses.len().max(1) as u64;
            let what = format!("walking for {} pages, of which {mean} follow", len / PAGE);
            costs.push(self.least(&what, addresses.len(), || {
                for gpa in &addresses {
                    let _ = black_box(window.translate(black_box(*gpa), len));
                }
            }));
        }
        costs.push(
            self.least("asking the window's registers", addresses.len(), || {
                for gpa in &addresses {
                    let _ = black_box(window.query(*gpa, PAGE));
                }
            }),
        );
        Ok(costs)
    }

    /// Accesses to the DMA registers of an idle `edu`, and starts: some that must be refused, and
    /// some that read a few bytes at `gpa`.
    ///
    /// # Errors
    /// A transfer that does not end.
    pub fn registers(&self, registers: &impl Stores, gpa: Gpa) -> Result<Vec<Cost>, &'static str> {
        let store = |offset, value| registers.store(offset, 8, value);
        let mut costs = Vec::new();
        costs.push(self.least("loading a register", 1, || {
            black_box(registers.load(SOURCE));
        }));
        costs.push(self.least("storing to a register", 1, || store(SOURCE, gpa.0)));
        costs.push(self.least("a store that is passed on", 1, || {
            registers.store(LIVENESS, 4, 0);
        }));
        store(DESTINATION, BUFFER);
        store(COUNT, 0);
        costs.push(self.least("a start that is refused", 1, || store(COMMAND, START)));
        store(COUNT, 8);
        let mut ticks = u64::MAX;
        for _ in 0..STARTS {
            ticks = ticks.min(self.once(|| store(COMMAND, START)));
            let is_done = |_| registers.load(COMMAND) & START == 0;
            if !(0..MAX_POLLS).any(is_done) {
                return Err("a transfer does not end");
            }
        }
        costs.push(Cost {
            what: "a start".into(),
            times: 1,
            ticks,
        });
        Ok(costs)
    }
}

/// Pages of `memory` by chance.
fn pages(memory: &[Range<Gpa>], random: &mut fastrand::Rng) -> Vec<Gpa> {
    let mut pages = Vec::new();
    if memory.iter().all(|extent| extent.is_empty()) {
        return pages;
    }
    while pages.len() < EACH {
        let extent = &memory[random.usize(..memory.len())];
        if !extent.is_empty() {
            pages.push(Gpa(random.u64(extent.start.0..extent.end.0)).align_down(PAGE));
        }
    }
    pages
}

#[cfg(test)]
mod tests {
    use core::cell::Cell;
    use std::string::ToString;

    use super::*;

    /// A clock that runs by one with each access to a device's registers.
    #[derive(Default)]
    struct Device {
        accesses: Cell<u64>,
        registers: Cell<[u64; 4]>,
        started: Cell<u64>,
        hangs: bool,
    }

    impl Device {
        fn at(offset: u64) -> usize {
            usize::try_from(offset - SOURCE).unwrap() / 8
        }
    }

    impl Stores for Device {
        fn store(&self, offset: u64, width: u8, value: u64) {
            self.accesses.update(|count| count + 1);
            if offset == LIVENESS {
                return assert_eq!(width, 4);
            }
            assert_eq!(width, 8);
            let mut registers = self.registers.get();
            registers[Self::at(offset)] = value;
            if offset == COMMAND && registers[2] > 0 {
                // What starts takes longer.
                self.accesses.update(|count| count + 7);
                self.started.update(|count| count + 1);
                registers[3] = u64::from(self.hangs);
            }
            self.registers.set(registers);
        }

        fn load(&self, offset: u64) -> u64 {
            self.accesses.update(|count| count + 1);
            self.registers.get()[Self::at(offset)]
        }
    }

    #[test]
    fn the_least_of_all_rounds_counts() {
        let ticks = Cell::new(0);
        let meter = Meter(|| ticks.replace(ticks.get() + 3));
        let mut left = 40;
        let cost = meter.least("something", 5, || {
            left -= 1;
            ticks.set(ticks.get() + left);
        });
        let least = 40 - ROUNDS + 3;
        assert_eq!((cost.times, cost.ticks), (5, least));
        assert_eq!(
            cost.to_string(),
            format!("cost of something: times=5 ticks={least}")
        );
    }

    #[test]
    fn registers_are_measured_one_by_one() {
        let device = Device::default();
        let meter = Meter(|| device.accesses.get());
        let costs = meter.registers(&device, Gpa(0x5000)).unwrap();
        let ticks: Vec<_> = costs.iter().map(|cost| cost.ticks).collect();
        assert_eq!(ticks, [1, 1, 1, 1, 8]);
        assert_eq!(device.started.get(), STARTS);
        assert_eq!(device.registers.get()[..3], [0x5000, BUFFER, 8]);
        let device = Device {
            hangs: true,
            ..Device::default()
        };
        let meter = Meter(|| device.accesses.get());
        assert!(meter.registers(&device, Gpa(0x5000)).is_err());
    }

    #[test]
    fn pages_are_of_memory() {
        let memory = [Gpa(0)..Gpa(0), Gpa(0x5000)..Gpa(0x8000)];
        let pages = pages(&memory, &mut fastrand::Rng::with_seed(1));
        assert_eq!(pages.len(), EACH);
        let known = [0x5000, 0x6000, 0x7000].map(Gpa);
        assert!(pages.iter().all(|page| known.contains(page)));
        assert!(super::pages(&memory[..1], &mut fastrand::Rng::with_seed(1)).is_empty());
    }
}
