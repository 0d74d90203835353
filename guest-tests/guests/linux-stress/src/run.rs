// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A run: finds the devices, lets all threads work, and reports.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use stress_format::{Engine, FindingKind, Mode, Record, Start};

use crate::arena::Arena;
use crate::disk::worker::{Shared, Worker};
use crate::disk::{MAX_BYTES, Subject, regions};
use crate::kernel_log::KernelLog;
use crate::meter::Meter;
use crate::net::interface;
use crate::net::worker::{Direction, Worker as NetWorker};
use crate::options::{Address, Options, Work};
use crate::pagemap::Pagemap;
use crate::pressure::Pressure;
use crate::report::{Report, Status};
use crate::stamp::Stamper;
use crate::sysfs::{self, DiskInfo, InterfaceInfo};
use crate::tsc;

/// Time between two samples.
const TICK: Duration = Duration::from_millis(250);

/// How long devices may take to appear, and how long it takes to believe that no more will.
const APPEARS: Duration = Duration::from_secs(15);
const SETTLES: Duration = Duration::from_secs(1);

/// Most disks: each has a number on its blocks.
const MAX_DISKS: usize = 64;

/// Returns how many problems it met.
type Job<'a> = Box<dyn FnOnce() -> u64 + Send + 'a>;

/// One line of the report, and the threads that it is about.
struct Test<'a> {
    name: String,
    jobs: Vec<Job<'a>>,
}

/// What is driven.
struct Devices {
    disks: Vec<Subject<File>>,
    interfaces: Vec<(InterfaceInfo, Address)>,
    memory: Memory,
}

/// How memory is shared, in bytes. All of it together is well below what there is.
#[derive(Clone, Copy)]
struct Memory {
    /// Buffers of one thread.
    arena: usize,
    /// What is filled to make memory scarce.
    pressure: usize,
}

impl Memory {
    /// Buffers lie all over memory, so that DMA goes there.
    fn share(available: usize, work: Work, threads: usize) -> Self {
        let percent = |part| available / 100 * part;
        let (arenas, pressure) = match work {
            Work::Mix => (percent(20), percent(40)),
            Work::Nvme | Work::Net => (percent(60), 0),
        };
        let arena = arenas / threads.max(1);
        Self { arena, pressure }
    }
}

/// Does what `options` request and reports the results.
pub fn run(options: &Options, report: &Report) -> Status {
    report.version();
    report.record(&Record::Start(Start {
        seed: options.seed,
        cpus: thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64),
        tsc_khz: tsc::khz(),
        mode: Mode::Identity,
        program: "linux-stress",
    }));
    let iomem = fs::read_to_string("/proc/iomem").unwrap_or_default();
    for ram in sysfs::ram(&iomem) {
        report.record(&Record::Ram(ram));
    }
    let log = KernelLog::from_now();
    let devices = match Devices::find(options, report) {
        Ok(devices) => devices,
        Err(reason) => {
            report.bail_out(reason);
            return Status::NotRun;
        }
    };
    let pagemap = Pagemap::open().ok();
    let meter = Meter::new();
    let shared = Shared {
        meter: &meter,
        report,
        pagemap: pagemap.as_ref(),
    };
    let deadline = Instant::now() + options.time;
    let goes_on = move |_| Instant::now() < deadline;
    let first = work(options, &devices, shared, &goes_on);
    let second = verification(options, &devices, shared);
    report.plan(first.len() + second.len() + usize::from(log.is_ok()));
    thread::scope(|scope| {
        let (end, ended) = channel::<()>();
        scope.spawn({
            let meter = &meter;
            move || {
                while ended.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                    report.record(&Record::Sample(meter.sample()));
                }
            }
        });
        do_all(first, report);
        do_all(second, report);
        drop(end);
    });
    if let Ok(mut log) = log {
        kernel_log(&mut log, shared);
    }
    end(&meter, report);
    report.status()
}

/// The last records.
fn end(meter: &Meter, report: &Report) {
    report.record(&Record::Sample(meter.sample()));
    let tally = meter.tally();
    for bar in tally.histogram.bars() {
        report.record(&Record::Latency(bar));
    }
    for piece in tally.landed() {
        report.record(&Record::Landed(piece));
    }
    report.record(&Record::Totals(meter.totals()));
}

/// Runs all jobs of all tests at the same time and reports how they ended.
fn do_all(tests: Vec<Test<'_>>, report: &Report) {
    thread::scope(|scope| {
        let running: Vec<_> = tests
            .into_iter()
            .map(|test| {
                let jobs = test.jobs.into_iter();
                let threads: Vec<_> = jobs.map(|job| scope.spawn(job)).collect();
                (test.name, threads)
            })
            .collect();
        for (name, threads) in running {
            let mut problems = 0;
            for thread in threads {
                // A thread that panicked has printed why.
                problems += thread.join().unwrap_or(1);
            }
            report.test(problems == 0, name);
        }
    });
}

