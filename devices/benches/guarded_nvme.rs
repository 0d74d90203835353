// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What it costs to check, translate and rebuild a command of a guarded NVMe controller, in instructions.
//!
//! Valgrind's callgrind counts them in this program itself, which repeats a command more or less often. The table is the
//! one that a run has, with memory in single pages.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a benchmark on data of its own"
)]

use std::env;
use std::hint::black_box;
use std::process::{Command, ExitCode};

use address::{Gpa, Hpa};
use amdv1::TablePage;
use devices::guarded_nvme::{Access, Translate};
use devices::guest_table::{GuestTable, Piece, Pieces};
use guarded_nvme::check::io::{Rules, Verdict, check};
use guarded_nvme::guest::GuestMemory;
use guarded_nvme::spec::Entry;
use guarded_nvme_testing::{VecList, core};

const PAGE: u64 = 4096;
/// Pages of the guest's memory.
const PAGES: u64 = 512;
/// Where it begins: above 4 GiB.
const BASE: Gpa = Gpa(4 << 30);
/// The page of the guest's PRP list; its data is from the page after it on.
const LIST: Gpa = BASE;

/// Commands by the pages of their data, and the most instructions that one may take.
const COMMANDS: [(u64, Option<u64>); 4] = [(1, Some(150)), (2, None), (32, None), (256, None)];
/// Repetitions, the difference of which counts.
const FEW: u64 = 1000;
const MANY: u64 = 3000;

/// The word before a number of pages and of repetitions.
const REPEAT: &str = "--repeat";

/// A guest with a PRP list.
struct Guest {
    table: GuestTable<Box<[TablePage]>>,
    list: Vec<u64>,
}

impl Guest {
    fn new() -> Self {
        // In the opposite order, so that no two pages are contiguous.
        let piece = |page| Piece {
            gpa: BASE + page * PAGE,
            hpa: Hpa(8 << 30) + (PAGES - page) * PAGE,
            len: PAGE,
        };
        let pieces = Pieces::new((0..PAGES).map(piece)).unwrap();
        let pages = (0..pieces.table_pages()).map(|_| TablePage::default());
        Self {
            table: GuestTable::build(&pieces, Gpa(0), pages.collect()).unwrap(),
            list: (2..PAGES).map(|page| (BASE + page * PAGE).0).collect(),
        }
    }

    /// A read of `pages` pages, with blocks of 4 KiB.
    fn read(pages: u64) -> Entry {
        let second = match pages {
            1 => 0,
            2 => (BASE + 2 * PAGE).0,
            _ => LIST.0,
        };
        Entry::new([2 | 2 << 32, 0, 0, (BASE + PAGE).0, second, 77, pages - 1, 0])
    }
}

impl Translate for Guest {
    fn page(&self, gpa: Gpa, access: Access) -> Option<Hpa> {
        Translate::page(&self.table, gpa, access)
    }
}

impl GuestMemory for Guest {
    /// As a monitor does: memory is what the table has.
    fn read(&self, gpa: Gpa, data: &mut [u8]) -> bool {
        let len = data.len() as u64;
        let run = self.table.translate(gpa, len).filter(|run| run.len == len);
        let slot = gpa.0.checked_sub(LIST.0).map(|bytes| bytes / 8);
        let slot = slot.and_then(|slot| usize::try_from(slot).ok());
        let (Some(_), Some(entries)) = (run, slot.and_then(|slot| self.list.get(slot..))) else {
            return false;
        };
        for (word, entry) in data.chunks_exact_mut(8).zip(entries) {
            word.copy_from_slice(&entry.to_le_bytes());
        }
        data.len() <= 8 * entries.len()
    }

    fn write(&self, _: Gpa, _: &[u8]) -> bool {
        false
    }

    fn load(&self, gpa: Gpa) -> Option<u64> {
        let mut word = [0; 8];
        self.read(gpa, &mut word).then(|| u64::from_le_bytes(word))
    }

    fn publish(&self, _: Gpa, _: u64) -> bool {
        false
    }
}

/// Checks a read repeatedly.
fn repeat(pages: u64, times: u64) {
    let guest = Guest::new();
    let limits = core::limits(9);
    let namespaces = core::namespaces();
    let rules = Rules {
        limits: &limits,
        namespaces: &namespaces,
    };
    let mut list = VecList::new(Hpa(1 << 30), 511);
    let entry = Guest::read(pages);
    for _ in 0..times {
        let verdict = check(black_box(&entry), &rules, &guest, &mut list);
        let Verdict::Forward(command) = &verdict else {
            panic!("{verdict:?}");
        };
        black_box(command);
    }
}

/// Instructions of this program that repeats a command.
fn count(pages: u64, times: u64) -> u64 {
    let program = env::current_exe().unwrap();
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args([REPEAT, &pages.to_string(), &times.to_string()])
        .output()
        .expect("valgrind, of the package of that name");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    let line = text
        .lines()
        .find_map(|line| line.split_once("Collected : "));
    line.expect("a count").1.trim().parse().unwrap()
}

fn main() -> ExitCode {
    let words: Vec<String> = env::args().collect();
    if let Some(at) = words.iter().position(|word| word == REPEAT) {
        let [pages, times] = [1, 2].map(|next| words[at + next].parse().unwrap());
        repeat(pages, times);
        return ExitCode::SUCCESS;
    }
    // `cargo test` has no use for it.
    if !words.iter().any(|word| word == "--bench") {
        for (pages, _) in COMMANDS {
            repeat(pages, 1);
        }
        return ExitCode::SUCCESS;
    }
    let mut are_met = true;
    println!(
        "| pages of a command | instructions | for each page | target | met |\n|---|---|---|---|---|"
    );
    for (pages, most) in COMMANDS {
        let each = (count(pages, MANY) - count(pages, FEW)) / (MANY - FEW);
        let is_met = most.is_none_or(|most| each <= most);
        are_met &= is_met;
        let target = most.map_or(String::new(), |most| format!("≤ {most}"));
        let met = match (most, is_met) {
            (None, _) => "",
            (_, true) => "yes",
            (_, false) => "no",
        };
        println!("| {pages} | {each} | {} | {target} | {met} |", each / pages);
    }
    if are_met {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
