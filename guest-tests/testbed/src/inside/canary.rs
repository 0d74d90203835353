// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Holds a pattern in nearly all of free memory while a command runs: nothing but this process may change it.
//!
//! Of the first 512 MiB, where the control's guest has its memory, it holds what it can; elsewhere it leaves as much as the
//! command needs. On aarch64 these are the first 512 MiB from 2 GiB on: the kernel has most of its own memory below.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::Duration;

use super::pages::{Backing, Mapping, PAGE, free_mib, pagemap};
use crate::error::{AtPath, Result};

/// Pages of the control's guest: [1 MiB, 512 MiB), on aarch64 from 2 GiB on.
const LOW: std::ops::Range<u64> = match cfg!(target_arch = "aarch64") {
    false => 0x100..0x2_0000,
    true => 0x8_0000..0xa_0000,
};

const CHUNK: usize = 2 << 20;

/// Between two looks at the pool.
const TAKE_EVERY: Duration = Duration::from_millis(1);

/// Exit status if a word changed or too little was held.
const REPORTED: i32 = 9;

/// Bit 10 of an entry of kpageflags: the page is free (Linux include/uapi/linux/kernel-page-flags.h).
const BUDDY: u64 = 1 << 10;

/// What to hold.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Canary {
    /// MiB to leave to the command, elsewhere.
    #[arg(long, default_value_t = 300)]
    leave_mib: usize,
    /// Least share of the free pages in these 512 MiB to hold, in percent.
    #[arg(long, default_value_t = 80)]
    least_percent: usize,
}

/// Holds the pattern, runs the command, checks every word. Returns the command's status if all is well.
///
/// # Errors
/// [`Error::File`](crate::Error::File), or what the command's start returns.
pub fn run(canary: Canary, command: &[String]) -> Result<i32> {
    let pagemap = pagemap()?;
    let free = free_low_frames()?;
    settle_memory()?;
    let mut chunks = hold(canary.leave_mib, &pagemap)?;
    drain_lists()?;
    for chunk in &mut chunks {
        chunk.frames = chunk.mapping.frames(&pagemap)?;
        chunk.fill();
    }
    let held = chunks
        .iter()
        .flat_map(Chunk::frames)
        .filter(|frame| free.contains(frame))
        .count();
    let percent = held * 100 / free.len().max(1);
    println!("testbed: canary_mib={}", (chunks.len() * CHUNK) >> 20);
    println!("testbed: canary_percent={percent}");

    let status = super::run(command)?;

    let mut report = Report::default();
    for chunk in &mut chunks {
        chunk.check(&mut report);
        chunk.compare(&chunk.mapping.frames(&pagemap)?, &mut report);
    }
    println!("testbed: canary_changed={}", report.changed);
    println!("testbed: canary_moved={}", report.moved);
    for (address, word) in &report.first {
        println!("canary: physical {address:#x} holds {word:#x}");
    }
    if let Some((from, to)) = report.first_moved {
        println!("canary: frame {from:x?} is {to:x?} now");
    }
    let well = report.changed == 0 && report.moved == 0 && percent >= canary.least_percent;
    Ok(if well { status } else { REPORTED })
}

/// Holds the pattern in every hugepage of 2 MiB that the pool has left before or while the command runs:
/// memory that a guest gave back, or gives back. Reports what it found under `key`, and returns the command's status.
///
/// # Errors
/// [`Error::File`](crate::Error::File), or what the command's start returns.
pub fn pool(key: &str, command: &[String]) -> Result<i32> {
    let pagemap = pagemap()?;
    let mut chunks = Vec::new();
    take_free(&mut chunks, &pagemap)?;
    let mut child = super::start(command)?;
    let status = loop {
        if let Some(status) = child.try_wait().at("wait for", "the command")? {
            break super::code(status);
        }
        take_free(&mut chunks, &pagemap)?;
        thread::sleep(TAKE_EVERY);
    };
    let mut report = Report::default();
    for chunk in &mut chunks {
        chunk.check(&mut report);
    }
    println!("testbed: {key}_held={}", chunks.len());
    println!("testbed: {key}_changed={}", report.changed);
    println!("testbed: {key}_pages={}", report.pages);
    for (address, word) in &report.first {
        println!("canary: physical {address:#x} holds {word:#x}");
    }
    Ok(status)
}

/// Takes every hugepage of 2 MiB that is free, and fills it.
fn take_free(chunks: &mut Vec<Chunk>, pagemap: &File) -> Result<()> {
    while let Ok(mapping) = Mapping::new(CHUNK, Backing::Hugepage) {
        let frames = mapping.frames(pagemap)?;
        let mut chunk = Chunk { mapping, frames };
        chunk.fill();
        chunks.push(chunk);
    }
    Ok(())
}

/// Words that changed.
#[derive(Debug, Default)]
struct Report {
    changed: usize,
    /// Pages of 4 KiB with such words.
    pages: usize,
    /// Chunks with pages that moved, and the frame of the first such page before and after.
    moved: usize,
    first_moved: Option<(Option<u64>, Option<u64>)>,
    first: Vec<(u64, u64)>,
}

