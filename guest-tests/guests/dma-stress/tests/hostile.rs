// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A hostile guest finds what a monitor that mediates lets through.

#![expect(clippy::unwrap_used, reason = "a test may end here")]

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use address::Gpa;
use dma_stress::canary::Canaries;
use dma_stress::hostile::{Attack, Counts, Race, Stores, TESTS};
use dma_stress::memory::{Memory, OutsideRam};
use dma_stress::options::Options;
use dma_stress::place::Reservations;
use dma_stress::ram::Ram;
use dma_stress::report::Report;
use dma_stress::stress::{Samples, Shared};
use dma_stress::tally::Tally;

const BASE: u64 = 0x10_0000;
const SIZE: usize = 2 << 20;
const BUFFER: u64 = 0x4_0000;

/// What the monitor does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// Only the first byte must be memory.
    NoEnd,
    /// Numbers lose their upper halves.
    Narrow,
    /// The device's side may be anything.
    NoWindow,
    /// What is in the registers at the end is what moves.
    LateRegisters,
    /// A byte too many moves.
    Overrun,
    /// The device reads what it should not, and does not report that it is busy.
    SilentRead,
    /// The same for writes.
    SilentWrite,
    /// Nothing is refused or started.
    Deaf,
}

struct State {
    memory: Vec<u8>,
    buffer: Vec<u8>,
    registers: [u64; 3],
    /// Loads until the transfer under way ends, and what it is.
    flight: Option<(u32, [u64; 3], u64)>,
    counts: Monitor,
}

/// What the monitor counts.
#[derive(Clone, Copy, Debug, Default)]
struct Monitor {
    started: u64,
    refused: u64,
    busy: u64,
    dropped: u64,
}

/// A device behind a monitor.
struct Machine(Mutex<State>, Fault);

impl Machine {
    fn new(fault: Fault) -> Self {
        let state = State {
            memory: vec![0; SIZE],
            // An earlier guest's.
            buffer: vec![0x77; 4096],
            registers: [0; 3],
            flight: None,
            counts: Monitor::default(),
        };
        Self(Mutex::new(state), fault)
    }

    fn start(&self, state: &mut State, command: u64) {
        let [mut source, mut destination, mut count] = state.registers;
        if self.1 == Fault::Narrow {
            [source, destination, count] = [source, destination, count].map(|v| v & 0xffff_ffff);
        }
        let to_memory = command & 2 != 0;
        let (gpa, device) = match to_memory {
            true => (destination, source),
            false => (source, destination),
        };
        let end = BASE + SIZE as u64;
        let in_window = device >= BUFFER
            && device
                .checked_add(count)
                .is_some_and(|end| end <= BUFFER + 4096);
        let checked = if self.1 == Fault::NoEnd { 1 } else { count };
        let in_memory = gpa >= BASE && gpa.checked_add(checked).is_some_and(|at| at <= end);
        // Every second border is one that the host's memory has too.
        let joined = count.saturating_add(gpa % 4096) <= 4096 || (gpa / 4096) % 2 == 1;
        let sized = (1..=4096).contains(&count);
        let right = sized && in_memory && joined && (in_window || self.1 == Fault::NoWindow);
        if right && self.1 != Fault::Deaf {
            if state.flight.is_none() {
                state.flight = Some((3, [source, destination, count], command));
                state.counts.started += 1;
            } else {
                state.counts.busy += 1;
            }
            return;
        }
        state.counts.refused += 1;
        match (self.1, to_memory) {
            (Fault::SilentRead, false) if sized && in_window => {
                let at = usize::try_from(device - BUFFER).unwrap();
                state.buffer[at] ^= 1;
            }
            (Fault::SilentWrite, true) if in_window => state.memory[SIZE / 2] = 0x5a,
            _ => (),
        }
    }

    fn land(&self, state: &mut State, values: [u64; 3], command: u64) {
        let values = match self.1 {
            Fault::LateRegisters => state.registers,
            _ => values,
        };
        let [source, destination, count] = values;
        let to_memory = command & 2 != 0;
        let (gpa, device) = match to_memory {
            true => (destination, source),
            false => (source, destination),
        };
        for number in 0..count.min(4096) + u64::from(self.1 == Fault::Overrun) {
            let index = |at: u64, base: u64| usize::try_from(at.wrapping_sub(base)).unwrap();
            let gpa = index(gpa.wrapping_add(number), BASE);
            let device = index(device.wrapping_add(number), BUFFER);
            let (memory, buffer) = (state.memory.get_mut(gpa), state.buffer.get_mut(device));
            match (memory, buffer, to_memory) {
                (Some(memory), Some(buffer), true) => *memory = *buffer,
                (Some(memory), Some(buffer), false) => *buffer = *memory,
                (Some(memory), None, true) => *memory ^= 1,
                _ => (),
            }
        }
    }
}

