// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A run on a machine in software finds nothing if all is well, and names what is not.

#![expect(clippy::unwrap_used, reason = "a test may end here")]

mod machine;

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use address::Gpa;
use dma_stress::canary::Canaries;
use dma_stress::dma_address::DmaMap;
use dma_stress::engine::Engine;
use dma_stress::engine::edu::Edu;
use dma_stress::options::Options;
use dma_stress::place::Reservations;
use dma_stress::ram::Ram;
use dma_stress::report::Report;
use dma_stress::stress::{Job, Samples, Shared, tests};
use dma_stress::tally::Tally;
use machine::{BASE, Fault, Machine, SIZE, Scattered};
use stress_format::{FindingKind, Line, Record, Totals};

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
    totals: Totals,
}

impl Outcome {
    /// Kinds and texts of the findings.
    fn findings(&self) -> Vec<(FindingKind, String)> {
        self.log
            .lines()
            .filter_map(|line| match Line::parse(line) {
                Some(Line::Record(Record::Finding(finding))) => {
                    Some((finding.kind, finding.text.to_owned()))
                }
                _ => None,
            })
            .collect()
    }

    fn failed(&self) -> usize {
        self.log
            .lines()
            .filter(|line| line.starts_with("not ok"))
            .count()
    }

    fn has(&self, kind: FindingKind, text: &str) -> bool {
        self.findings()
            .iter()
            .any(|(found, why)| *found == kind && why.contains(text))
    }
}

fn run(fault: Fault, options: &str) -> Outcome {
    run_with(&DmaMap::Identity, fault, options)
}

fn run_with(dma: &DmaMap, fault: Fault, options: &str) -> Outcome {
    let end = BASE + SIZE as u64 - 8192;
    let ram =
        [(BASE, BASE + (2 << 20)), (BASE + (2 << 20), end)].map(|(from, to)| Gpa(from)..Gpa(to));
    let mut ram = Ram::new(&ram);
    ram.set_seams(dma.seams(ram.extents(), 100, &mut fastrand::Rng::with_seed(9)));
    let canaries = Canaries::new(ram.take_canaries(8, &mut fastrand::Rng::with_seed(9)));
    let machine = Machine::new(fault);
    canaries.write(&machine);
    let log = Log::default();
    let (report, tally) = (Report::new(log.clone()), Tally::new(ram.extents()));
    let (reservations, options) = (Reservations::default(), Options::parse(options).unwrap());
    static TIME: AtomicU64 = AtomicU64::new(0);
    let clock = Samples {
        now: || TIME.fetch_add(1, Relaxed),
        ticks_per_ms: 1,
        start: 0,
        next_ms: AtomicU64::new(0),
    };
    let shared = Shared {
        memory: &machine,
        ram: &ram,
        reservations: &reservations,
        report: &report,
        tally: &tally,
        options: &options,
        clock: &clock,
    };
    let mut edu = Edu::new(machine.clone(), machine.clone(), dma.clone()).unwrap();
    assert_eq!(edu.self_test(), Ok(()));
    let planned = tests(&edu, &options, &ram);
    Job {
        shared: &shared,
        id: 0,
        name: "edu",
    }
    .run(&mut edu);
    assert!(fault == Fault::Hang || !reservations.touches(&(Gpa(0)..Gpa(u64::MAX))));
    assert!(fault != Fault::None || canaries.check(&machine, |_| ()) == 0);
    let log = log.0.lock().unwrap().clone();
    let reported = log.lines().filter(|line| line.contains("ok ")).count() as u64;
    assert_eq!(reported, planned);
    Outcome {
        log,
        totals: tally.totals(1),
    }
}

#[test]
fn a_machine_that_is_well_passes() {
    let outcome = run(Fault::None, "transfers=3000 bytes=4000000");
    assert_eq!(
        (outcome.failed(), outcome.findings()),
        (0, vec![]),
        "{}",
        outcome.log
    );
    assert!(outcome.totals.transfers >= 3000 && outcome.totals.bytes >= 4_000_000);
    assert_eq!(
        outcome
            .log
            .lines()
            .filter(|line| line.starts_with("ok"))
            .count(),
        21
    );
}

#[test]
fn scattered_memory_is_reached_through_the_table() {
    let options = "transfers=400 bytes=1";
    let translate = DmaMap::Translate(Arc::new(Scattered));
    let outcome = run_with(&translate, Fault::Scattered, options);
    assert_eq!((outcome.failed(), outcome.findings()), (0, vec![]));
    assert!(outcome.log.contains("ok 7 - edu 0, polling: across phys"));

    // A monitor that finds addresses itself is given pieces that it can find.
    let outcome = run_with(&DmaMap::Mediate, Fault::None, options);
    assert_eq!((outcome.failed(), outcome.findings()), (0, vec![]));
}

