// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The work on a disk, done on a file, with faults of every kind put in and looked for by name.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test")]

use std::fs::File;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use linux_stress::arena::Arena;
use linux_stress::disk::worker::{Shared, Worker};
use linux_stress::disk::{Disk, MAX_BYTES, Subject, regions};
use linux_stress::meter::Meter;
use linux_stress::report::{Report, Status};
use linux_stress::stamp::Stamper;
use stress_format::{FindingKind, Line, Record, Totals};

const BYTES: u64 = 6 << 20;
const BLOCK: usize = 512;

/// Random transfers of each thread.
const TRANSFERS: u64 = 100;

/// Does something to the numbered call's data.
type Fault = fn(u64, &mut [u8], &File, u64) -> io::Result<()>;

fn pass_write(_: u64, data: &mut [u8], file: &File, offset: u64) -> io::Result<()> {
    file.write(data, offset)
}

fn pass_read(_: u64, data: &mut [u8], file: &File, offset: u64) -> io::Result<()> {
    file.read(data, offset)
}

struct Faulty {
    file: File,
    calls: AtomicU64,
    on_read: Fault,
    on_write: Fault,
}

impl Faulty {
    fn new() -> Self {
        let file = tempfile::tempfile().unwrap();
        file.set_len(BYTES).unwrap();
        Self {
            file,
            calls: AtomicU64::new(0),
            on_read: pass_read,
            on_write: pass_write,
        }
    }
}

impl Disk for Faulty {
    fn read(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        (self.on_read)(call, into, &self.file, offset)
    }

    fn write(&self, from: &[u8], offset: u64) -> io::Result<()> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        (self.on_write)(call, &mut from.to_vec(), &self.file, offset)
    }
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Run {
    status: Status,
    totals: Totals,
    problems: u64,
    /// Kinds and words of the findings.
    findings: Vec<(FindingKind, String)>,
}

impl Run {
    fn has(&self, kind: FindingKind, words: &str) -> bool {
        let mut findings = self.findings.iter();
        findings.any(|(found, text)| *found == kind && text.contains(words))
    }
}

/// [`TRANSFERS`] random transfers in each of `threads` threads, then a look at everything.
fn run(disk: Faulty, threads: usize, writable: bool) -> Run {
    let subject = Subject {
        disk,
        name: "file".into(),
        engine: 2,
        block: BLOCK,
        stamper: Stamper::new(11),
        regions: regions(BYTES, BLOCK, threads),
        writable,
    };
    let (lines, meter) = (Lines::default(), Meter::new());
    let report = Report::new(Box::new(lines.clone()));
    let shared = Shared {
        meter: &meter,
        report: &report,
        pagemap: None,
    };
    let mut problems = 0;
    for verifies in [false, true] {
        problems += std::thread::scope(|scope| {
            let workers: Vec<_> = (0_u64..)
                .zip(&subject.regions)
                .map(|(seed, region)| {
                    let worker =
                        Worker::new(&subject, region, shared, Arena::new(MAX_BYTES, 64), seed);
                    scope.spawn(move || {
                        if verifies {
                            worker.verify()
                        } else {
                            worker.mix(&|done| done < TRANSFERS)
                        }
                    })
                })
                .collect();
            let problems = workers.into_iter().map(|worker| worker.join().unwrap());
            problems.sum::<u64>()
        });
    }
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let findings = text.lines().filter_map(Line::parse).map(|line| match line {
        Line::Record(Record::Finding(finding)) => {
            assert_eq!(finding.engine, 2);
            (finding.kind, finding.text.to_string())
        }
        line => panic!("{line:?}"),
    });
    Run {
        status: report.status(),
        totals: meter.totals(),
        problems,
        findings: findings.collect(),
    }
}

#[test]
fn a_good_disk_has_no_problem() {
    let run = run(Faulty::new(), 4, true);
    assert_eq!(
        (run.status, run.problems),
        (Status::Passed, 0),
        "{:?}",
        run.findings
    );
    assert!(run.totals.transfers > 4 * TRANSFERS, "{:?}", run.totals);
    assert!(run.totals.bytes > BYTES, "{:?}", run.totals);
    assert!(run.totals.max >= run.totals.p99 && run.totals.p99 >= run.totals.p50);
}