/// What is done until the time is over.
fn work<'a>(
    options: &Options,
    devices: &'a Devices,
    shared: Shared<'a>,
    goes_on: &'a (dyn Fn(u64) -> bool + Sync),
) -> Vec<Test<'a>> {
    let mut seeds = (options.seed..=u64::MAX).chain(0..=u64::MAX);
    let mut seed = move || seeds.next().unwrap_or(0);
    let mut tests = Vec::new();
    for disk in &devices.disks {
        let job = |region| -> Job<'a> {
            let worker = Worker::new(disk, region, shared, devices.arena(), seed());
            Box::new(move || worker.mix(goes_on))
        };
        let jobs = disk.regions.iter().map(job).collect();
        let what = if disk.writable {
            "random reads, writes and verifies"
        } else {
            "random reads, compared (without destroy=yes nothing is written)"
        };
        tests.push(Test {
            name: format!("{}: {what}", disk.name),
            jobs,
        });
    }
    let engines = (devices.disks.len() as u64)..;
    for (engine, (interface, _)) in engines.zip(&devices.interfaces) {
        for (direction, what) in [(Direction::Down, "down"), (Direction::Up, "up")] {
            let job = net_job(options, devices, engine, interface, shared);
            let seed = seed();
            tests.push(Test {
                name: format!("{}: {what}", interface.name),
                jobs: vec![Box::new(move || job(direction, seed, goes_on))],
            });
        }
    }
    if options.work == Work::Mix {
        let limit = devices.memory.pressure;
        let pressure = Pressure::new(Path::new("/"), limit, seed(), shared);
        tests.push(Test {
            name: format!(
                "memory: up to {} MiB filled, moved and checked",
                limit >> 20
            ),
            jobs: vec![Box::new(move || pressure.run(goes_on))],
        });
    }
    tests
}

/// Transfers over an interface, in a given direction.
fn net_job<'a>(
    options: &Options,
    devices: &Devices,
    engine: u64,
    interface: &'a InterfaceInfo,
    shared: Shared<'a>,
) -> impl FnOnce(Direction, u64, &(dyn Fn(u64) -> bool + Sync)) -> u64 + Send + use<'a> {
    let server = options.server;
    // Requests take far longer than transfers of disks, in whose histogram they would be lost.
    let timed = devices.disks.is_empty();
    move |direction, seed, goes_on| {
        let Some(server) = server else { return 1 };
        let worker = NetWorker {
            connect: || interface::connect(&interface.name, server),
            host: server.to_string(),
            engine,
            shared,
            timed,
        };
        worker.run(direction, seed, goes_on)
    }
}

/// What is done in the end: all that was written is read. Each thread's own blocks are read by one.
fn verification<'a>(options: &Options, devices: &'a Devices, shared: Shared<'a>) -> Vec<Test<'a>> {
    let disks = devices.disks.iter().filter(|disk| disk.writable);
    let test = |disk: &'a Subject<File>| {
        let job = |region| -> Job<'a> {
            let worker = Worker::new(disk, region, shared, devices.arena(), options.seed);
            Box::new(move || worker.verify())
        };
        Test {
            name: format!("{}: final verify", disk.name),
            jobs: disk.regions.iter().map(job).collect(),
        }
    };
    disks.map(test).collect()
}

/// The last test: the drivers had nothing to complain of.
fn kernel_log(log: &mut KernelLog, shared: Shared<'_>) {
    let news = log.bad_news();
    for (kind, text) in &news {
        if *kind == FindingKind::LostInterrupt {
            shared.meter.lost_interrupt();
        }
        shared.report.failure(*kind, 0, &format!("kernel: {text}"));
    }
    shared.report.test(news.is_empty(), "kernel log: no errors");
}

