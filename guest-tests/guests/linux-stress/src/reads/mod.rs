// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Random reads of a disk, many under way at a time: `linux-stress reads 'disk=/dev/nvme0n1 count=100000 depth=32'`. With
//! `batch=N` as many are submitted by one system call, once as many have ended; with `pages=N` each is of as many pages of
//! 4 KiB.
//!
//! For measurements, in a guest and beside it. The reads are between two lines of output and 200 ms of silence on
//! either side, so that what else is counted in between can be told apart.

mod aio;

use std::io::{self, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use aio::{BLOCK, Queue};

/// What precedes the reads, as a line.
pub const BEGIN: &str = "reads: begin";
/// What begins the line that follows them.
pub const END: &str = "reads: end ";
/// How long nothing happens before the reads, and after them.
pub const SILENCE: Duration = Duration::from_millis(200);

/// Most pages of a read: 1 MiB.
const MAX_PAGES: usize = 256;

/// What to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reads {
    disk: PathBuf,
    count: u64,
    depth: usize,
    batch: Option<usize>,
    pages: usize,
}

impl Reads {
    /// Takes `disk=PATH count=N depth=N [batch=N] [pages=N]`; `batch` divides `depth`, and `pages` is 256 at
    /// most.
    ///
    /// # Errors
    /// The word that is wrong, or the one that is missing.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (mut disk, mut count, mut depth, mut batch, mut pages) = (None, None, None, None, 1);
        for word in text.split_whitespace() {
            let known = match word.split_once('=') {
                Some(("disk", path)) => disk.replace(PathBuf::from(path)).is_none(),
                Some(("count", number)) => number.parse().map(|n| count = Some(n)).is_ok(),
                Some(("depth", number)) => number.parse().map(|n| depth = Some(n)).is_ok(),
                Some(("batch", number)) => number.parse().map(|n| batch = Some(n)).is_ok(),
                Some(("pages", number)) => number.parse().map(|n| pages = n).is_ok(),
                _ => false,
            };
            if !known {
                return Err(format!("unknown: {word}"));
            }
        }
        let depth: usize = depth
            .filter(|depth| *depth > 0)
            .ok_or("depth= is missing")?;
        if batch.is_some_and(|batch: usize| batch == 0 || !depth.is_multiple_of(batch)) {
            return Err("depth= is no multiple of batch=".to_owned());
        }
        if !(1..=MAX_PAGES).contains(&pages) {
            return Err(format!("pages= is not in 1 to {MAX_PAGES}"));
        }
        Ok(Self {
            disk: disk.ok_or("disk= is missing")?,
            count: count
                .filter(|count| *count > 0)
                .ok_or("count= is missing")?,
            depth,
            batch,
            pages,
        })
    }

    /// Reads, and prints how long that took.
    ///
    /// # Errors
    /// As of `open(2)`, or that of the first read that failed.
    pub fn run(&self) -> io::Result<()> {
        let mut queue = Queue::open(&self.disk, self.depth, self.pages)?;
        let mut end = queue.file();
        let places = end.seek(SeekFrom::End(0))? / self.bytes();
        if places == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        println!("{BEGIN}");
        io::stdout().flush()?;
        thread::sleep(SILENCE);
        let began = Instant::now();
        self.read(&mut queue, places)?;
        let elapsed = began.elapsed();
        thread::sleep(SILENCE);
        println!(
            "{END}count={} depth={} pages={} ns={}",
            self.count,
            self.depth,
            self.pages,
            elapsed.as_nanos()
        );
        io::stdout().flush()
    }

    fn bytes(&self) -> u64 {
        (self.pages * BLOCK) as u64
    }

    fn read(&self, queue: &mut Queue, places: u64) -> io::Result<()> {
        let mut random = fastrand::Rng::with_seed(1);
        let mut left = usize::try_from(self.count).unwrap_or(usize::MAX);
        let mut under_way = 0;
        let mut free: Vec<usize> = (0..self.depth).collect();
        let mut reads = Vec::with_capacity(self.depth);
        // What is submitted at once, at most and at least.
        let (most, least) = self.batch.map_or((self.depth, 1), |batch| (batch, batch));
        while left > 0 || under_way > 0 {
            while left > 0 && free.len() >= least.min(left) {
                let count = most.min(left).min(free.len());
                for slot in free.drain(free.len() - count..) {
                    reads.push((slot, random.u64(0..places) * self.bytes()));
                }
                queue.submit(&reads)?;
                reads.clear();
                left -= count;
                under_way += count;
            }
            let before = free.len();
            free.extend(queue.wait(least.min(under_way))?);
            under_way -= free.len() - before;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_understood_or_named() {
        let reads = Reads::parse("disk=/dev/x count=7 depth=2").unwrap();
        assert_eq!((reads.count, reads.depth), (7, 2));
        assert_eq!(reads.batch, None);
        let batches = Reads::parse("disk=/dev/x count=7 depth=8 batch=4");
        assert_eq!(batches.unwrap().batch, Some(4));
        for (text, error) in [
            (
                "disk=/dev/x count=7 depth=6 batch=4",
                "depth= is no multiple of batch=",
            ),
            ("count=7 depth=2", "disk= is missing"),
            ("disk=/dev/x count=0 depth=2", "count= is missing"),
            ("disk=/dev/x count=7", "depth= is missing"),
            ("disk=/dev/x count=x", "unknown: count=x"),
            ("much", "unknown: much"),
            (
                "disk=/dev/x count=7 depth=2 pages=0",
                "pages= is not in 1 to 256",
            ),
        ] {
            assert_eq!(Reads::parse(text).unwrap_err(), error);
        }
    }

    #[test]
    fn as_many_blocks_are_read_as_were_asked_for() {
        let file = tempfile::NamedTempFile::new_in(".").unwrap();
        file.as_file().set_len(64 * BLOCK as u64).unwrap();
        for (count, depth) in [(1, 1), (100, 1), (3, 8), (1000, 32)] {
            let text = format!("disk={} count={count} depth={depth}", file.path().display());
            Reads::parse(&text).unwrap().run().unwrap();
        }
        for (count, batch) in [(1, 1), (100, 8), (7, 8), (33, 16)] {
            let disk = file.path().display();
            let text = format!("disk={disk} count={count} depth=16 batch={batch}");
            Reads::parse(&text).unwrap().run().unwrap();
        }
        let disk = file.path().display();
        let text = format!("disk={disk} count=9 depth=4 pages=16");
        Reads::parse(&text).unwrap().run().unwrap();
        file.as_file().set_len(0).unwrap();
        let text = format!("disk={} count=1 depth=1", file.path().display());
        assert!(Reads::parse(&text).unwrap().run().is_err());
    }
}