impl Stores for Machine {
    fn store(&self, offset: u64, width: u8, value: u64) {
        // The bus cuts it into pieces that are naturally aligned.
        let (mut at, end) = (offset, offset + u64::from(width));
        while at < end {
            let fits = |piece: &u64| at.is_multiple_of(*piece) && at + piece <= end;
            let piece = [8, 4, 2, 1].into_iter().find(fits).unwrap();
            self.store_piece(at, piece, value >> (8 * (at - offset)));
            at += piece;
        }
    }

    fn load(&self, offset: u64) -> u64 {
        let state = &mut *self.0.lock().unwrap();
        if offset != 0x98 {
            return state.registers[usize::try_from((offset - 0x80) / 8).unwrap()];
        }
        match state.flight {
            None => 0,
            Some((0, values, command)) => {
                state.flight = None;
                self.land(state, values, command);
                command & !1
            }
            Some((left, values, command)) => {
                state.flight = Some((left - 1, values, command));
                command
            }
        }
    }
}

impl Machine {
    fn store_piece(&self, offset: u64, width: u64, value: u64) {
        let state = &mut *self.0.lock().unwrap();
        if offset >= 0xa0 {
            return;
        }
        if !offset.is_multiple_of(8) || width < 4 {
            state.counts.dropped += 1;
            return;
        }
        let value = if width == 4 {
            value & 0xffff_ffff
        } else {
            value
        };
        match offset {
            0x98 if value & 1 != 0 => self.start(state, value),
            0x98 => (),
            _ => state.registers[usize::try_from((offset - 0x80) / 8).unwrap()] = value,
        }
    }
}