impl Devices {
    /// Waits for the devices that `options` ask for, opens them, and reports each; an error names
    /// what is missing.
    fn find(options: &Options, report: &Report) -> Result<Self, String> {
        let wants_disks = options.work != Work::Net;
        let wants_net =
            options.work == Work::Net || options.server.is_some() && options.work == Work::Mix;
        if options.work == Work::Net && options.server.is_none() {
            return Err("stress=net needs server=IP/PORT".into());
        }
        if options.work == Work::Mix && options.server.is_none() {
            report.comment("no server=IP/PORT: network interfaces are left alone");
        }
        let (mut disks, mut interfaces) = wait_for(wants_disks, wants_net);
        disks.truncate(if wants_disks { MAX_DISKS } else { 0 });
        interfaces.truncate(if wants_net {
            options.addresses.len()
        } else {
            0
        });
        if disks.is_empty() && interfaces.is_empty() {
            return Err("there is no device to drive".into());
        }
        let disks = disks
            .into_iter()
            .zip(0..)
            .map(|(disk, engine)| open_disk(options, &disk, engine, report))
            .collect::<Result<Vec<_>, _>>()?;
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let available = sysfs::available_memory(&meminfo).unwrap_or(0);
        let threads = disks.len() * options.threads;
        let mut found = Self {
            disks,
            interfaces: Vec::new(),
            memory: Memory::share(available, options.work, threads),
        };
        for (interface, address) in interfaces.into_iter().zip(&options.addresses) {
            interface::bring_up(&interface.name, address)
                .map_err(|error| format!("cannot bring up {}: {error}", interface.name))?;
            let id = (found.disks.len() + found.interfaces.len()) as u64;
            tell_engine(report, id, &interface.function, &interface.name);
            found.interfaces.push((interface, *address));
        }
        for (interface, _) in &found.interfaces {
            wait_for_carrier(&interface.name);
        }
        Ok(found)
    }
}

impl Devices {
    /// Buffers for a thread.
    fn arena(&self) -> Arena {
        Arena::new(MAX_BYTES, self.memory.arena / Arena::PLACE)
    }
}

fn tell_engine(report: &Report, id: u64, function: &sysfs::Function, name: &str) {
    report.record(&Record::Engine(Engine {
        id,
        interrupt: function.interrupt,
        bdf: &function.bdf,
        name,
    }));
}

fn open_disk(
    options: &Options,
    disk: &DiskInfo,
    engine: u8,
    report: &Report,
) -> Result<Subject<File>, String> {
    let path = Path::new("/dev").join(&disk.name);
    let file = OpenOptions::new()
        .read(true)
        .write(options.may_write)
        .custom_flags(libc::O_DIRECT)
        .open(&path)
        .map_err(|error| format!("Cannot open {}: {error}", path.display()))?;
    tell_engine(report, engine.into(), &disk.function, &disk.name);
    if !options.may_write {
        report.comment(format_args!(
            "{} is only read: destroy=yes allows writing to it",
            disk.name
        ));
    }
    Ok(Subject {
        disk: file,
        name: disk.name.clone(),
        engine,
        block: disk.block,
        stamper: Stamper::new(options.seed),
        regions: regions(disk.bytes, disk.block, options.threads),
        writable: options.may_write,
    })
}

/// The disks and interfaces that are there once no more of them appear.
fn wait_for(disks: bool, interfaces: bool) -> (Vec<DiskInfo>, Vec<InterfaceInfo>) {
    let sys = Path::new("/sys");
    let look = || (sysfs::disks(sys), sysfs::interfaces(sys));
    let (mut found, mut since) = (look(), Instant::now());
    loop {
        let missing = disks && found.0.is_empty() || interfaces && found.1.is_empty();
        if since.elapsed() >= if missing { APPEARS } else { SETTLES } {
            return found;
        }
        thread::sleep(TICK / 2);
        let now = look();
        if now != found {
            (found, since) = (now, Instant::now());
        }
    }
}

fn wait_for_carrier(interface: &str) {
    let begin = Instant::now();
    while !sysfs::has_carrier(Path::new("/sys"), interface) && begin.elapsed() < APPEARS {
        thread::sleep(TICK / 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::Lines;

    #[test]
    fn memory_in_use_leaves_room_for_the_kernel() {
        let available = 400 << 20;
        for (work, pressure) in [(Work::Mix, true), (Work::Nvme, false)] {
            let memory = Memory::share(available, work, 4);
            let sum = memory.arena * 4 + memory.pressure;
            assert!(sum <= available / 100 * 60, "{work:?} {sum}");
            assert_eq!(memory.pressure > 0, pressure);
            assert!(memory.arena >= 10 << 20);
        }
        assert_eq!(Memory::share(0, Work::Net, 0).arena, 0);
    }

    #[test]
    fn a_test_fails_by_any_of_its_threads() {
        let lines = Lines::default();
        let report = lines.report();
        let test = |name: &str, jobs: Vec<Job<'static>>| Test {
            name: name.into(),
            jobs,
        };
        let tests = vec![
            test("good", vec![Box::new(|| 0), Box::new(|| 0)]),
            test("bad", vec![Box::new(|| 0), Box::new(|| 3)]),
            test("worse", vec![Box::new(|| panic!("on purpose"))]),
        ];
        do_all(tests, &report);
        assert_eq!(
            lines.text(),
            "ok 1 - good\nnot ok 2 - bad\nnot ok 3 - worse\n"
        );
        assert_eq!(report.status(), Status::Failed);
    }
}
