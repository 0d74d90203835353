// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Making memory scarce: memory that nothing else may change is filled, held and looked at, while the kernel moves
//! pages about and gives up what it can.

use std::collections::VecDeque;
use std::fs;
use std::path::Path;

use stress_format::{Finding, FindingKind};

use crate::disk::worker::Shared;
use crate::stamp::{Stamp, Stamper};

/// Number of this memory among what holds stamped data; disks come first.
const MEDIUM: u8 = u8::MAX;

const KIB: usize = 1024;

/// Files to write, one at a time, below `/`.
const WISHES: &[(&str, &str)] = &[
    // Linux Documentation/admin-guide/sysctl/vm.rst
    ("proc/sys/vm/compact_memory", "1"),
    ("proc/sys/vm/drop_caches", "3"),
    (HUGEPAGES, "always"),
    (HUGEPAGES, "never"),
];

/// Which memory is made of hugepages where possible
/// (Linux Documentation/admin-guide/mm/transhuge.rst).
const HUGEPAGES: &str = "sys/kernel/mm/transparent_hugepage/enabled";

/// Memory that is held.
#[derive(Debug)]
pub struct Pressure<'a> {
    root: &'a Path,
    stamper: Stamper,
    shared: Shared<'a>,
    rng: fastrand::Rng,
    limit: usize,
    held: usize,
    pieces: VecDeque<(Vec<u8>, Stamp)>,
    written: u32,
    problems: u64,
}

impl<'a> Pressure<'a> {
    /// Holds up to `limit` bytes; the kernel's files are looked for below `root`.
    #[must_use]
    pub fn new(root: &'a Path, limit: usize, seed: u64, shared: Shared<'a>) -> Self {
        Self {
            root,
            stamper: Stamper::new(seed),
            shared,
            rng: fastrand::Rng::with_seed(seed),
            limit,
            held: 0,
            pieces: VecDeque::new(),
            written: 0,
            problems: 0,
        }
    }

    /// Continues as long as `goes_on` returns true for the number of steps done. Returns how many
    /// pieces of memory had changed.
    pub fn run(mut self, goes_on: &(dyn Fn(u64) -> bool + Sync)) -> u64 {
        let hugepages = fs::read_to_string(self.root.join(HUGEPAGES)).unwrap_or_default();
        let mut done = 0;
        while goes_on(done) {
            match self.rng.u32(0..100) {
                0..60 => self.hold(),
                60..95 => self.look_and_free(),
                _ => self.wish(),
            }
            done += 1;
        }
        while !self.pieces.is_empty() {
            self.look_and_free();
        }
        if let Some(before) = chosen(&hugepages) {
            self.tell(HUGEPAGES, before);
        }
        self.problems
    }

    fn hold(&mut self) {
        // From a few pages to two huge ones.
        let len = (4 * KIB) << self.rng.u32(0..=10);
        if self.held + len > self.limit {
            return self.look_and_free();
        }
        self.written = self.written.wrapping_add(1);
        let stamp = Stamp {
            medium: MEDIUM,
            offset: 0,
            generation: self.written,
        };
        let mut piece = vec![0; len];
        self.stamper.fill(&mut piece, stamp);
        self.held += len;
        self.pieces.push_back((piece, stamp));
    }

    fn look_and_free(&mut self) {
        if self.pieces.is_empty() {
            return;
        }
        let index = self.rng.usize(0..self.pieces.len());
        let Some((piece, stamp)) = self.pieces.swap_remove_back(index) else {
            return;
        };
        self.held -= piece.len();
        if self.stamper.is_filled(&piece, stamp) {
            return;
        }
        self.problems += 1;
        self.shared.meter.guard_hit();
        let mut right = vec![0; piece.len()];
        self.stamper.fill(&mut right, stamp);
        let at = piece.iter().zip(&right).position(|(a, b)| a != b);
        let (at, wrong) = at.map_or((0, &piece[..]), |at| (at, &piece[at..]));
        let text = format!(
            "memory changed that no transfer was for: byte {at} of {}, now {:02x?}",
            piece.len(),
            &wrong[..wrong.len().min(16)]
        );
        self.shared.report.finding(&Finding {
            kind: FindingKind::GuardHit,
            engine: 0,
            gpa: self.shared.pagemap.map_or(0, |pagemap| pagemap.gpa(wrong)),
            len: piece.len() as u64,
            text: &text,
        });
    }

    fn wish(&mut self) {
        let (path, text) = WISHES[self.rng.usize(0..WISHES.len())];
        self.tell(path, text);
    }

    fn tell(&self, path: &str, text: &str) {
        // A kernel without it is under less pressure.
        let _ = fs::write(self.root.join(path), text);
    }
}

/// The word in brackets.
fn chosen(words: &str) -> Option<&str> {
    let (_, rest) = words.split_once('[')?;
    Some(rest.split_once(']')?.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::Meter;
    use crate::report::testing::Lines;

    #[test]
    fn held_memory_stays_below_the_limit_and_is_released() {
        let (lines, meter) = (Lines::default(), Meter::new());
        let report = lines.report();
        let shared = Shared {
            meter: &meter,
            report: &report,
            pagemap: None,
        };
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("proc/sys/vm")).unwrap();
        let mut pressure = Pressure::new(folder.path(), 8 << 20, 3, shared);
        for _ in 0..100 {
            pressure.hold();
            assert!(pressure.held <= 8 << 20);
        }
        let sum: usize = pressure.pieces.iter().map(|(piece, _)| piece.len()).sum();
        assert_eq!(pressure.held, sum);
        assert_eq!(pressure.run(&|done| done < 500), 0);
        assert_eq!(lines.text(), "");
        let told = fs::read_to_string(folder.path().join("proc/sys/vm/compact_memory"));
        assert_eq!(told.unwrap(), "1");
    }

    #[test]
    fn the_choice_of_hugepages_is_put_back() {
        let (lines, meter) = (Lines::default(), Meter::new());
        let report = lines.report();
        let shared = Shared {
            meter: &meter,
            report: &report,
            pagemap: None,
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(HUGEPAGES);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "always [madvise] never\n").unwrap();
        let pressure = Pressure::new(folder.path(), 1 << 20, 3, shared);
        assert_eq!(pressure.run(&|done| done < 500), 0);
        assert_eq!(fs::read_to_string(&path).unwrap(), "madvise");
        assert_eq!(chosen("always"), None);
    }

    #[test]
    fn a_changed_byte_is_found() {
        let (lines, meter) = (Lines::default(), Meter::new());
        let report = lines.report();
        let shared = Shared {
            meter: &meter,
            report: &report,
            pagemap: None,
        };
        let mut pressure = Pressure::new(Path::new("/nonexistent"), 8 << 20, 3, shared);
        pressure.hold();
        pressure.pieces[0].0[1234] ^= 1;
        assert_eq!(pressure.run(&|_| false), 1);
        let text = lines.text();
        assert!(
            text.contains("kind=guard-hit") && text.contains("byte 1234 of"),
            "{text}"
        );
        assert_eq!(meter.totals().guard_hits, 1);
    }
}