#[test]
fn nothing_is_written_without_leave() {
    let mut disk = Faulty::new();
    disk.on_write = |_, _, _, _| panic!("a write");
    let run = run(disk, 2, false);
    assert_eq!((run.status, run.problems), (Status::Passed, 0));
    assert_eq!(run.totals.transfers, 4 * TRANSFERS);
}

#[test]
fn two_reads_that_differ_are_seen() {
    let mut disk = Faulty::new();
    disk.on_read = |call, data, file, offset| {
        file.read(data, offset)?;
        data[0] = u8::from(call == 9);
        Ok(())
    };
    let run = run(disk, 1, false);
    assert_eq!((run.status, run.totals.mismatches), (Status::Failed, 1));
    assert!(
        run.has(FindingKind::Mismatch, "differ from byte 0"),
        "{:?}",
        run.findings
    );
}

#[test]
fn a_flipped_bit_is_named() {
    let mut disk = Faulty::new();
    disk.on_write = |call, data, file, offset| {
        data[9] ^= u8::from(call % 50 == 0);
        file.write(data, offset)
    };
    let run = run(disk, 1, true);
    assert!(
        run.has(FindingKind::BitFlip, "the first in byte 9"),
        "{:?}",
        run.findings
    );
    assert!(run.totals.mismatches > 0 && run.problems >= run.totals.mismatches);
}

#[test]
fn a_dropped_write_is_named() {
    let mut disk = Faulty::new();
    disk.on_write = |call, data, file, offset| match call % 20 {
        0 => Ok(()),
        _ => file.write(data, offset),
    };
    let run = run(disk, 2, true);
    assert!(
        run.has(FindingKind::Mismatch, "stale: write "),
        "{:?}",
        run.findings
    );
}

#[test]
fn swapped_blocks_are_named() {
    let mut disk = Faulty::new();
    disk.on_write = |_, data, file, offset| {
        if data.len() >= 2 * BLOCK {
            data[..2 * BLOCK].rotate_left(BLOCK);
        }
        file.write(data, offset)
    };
    let run = run(disk, 1, true);
    assert!(
        run.has(FindingKind::Shifted, "misplaced: write "),
        "{:?}",
        run.findings
    );
}

#[test]
fn another_place_is_named() {
    let mut disk = Faulty::new();
    disk.on_write = |_, data, file, offset| {
        file.write(data, offset)?;
        // What belongs 4 MiB lower.
        let high = offset + (4 << 20);
        if high + (1 << 20) < BYTES {
            file.write(data, high)
        } else {
            Ok(())
        }
    };
    let run = run(disk, 1, true);
    assert!(
        run.has(FindingKind::WrongExtent, "misplaced: write "),
        "{:?}",
        run.findings
    );
}

#[test]
fn a_transfer_that_stops_short_is_named() {
    let mut disk = Faulty::new();
    disk.on_read = |_, data, file, offset| {
        let arrives = data.len() - 16;
        file.read(&mut data[..arrives], offset)
    };
    let run = run(disk, 1, true);
    assert!(
        run.has(FindingKind::Mismatch, "from byte 496 on nothing arrived"),
        "{:?}",
        run.findings
    );
}

#[test]
fn what_went_bad_after_the_last_read_is_found_in_the_end() {
    let mut disk = Faulty::new();
    disk.on_read = |call, data, file, offset| {
        file.read(data, offset)?;
        data[0] ^= u8::from(call >= TRANSFERS);
        Ok(())
    };
    let run = run(disk, 1, true);
    assert!(
        run.has(FindingKind::BitFlip, "the first in byte 0"),
        "{:?}",
        run.findings
    );
}

#[test]
fn an_error_is_named_and_not_waited_out() {
    let mut disk = Faulty::new();
    disk.on_read = |_, _, _, _| Err(io::ErrorKind::TimedOut.into());
    let failing = run(disk, 1, false);
    assert_eq!((failing.status, failing.problems), (Status::Failed, 8));
    assert!(failing.has(FindingKind::Timeout, "read of offset"));

    let mut disk = Faulty::new();
    disk.on_write = |call, data, file, offset| match call % 10 {
        0 => Err(io::Error::other("medium")),
        _ => file.write(data, offset),
    };
    let failing = run(disk, 1, true);
    assert!(failing.has(FindingKind::DeviceError, "medium"));
    assert_eq!(failing.totals.mismatches, 0, "{:?}", failing.findings);
}
