// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A hostile guest of a guarded NVMe controller, whose device is the model that panics where it must not go.

#![expect(clippy::unwrap_used, reason = "a test may end here")]

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use address::Gpa;
use dma_stress::hostile::Stores;
use dma_stress::hostile::nvme::{Attack, Counts, Slot};
use dma_stress::memory::{Memory, OutsideRam};
use dma_stress::options::Options;
use dma_stress::place::Reservations;
use dma_stress::ram::Ram;
use dma_stress::registers::Registers;
use dma_stress::report::Report;
use dma_stress::stress::{Samples, Shared};
use dma_stress::tally::Tally;
use guarded_nvme_testing::{GuestRam, Misbehaviour, Personality, Rig};

const PAGES: u64 = 768;
const START: u64 = 0x10_0000;
const END: u64 = PAGES * 4096;

static TIME: AtomicU64 = AtomicU64::new(0);

/// The guest's machine: each access to the registers lets the monitor and the device go on.
struct Machine {
    rig: RefCell<Rig>,
    is_master: Cell<bool>,
    /// What is written behind everything's back after some stores.
    damage: Option<Gpa>,
    stores: Cell<u64>,
}

impl Machine {
    fn new(personality: Personality, seed: u64, damage: Option<Gpa>) -> Self {
        Self {
            rig: RefCell::new(Rig::new(GuestRam::plain(PAGES), personality, seed).unwrap()),
            is_master: Cell::new(true),
            damage,
            stores: Cell::new(0),
        }
    }

    fn go_on(&self) {
        let mut rig = self.rig.borrow_mut();
        rig.run(2);
        rig.sleep(Duration::from_micros(100));
        TIME.fetch_add(100, Relaxed);
        self.stores.set(self.stores.get() + 1);
        if let Some(gpa) = self.damage
            && self.stores.get() == 4000
        {
            rig.ram().put(gpa, 1);
        }
    }

    fn copy(&self, gpa: Gpa, into: &mut [u8]) -> Result<(), OutsideRam> {
        let is_inside = gpa
            .checked_add(into.len() as u64)
            .is_some_and(|end| end.0 <= END);
        if !is_inside {
            return Err(OutsideRam);
        }
        let rig = self.rig.borrow();
        for (at, byte) in (gpa.0..).zip(into) {
            let word = rig.ram().get(Gpa(at).align_down(8));
            *byte = word.to_le_bytes()[usize::try_from(at % 8).unwrap()];
        }
        Ok(())
    }
}

impl Memory for Machine {
    fn fill(&self, gpa: Gpa, len: usize, mut next: impl FnMut() -> u64) -> Result<(), OutsideRam> {
        assert_eq!((gpa.0 % 8, len % 8), (0, 0));
        let end = gpa.checked_add(len as u64).filter(|end| end.0 <= END);
        let end = end.ok_or(OutsideRam)?;
        for at in (gpa.0..end.0).step_by(8) {
            self.rig.borrow().ram().put(Gpa(at), next());
        }
        Ok(())
    }

    fn first_difference(
        &self,
        gpa: Gpa,
        len: usize,
        mut next: impl FnMut() -> u64,
    ) -> Result<Option<usize>, OutsideRam> {
        for at in (0..len).step_by(8) {
            let mut word = [0; 8];
            self.copy(gpa + at as u64, &mut word)?;
            if u64::from_le_bytes(word) != next() {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    fn read(&self, gpa: Gpa, into: &mut [u8]) -> Result<(), OutsideRam> {
        // A guest that waits reads memory again and again.
        self.go_on();
        self.copy(gpa, into)
    }
}

impl Registers for Machine {
    fn read32(&self, offset: u64) -> u32 {
        self.go_on();
        let mut data = [0; 4];
        self.rig.borrow().registers.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    fn write32(&self, offset: u64, value: u32) {
        self.store(offset, 4, value.into());
    }

    fn read64(&self, offset: u64) -> u64 {
        let mut data = [0; 8];
        self.rig.borrow().registers.read(offset, &mut data);
        u64::from_le_bytes(data)
    }

    fn write64(&self, offset: u64, value: u64) {
        self.store(offset, 8, value);
    }
}

impl Stores for Machine {
    fn store(&self, offset: u64, width: u8, value: u64) {
        let bytes = value.to_le_bytes();
        let bytes = &bytes[..usize::from(width)];
        self.rig.borrow_mut().store(offset, bytes);
        self.go_on();
    }

    fn load(&self, offset: u64) -> u64 {
        self.read64(offset)
    }
}

impl Slot for Machine {
    fn set_bus_master(&self, on: bool) {
        self.is_master.set(on);
    }

    fn reset(&self) -> bool {
        self.rig.borrow_mut().reset().is_ok()
    }
}

/// What the guest counted, its report, and whether it found anything wrong.
fn attack(machine: &Machine, seed: u64) -> (Counts, String, u64) {
    let ram = Ram::new(&[Gpa(START)..Gpa(END)]);
    let options = Options {
        seed,
        attempts: 300,
        ..Options::default()
    };
    let report = Report::new(String::new());
    let tally = Tally::new(ram.extents());
    let clock = Samples {
        now: || TIME.load(Relaxed),
        ticks_per_ms: 40,
        start: 0,
        next_ms: AtomicU64::new(u64::MAX),
    };
    let shared = Shared {
        memory: machine,
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
        registers: machine,
        own: Gpa(0xe000_0000),
        bytes: 0x1_0000,
        slot: machine,
        meddler: None,
    };
    let counts = attack.run();
    let wrong = report.wrong();
    (counts, format!("{report:?}"), wrong)
}

#[test]
fn a_guarded_controller_does_no_harm_and_works_in_the_end() {
    for seed in 1..=2 {
        let machine = Machine::new(Personality::default(), seed, None);
        let (counts, report, wrong) = attack(&machine, seed);
        assert_eq!(wrong, 0, "{report}");
        let [good, refused] = counts.completed;
        let all = [
            counts.io,
            counts.admin,
            good,
            refused,
            counts.rings,
            counts.stores,
            counts.forged,
            counts.scribbled,
            counts.disabled,
            counts.resets,
            counts.masters,
            counts.revived,
        ];
        assert!(all.iter().all(|count| *count > 0), "{counts:?}");
        assert_eq!((counts.sequences, counts.proofs), (300, 3));
        let model = &machine.rig.borrow().model;
        let [writes, reads] = [1, 2].map(|opcode| model.executed(false, opcode));
        assert!(
            writes > 100 && reads > 20,
            "{writes} writes, {reads} reads, {counts:?}"
        );
    }
}

#[test]
fn a_word_that_changes_is_found() {
    let damage = Gpa(END - 8 * 4096 - 64);
    let machine = Machine::new(Personality::default(), 1, Some(damage));
    let (_, report, wrong) = attack(&machine, 1);
    assert!(wrong > 0 && report.contains("not ok 2"), "{report}");
}

#[test]
fn a_controller_that_hangs_is_found() {
    let machine = Machine::new(Personality::default(), 1, None);
    machine.rig.borrow().model.misbehave(Misbehaviour {
        holds_io: true,
        ..Misbehaviour::default()
    });
    let (counts, report, wrong) = attack(&machine, 1);
    assert!(wrong > 0 && report.contains("not ok 1"), "{report}");
    assert_eq!(counts.proofs, 0);
}