/// 2 MiB of pattern.
#[derive(Debug)]
struct Chunk {
    mapping: Mapping,
    frames: Vec<Option<u64>>,
}

impl Chunk {
    fn fill(&mut self) {
        for (page, frame) in self.mapping.words().chunks_mut(PAGE / 8).zip(&self.frames) {
            for (index, word) in (0..).zip(page) {
                *word = pattern(frame.unwrap_or(0), index);
            }
        }
    }

    fn check(&mut self, report: &mut Report) {
        for (page, frame) in self.mapping.words().chunks(PAGE / 8).zip(&self.frames) {
            check_page(frame.unwrap_or(0), page, report);
        }
    }

    /// Compares where its pages are with where they are `now`.
    fn compare(&self, now: &[Option<u64>], report: &mut Report) {
        let pages = || self.frames.iter().copied().zip(now.iter().copied());
        if let Some(moved) = pages().find(|(before, now)| before != now) {
            report.moved += 1;
            report.first_moved.get_or_insert(moved);
        }
    }

    fn frames(&self) -> impl Iterator<Item = u64> {
        self.frames.iter().copied().flatten()
    }
}

/// A word that encodes its place and looks like nothing else.
fn pattern(frame: u64, index: u64) -> u64 {
    (frame << 9 | index)
        .wrapping_add(1)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn check_page(frame: u64, page: &[u64], report: &mut Report) {
    let before = report.changed;
    for (index, word) in (0..).zip(page) {
        if *word != pattern(frame, index) {
            report.changed += 1;
            if report.first.len() < 8 {
                report.first.push((frame << 12 | index << 3, *word));
            }
        }
    }
    report.pages += usize::from(report.changed > before);
}

/// Frames of [`LOW`] that are free now.
fn free_low_frames() -> Result<std::collections::HashSet<u64>> {
    let path = "/proc/kpageflags";
    let file = File::open(path).at("open", path)?;
    let mut bytes = vec![0; usize::try_from((LOW.end - LOW.start) * 8).unwrap_or_default()];
    file.read_exact_at(&mut bytes, LOW.start * 8)
        .at("read", path)?;
    let flags = bytes
        .as_chunks()
        .0
        .iter()
        .map(|entry| u64::from_le_bytes(*entry));
    Ok(LOW
        .zip(flags)
        .filter(|(_, flags)| flags & BUDDY != 0)
        .map(|(frame, _)| frame)
        .collect())
}

/// Lets user memory reach the low zones, and nothing move pages afterwards.
fn settle_memory() -> Result<()> {
    for (path, value) in [
        ("/proc/sys/vm/lowmem_reserve_ratio", "0 0 0 0"),
        ("/proc/sys/vm/min_free_kbytes", "2048"),
        ("/proc/sys/vm/compact_unevictable_allowed", "0"),
        ("/sys/kernel/mm/transparent_hugepage/khugepaged/defrag", "0"),
        ("/sys/kernel/mm/transparent_hugepage/defrag", "never"),
    ] {
        fs::write(path, value).at("write", path)?;
    }
    Ok(())
}

/// Makes the kernel put what was locked last on the list of pages that stay. Until then compaction may move them
/// (mm/compaction.c, `isolate_migratepages_block`); to compact begins with that (`compact_nodes`).
fn drain_lists() -> Result<()> {
    let path = "/proc/sys/vm/compact_memory";
    fs::write(path, "1").at("write", path)
}

/// Takes memory until little is left, then gives chunks above [`LOW`] back until `leave_mib` are free.
fn hold(leave_mib: usize, pagemap: &File) -> Result<Vec<Chunk>> {
    let mut chunks = Vec::new();
    while free_mib()? > 48 {
        match Mapping::new(CHUNK, Backing::Transparent) {
            Ok(mapping) => {
                let frames = mapping.frames(pagemap)?;
                chunks.push(Chunk { mapping, frames });
            }
            Err(error) if error.kind() == io::ErrorKind::OutOfMemory => break,
            Err(source) => return Err(source).at("map", "memory for the canary"),
        }
    }
    let mut kept = Vec::new();
    let mut to_leave = leave_mib.saturating_sub(free_mib()?);
    for chunk in chunks {
        let is_low = chunk.frames().any(|frame| LOW.contains(&frame));
        if is_low || to_leave == 0 {
            kept.push(chunk);
        } else {
            to_leave = to_leave.saturating_sub(CHUNK >> 20);
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_changed_word_is_found_with_its_address() {
        let mut page: Vec<u64> = (0..512).map(|index| pattern(7, index)).collect();
        let mut report = Report::default();
        check_page(7, &page, &mut report);
        assert_eq!(report.changed, 0);
        page[3] ^= 1 << 40;
        check_page(7, &page, &mut report);
        assert_eq!((report.changed, report.first[0].0), (1, 0x7018));
        check_page(8, &page, &mut report);
        assert_eq!(report.changed, 513);
    }
}
