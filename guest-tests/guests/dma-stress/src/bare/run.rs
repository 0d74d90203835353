// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The run, from the first line of the report to the last.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};

use address::Gpa;
use dma_stress::canary::Canaries;
use dma_stress::dma_address::DmaMap;
use dma_stress::hostile::{self, Attack};
use dma_stress::options::Options;
use dma_stress::place::Reservations;
use dma_stress::report::Report;
use dma_stress::stress::{self, Job, Samples, Shared};
use dma_stress::tally::Tally;
use stress_format::{self as format, FindingKind, Interrupt, Mode, Record};

use super::arch::serial::Port;
use super::arch::{entry, interrupts, power, traps};
use super::engines::{self, Attacked, Found, Way};
use super::machine::Machine;
use super::peers::{self, Couple};
use super::physical::PhysicalMemory;
use super::serial::{self, Console};
use super::window::Window;
use super::{clock, end, heap, smp};

/// Most processors that are used.
const PROCESSORS: usize = 4;
/// Most pages that are watched.
const CANARIES: usize = 256;
/// Most discontinuities of host memory to search for.
const SEAMS: usize = 1024;

/// Runs everything and ends the machine, of which the loader has handed over `data`.
pub fn run(data: u64) -> ! {
    serial::init(Port::open());
    traps::init();
    heap::init();
    let report = Report::new(Console);
    let verdict = Machine::take_over(data)
        .map_err(String::from)
        .and_then(|machine| stress(machine, &report))
        .unwrap_or_else(|why| {
            serial::last_words(format_args!("Bail out! {why}"));
            end::NOTHING
        });
    power::off(verdict)
}

fn stress(mut machine: Machine, report: &Report<Console>) -> Result<u8, String> {
    let line = machine.command_line.clone();
    let options = Options::parse(&line).map_err(|word| format!("invalid argument {word}"))?;
    let way = way(&machine, &options)?;
    let mode = way.dma.mode();
    let mut random = fastrand::Rng::with_seed(options.seed);
    let seams = way.dma.seams(machine.ram.extents(), SEAMS, &mut random);
    machine.ram.set_seams(seams);
    let canaries = Canaries::new(machine.ram.take_canaries(CANARIES, &mut random));
    let memory = memory(&machine);
    canaries.write(&memory);

    interrupts::enable();
    let running = start_processors(&machine, report);
    let found = engines::find(&machine, &options, way);
    introduce_machine(report, &machine, &options, mode, running);
    introduce_engines(report, &options, &found);
    let couples = match mode {
        Mode::Identity | Mode::Iommu => peers::find(&found, &options),
        // Neither the window nor the monitor has the addresses of other devices' memory.
        Mode::Translate | Mode::Mediate => Vec::new(),
    };
    for couple in &couples {
        couple.introduce(report);
    }

    let tally = Tally::new(machine.ram.extents());
    let reservations = Reservations::default();
    let clock = Samples {
        now: clock::now,
        ticks_per_ms: machine.ticks_per_ms,
        start: clock::now(),
        next_ms: AtomicU64::new(0),
    };
    let shared = Shared {
        memory: &memory,
        ram: &machine.ram,
        reservations: &reservations,
        report,
        tally: &tally,
        options: &options,
        clock: &clock,
    };
    report.plan(tests(&shared, &found, &couples));
    run_extras(&shared, &found);
    run_all(&shared, &found, &canaries, running);
    for couple in &couples {
        couple.run(&shared);
    }
    check(&canaries, &shared);
    conclude(report, &tally, machine.ticks_per_ms);
    Ok(match (found.is_empty(), report.wrong()) {
        (true, _) => end::NOTHING,
        (false, 0) => end::PASSED,
        (false, _) => end::FAILED,
    })
}

/// What transfers may touch: RAM around the image, and memory of devices.
fn memory(machine: &Machine) -> PhysicalMemory {
    let image = entry::image();
    let mut ranges = machine.ram.around(&(Gpa(image.start)..Gpa(image.end)));
    let functions = machine.functions.iter();
    ranges.extend(functions.flat_map(|function| function.memory_bars()));
    // SAFETY: all of it is mapped; the image, where everything of ours is, is no part of it.
    unsafe { PhysicalMemory::new(ranges) }
}

/// How many tests there are.
fn tests(shared: &Shared<'_, PhysicalMemory, Console>, found: &Found, couples: &[Couple]) -> u64 {
    let items = found.items.iter();
    let transfers: u64 = items
        .map(|item| stress::tests(&**item.engine.lock(), shared.options, shared.ram))
        .sum();
    let canaries = 1;
    transfers
        + couples.iter().map(Couple::tests).sum::<u64>()
        + found.extras.len() as u64
        + found.attacked.len() as u64 * hostile::TESTS
        + found.guarded.len() as u64 * hostile::nvme::TESTS
        + canaries
}

/// The test that what no transfer may touch is as it was.
fn check(canaries: &Canaries, shared: &Shared<'_, PhysicalMemory, Console>) {
    let report = shared.report;
    let hits = canaries.check(shared.memory, |hit| canary_finding(report, hit));
    shared.tally.guard_hits.fetch_add(hits, SeqCst);
    report.test(
        hits == 0,
        format_args!("{} pages that no transfer may access", canaries.len()),
    );
}