impl Memory for Machine {
    fn fill(&self, gpa: Gpa, len: usize, mut next: impl FnMut() -> u64) -> Result<(), OutsideRam> {
        let at = usize::try_from(gpa.0.checked_sub(BASE).ok_or(OutsideRam)?).unwrap();
        let mut state = self.0.lock().unwrap();
        let memory = state.memory.get_mut(at..at + len).ok_or(OutsideRam)?;
        for chunk in memory.chunks_mut(8) {
            chunk.copy_from_slice(&next().to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }

    fn first_difference(
        &self,
        gpa: Gpa,
        len: usize,
        mut next: impl FnMut() -> u64,
    ) -> Result<Option<usize>, OutsideRam> {
        let mut is = vec![0; len];
        self.read(gpa, &mut is)?;
        let should = (0..len.div_ceil(8)).flat_map(|_| next().to_le_bytes());
        Ok(is.iter().zip(should).position(|(is, should)| *is != should))
    }

    fn read(&self, gpa: Gpa, into: &mut [u8]) -> Result<(), OutsideRam> {
        let at = usize::try_from(gpa.0.checked_sub(BASE).ok_or(OutsideRam)?).unwrap();
        let state = self.0.lock().unwrap();
        into.copy_from_slice(state.memory.get(at..at + into.len()).ok_or(OutsideRam)?);
        Ok(())
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl Write for Log {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.lock().unwrap().push_str(text);
        Ok(())
    }
}

struct Outcome {
    log: String,
    counts: Counts,
    monitor: Monitor,
}

/// Every start is in exactly one of the monitor's counts, and all of the guest's own are where
/// it has them.
fn check_counts(outcome: &Outcome) {
    let (guest, monitor) = (outcome.counts, outcome.monitor);
    assert_eq!(
        monitor.started + monitor.refused + monitor.busy,
        guest.accepted + guest.refused + guest.raced_starts,
        "{guest:?} {monitor:?}"
    );
    assert!(monitor.refused >= guest.refused && monitor.started >= guest.accepted);
    assert_eq!(monitor.dropped, guest.dropped);
}

impl Outcome {
    fn failed(&self) -> Vec<&str> {
        let lines = self.log.lines();
        lines.filter(|line| line.starts_with("not ok")).collect()
    }
}

struct Release<'a>(Option<&'a Race>);

impl Drop for Release<'_> {
    fn drop(&mut self) {
        if let Some(race) = self.0 {
            race.end();
        }
    }
}

fn attack(fault: Fault, race: Option<&Race>, options: &str) -> Outcome {
    let (middle, end) = (BASE + (1 << 20), BASE + SIZE as u64);
    let mut ram = Ram::new(&[Gpa(BASE)..Gpa(middle), Gpa(middle)..Gpa(end)]);
    ram.take(Gpa(BASE + 0x8000)..Gpa(BASE + 0x9004));
    let canaries = Canaries::new(ram.take_canaries(4, &mut fastrand::Rng::with_seed(9)));
    let machine = Machine::new(fault);
    canaries.write(&machine);
    let log = Log::default();
    let (report, tally) = (Report::new(log.clone()), Tally::new(ram.extents()));
    let options = Options::parse(options).unwrap();
    static TIME: AtomicU64 = AtomicU64::new(0);
    let clock = Samples {
        now: || TIME.fetch_add(1, Relaxed),
        ticks_per_ms: 100,
        start: 0,
        next_ms: AtomicU64::new(0),
    };
    let shared = Shared {
        memory: &machine,
        ram: &ram,
        reservations: &Reservations::default(),
        report: &report,
        tally: &tally,
        options: &options,
        clock: &clock,
    };
    let attack = Attack {
        shared: &shared,
        id: 0,
        registers: &machine,
        own: Gpa(0xfe00_0000),
        race,
    };
    let counts = std::thread::scope(|scope| {
        if let Some(race) = race {
            let machine = &machine;
            scope.spawn(move || race.take_part(machine, 5, std::thread::yield_now));
        }
        // Let the other one go, even if this one panics.
        let guard = Release(race);
        let counts = attack.run();
        drop(guard);
        counts
    });
    assert!(fault != Fault::None || canaries.check(&machine, |_| ()) == 0);
    let log = log.0.lock().unwrap().clone();
    let tests = log.lines().filter(|line| line.contains("ok ")).count();
    assert_eq!(tests as u64, TESTS, "{log}");
    let monitor = machine.0.lock().unwrap().counts;
    Outcome {
        log,
        counts,
        monitor,
    }
}

#[test]
fn a_monitor_that_is_well_passes() {
    let outcome = attack(Fault::None, None, "transfers=20000 accepted=300");
    assert_eq!(outcome.failed(), Vec::<&str>::new(), "{}", outcome.log);
    assert!(!outcome.log.contains("finding"), "{}", outcome.log);
    let counts = outcome.counts;
    assert!((300..=302).contains(&counts.accepted), "{counts:?}");
    assert!(counts.refused > 15_000 && counts.malformed > 500);
    check_counts(&outcome);
    assert_eq!(outcome.monitor.refused, counts.refused);
    assert_eq!(outcome.monitor.busy, 0);
    assert!(outcome.log.contains("# SKIP one processor"));
}

#[test]
fn what_an_earlier_guest_left_does_not_matter() {
    let outcome = attack(Fault::None, None, "transfers=1000 accepted=0");
    assert_eq!(outcome.failed(), Vec::<&str>::new(), "{}", outcome.log);
    check_counts(&outcome);
}

#[test]
fn races_start_nothing() {
    let race = Race::default();
    let outcome = attack(Fault::None, Some(&race), "transfers=40000 accepted=20");
    assert_eq!(outcome.failed(), Vec::<&str>::new(), "{}", outcome.log);
    assert_eq!(outcome.counts.raced, 5000);
    assert!(race.stores() > 0);
    check_counts(&outcome);
    assert!(outcome.monitor.refused > outcome.counts.refused);
}

#[test]
fn everything_that_is_let_through_is_found() {
    for (fault, test) in [
        (Fault::NoEnd, "invalid transfers do not start"),
        (Fault::Narrow, "invalid transfers do not start"),
        (Fault::NoWindow, "invalid transfers do not start"),
        (Fault::LateRegisters, "valid transfers run"),
        (Fault::Overrun, "valid transfers run"),
        (Fault::SilentRead, "valid transfers run"),
        (Fault::SilentWrite, "other memory is unchanged"),
        (Fault::Deaf, "valid transfers run"),
    ] {
        let outcome = attack(fault, None, "transfers=3000 accepted=40");
        let failed = outcome.failed();
        assert!(
            failed.iter().any(|line| line.contains(test)),
            "{fault:?} {}",
            outcome.log
        );
        assert!(outcome.log.contains("# finding"), "{fault:?}");
    }
}

#[test]
fn a_device_that_hangs_is_given_up() {
    struct Hanging(Machine);
    impl Stores for Hanging {
        fn store(&self, offset: u64, width: u8, value: u64) {
            self.0.store(offset, width, value);
        }
        fn load(&self, offset: u64) -> u64 {
            self.0.load(offset) | u64::from(offset == 0x98)
        }
    }
    let machine = Hanging(Machine::new(Fault::None));
    let ram = Ram::new(&[Gpa(BASE)..Gpa(BASE + SIZE as u64)]);
    let log = Log::default();
    static TIME: AtomicU64 = AtomicU64::new(0);
    let clock = Samples {
        now: || TIME.fetch_add(1000, Relaxed),
        ticks_per_ms: 1,
        start: 0,
        next_ms: AtomicU64::new(u64::MAX),
    };
    let attack = Attack {
        shared: &Shared {
            memory: &machine.0,
            ram: &ram,
            reservations: &Reservations::default(),
            report: &Report::new(log.clone()),
            tally: &Tally::new(ram.extents()),
            options: &Options::parse("transfers=100").unwrap(),
            clock: &clock,
        },
        id: 0,
        registers: &machine,
        own: Gpa(0xfe00_0000),
        race: None,
    };
    attack.run();
    let log = log.0.lock().unwrap().clone();
    assert!(log.contains("kind=timeout"), "{log}");
    assert_eq!(log.lines().filter(|line| line.contains("ok ")).count(), 4);
}