#[test]
fn a_wrong_table_is_reported() {
    let translate = DmaMap::Translate(Arc::new(Scattered));
    let outcome = run_with(&translate, Fault::ScatteredSwap, "transfers=400 bytes=1");
    assert!(
        outcome.has(FindingKind::Shifted, "0x1000)"),
        "{}",
        outcome.log
    );
}

#[test]
fn the_same_seed_is_the_same_run() {
    let totals = |seed| {
        run(Fault::None, &format!("seed={seed} transfers=300 bytes=1"))
            .totals
            .bytes
    };
    assert_eq!(totals(1), totals(1));
    assert_ne!(totals(1), totals(2));
}

#[test]
fn a_flipped_bit_is_reported() {
    let outcome = run(Fault::Bit(50), "transfers=400 bytes=1");
    assert!(
        outcome.has(FindingKind::BitFlip, "bit 2 of byte"),
        "{}",
        outcome.log
    );
    assert!(
        outcome
            .findings()
            .iter()
            .all(|(kind, _)| *kind == FindingKind::BitFlip)
    );
    assert!(outcome.totals.mismatches >= 3);
}

#[test]
fn an_offset_is_reported_with_its_distance() {
    for (fault, distance) in [
        (Fault::Offset(4096), "(+0x1000)"),
        (Fault::Offset(-4096), "(-0x1000)"),
        (Fault::WriteOffset(4096), "(+0x1000)"),
        (Fault::WriteOffset(-64), "(-0x40)"),
        (Fault::WriteOffset(3), "(+0x3)"),
    ] {
        let outcome = run(fault, "transfers=400 bytes=1 irq=msi");
        assert!(
            outcome.has(FindingKind::Shifted, distance),
            "{fault:?} {}",
            outcome.log
        );
    }
}

#[test]
fn swapped_extents_are_reported() {
    let outcome = run(Fault::Swap, "transfers=200 bytes=1 irq=polling");
    assert!(
        outcome.has(FindingKind::WrongExtent, "the data was written at"),
        "{}",
        outcome.log
    );
    assert!(
        outcome.has(FindingKind::WrongExtent, "0x200000)"),
        "{}",
        outcome.log
    );
}

#[test]
fn lost_interrupts_are_counted() {
    let outcome = run(Fault::Interrupt(40), "transfers=400 bytes=1 irq=msi");
    assert!(outcome.has(FindingKind::LostInterrupt, "did not come"));
    let Totals {
        transfers,
        lost_interrupts,
        mismatches,
        ..
    } = outcome.totals;
    assert_eq!((lost_interrupts, mismatches), (transfers / 40, 0));
    assert!(
        run(Fault::Interrupt(40), "transfers=400 bytes=1 irq=polling")
            .findings()
            .is_empty()
    );
}

#[test]
fn a_byte_too_many_is_a_guard_hit() {
    let outcome = run(Fault::Overrun, "transfers=100 bytes=1 irq=polling");
    assert!(
        outcome.has(FindingKind::GuardHit, "a byte 1 behind the buffer"),
        "{}",
        outcome.log
    );
    assert!(outcome.totals.guard_hits > 0 && outcome.totals.mismatches == 0);
}

#[test]
fn an_engine_that_hangs_is_given_up_and_all_its_tests_fail() {
    let outcome = run(Fault::Hang, "transfers=100 bytes=1 irq=intx");
    assert!(outcome.has(FindingKind::Timeout, "does not end"));
    assert_eq!(outcome.failed(), 7);
    let edu = Edu::new(
        Machine::new(Fault::None),
        Machine::new(Fault::None),
        DmaMap::Identity,
    )
    .unwrap();
    assert_eq!(edu.limits().most, 4096);
}

#[test]
fn classes_without_a_place_leave_no_transfer_out() {
    #[derive(Debug)]
    struct Whole;
    impl dma_stress::dma_address::Translate for Whole {
        fn translate(
            &self,
            gpa: Gpa,
            len: u64,
        ) -> Result<dma_window::Run, dma_window::TranslateError> {
            Ok(dma_window::Run {
                hpa: address::Hpa(gpa.0),
                len,
            })
        }
    }
    let translate = DmaMap::Translate(Arc::new(Whole));
    let outcome = run_with(&translate, Fault::None, "transfers=2400 bytes=1");
    assert!(outcome.log.contains("discontinuities # SKIP"));
    assert!(
        outcome.totals.transfers >= 2400,
        "{}",
        outcome.totals.transfers
    );
}