/// How devices reach memory here: by the command line, or through the DMA window if there is one.
fn way(machine: &Machine, options: &Options) -> Result<Way, String> {
    let without = |dma| Ok(Way { dma, window: None });
    match options.mode {
        Some(Mode::Mediate) => return without(DmaMap::Mediate),
        Some(Mode::Identity) => return without(DmaMap::Identity),
        _ => (),
    }
    match Window::find(machine) {
        Some(window) => window.map(|window| Way {
            dma: window.map.clone(),
            window: Some(window),
        }),
        None if options.mode == Some(Mode::Translate) => Err("there is no DMA window".into()),
        None => without(DmaMap::Identity),
    }
}

fn start_processors(machine: &Machine, report: &Report<Console>) -> usize {
    let missing = |id| report.comment(format_args!("processor {id} does not start"));
    match &machine.others {
        Ok((starter, others)) => {
            let others = &others[..others.len().min(PROCESSORS - 1)];
            smp::start(starter, others, machine.ticks_per_ms, missing)
        }
        Err(why) => {
            report.comment(format_args!("{why}"));
            1
        }
    }
}

fn introduce_machine(
    report: &Report<Console>,
    machine: &Machine,
    options: &Options,
    mode: Mode,
    running: usize,
) {
    report.record(Record::Start(format::Start {
        seed: options.seed,
        cpus: running as u64,
        tsc_khz: machine.ticks_per_ms,
        mode,
        program: "dma-stress",
    }));
    for extent in machine.ram.extents() {
        report.record(Record::Ram(format::Ram {
            gpa: extent.start.0,
            len: extent.end - extent.start,
        }));
    }
}

fn introduce_engines(report: &Report<Console>, options: &Options, found: &Found) {
    for (id, item) in (0..).zip(&found.items) {
        let kinds = stress::kinds(&**item.engine.lock(), options);
        report.record(Record::Engine(format::Engine {
            id,
            interrupt: kinds.last().copied().unwrap_or(Interrupt::Polling),
            bdf: &item.bdf,
            name: item.name,
        }));
    }
    let attacked = found.attacked.iter().map(|item| (&item.bdf, hostile::NAME));
    let guarded = found.guarded.iter();
    let guarded = guarded.map(|item| (&item.bdf, hostile::nvme::NAME));
    for (id, (bdf, name)) in (found.items.len() as u64..).zip(attacked.chain(guarded)) {
        report.record(Record::Engine(format::Engine {
            id,
            interrupt: Interrupt::Polling,
            bdf,
            name,
        }));
    }
}

/// Runs the tests without transfers.
fn run_extras(shared: &Shared<'_, PhysicalMemory, Console>, found: &Found) {
    for extra in &found.extras {
        extra.run(shared.report, shared.memory, shared.options.seed);
    }
    if found.provoked > 0 {
        shared.report.record(Record::Provoked(format::Provoked {
            least: found.provoked,
            most: found.provoked,
        }));
    }
}

/// Deals the engines out to the processors; one without an engine watches the canaries.
fn run_all(
    shared: &Shared<'_, PhysicalMemory, Console>,
    found: &Found,
    canaries: &Canaries,
    running: usize,
) {
    let items = &found.items;
    let left = AtomicUsize::new(items.len());
    let work = |processor: usize| {
        for (id, attacked) in (items.len() as u64..).zip(&found.attacked) {
            attack(shared, id, attacked, processor, running);
        }
        let first = (items.len() + found.attacked.len()) as u64;
        for (id, guarded) in (first..).zip(&found.guarded) {
            guarded.attack(shared, id, processor, running);
        }
        for (id, item) in items.iter().enumerate().skip(processor).step_by(running) {
            let name = item.name;
            let id = id as u64;
            Job { shared, id, name }.run(&mut **item.engine.lock());
            left.fetch_sub(1, SeqCst);
        }
        let mut changed = false;
        while processor > 0 && left.load(SeqCst) > 0 && !changed {
            changed = canaries.check(shared.memory, |_| ()) > 0;
        }
    };
    smp::work_together(running, &work);
}

/// One processor attacks, and the others disturb it.
fn attack(
    shared: &Shared<'_, PhysicalMemory, Console>,
    id: u64,
    attacked: &Attacked,
    processor: usize,
    running: usize,
) {
    let (registers, race) = (&attacked.registers, &attacked.race);
    if processor > 0 {
        // The timer ends the sleep.
        let seed = shared.options.seed + processor as u64;
        race.take_part(registers, seed, interrupts::enable_and_hlt);
        return;
    }
    let attack = Attack {
        shared,
        id,
        registers,
        own: attacked.own,
        race: (running > 1).then_some(race),
    };
    attack.run();
}

fn canary_finding(report: &Report<Console>, gpa: Gpa) {
    report.finding(format::Finding {
        kind: FindingKind::GuardHit,
        engine: 0,
        gpa: gpa.0,
        len: 0,
        text: "memory changed that no transfer may access",
    });
}

fn conclude(report: &Report<Console>, tally: &Tally, ticks_per_ms: u64) {
    for bar in tally.latency().bars() {
        report.record(Record::Latency(bar));
    }
    for landed in tally.landed() {
        report.record(Record::Landed(landed));
    }
    report.record(Record::Totals(tally.totals(ticks_per_ms)));
}
