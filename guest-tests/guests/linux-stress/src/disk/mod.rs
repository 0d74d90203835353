// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Random reads, writes and verifies of disks.
//!
//! Each thread has a [`Region`] of a disk to itself, in which it alone writes, so that it can
//! verify which write of a block it must find. It also reads what the others are writing.

pub mod region;
pub mod worker;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::stamp::Stamper;
use region::Region;

/// What can be read and written at offsets.
pub trait Disk: Sync {
    /// Fills `into` from `offset` on.
    ///
    /// # Errors
    /// The system's.
    fn read(&self, into: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `from` from `offset` on.
    ///
    /// # Errors
    /// The system's.
    fn write(&self, from: &[u8], offset: u64) -> io::Result<()>;
}

impl Disk for File {
    fn read(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(into, offset)
    }

    fn write(&self, from: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(from, offset)
    }
}

/// A disk and what is known of its contents.
#[derive(Debug)]
pub struct Subject<D> {
    /// The disk.
    pub disk: D,
    /// Its name, for people.
    pub name: String,
    /// Its number, in the report and on its blocks.
    pub engine: u8,
    /// Bytes of a logical block.
    pub block: usize,
    /// Makes the blocks.
    pub stamper: Stamper,
    /// One for each thread.
    pub regions: Vec<Region>,
    /// Whether it may be written to.
    pub writable: bool,
}

/// Most bytes of a transfer.
pub const MAX_BYTES: usize = 1 << 20;

/// Bytes of a disk that are written to, at most.
const MAX_COVERED: u64 = 512 << 20;

/// Divides a disk of `bytes` among threads: regions of equal length, each covered in part if the disk is large.
#[must_use]
pub fn regions(bytes: u64, block: usize, threads: usize) -> Vec<Region> {
    let block = block.max(1) as u64;
    let threads = threads.max(1) as u64;
    let each = bytes / block / threads;
    let most = MAX_COVERED / block / threads;
    (0..threads)
        .map(|index| Region::new(index * each, each, most, (2 << 20) / block))
        .collect()
}
