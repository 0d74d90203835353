// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A page of shared memory on node 1, and what moves it.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::ops::Range;

use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, memfd_create};

use super::super::pages::{Mapping, PAGE, pagemap};
use crate::error::{AtPath, Error, Result};

/// The NUMA node of all pages, and its folder. Node 0 has the kernel's own, which cannot move.
const NODE: u32 = 1;
pub const FOLDER: &str = "/sys/devices/system/node/node1";

/// What is mapped at once when a page is looked for.
const REGION: usize = 32 << 20;

/// KiB of node 1 that are left alone.
const RESERVE_KIB: u64 = 48 << 10;

const NAME: &str = "memory of a memfd";

/// A kind of page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// 4 KiB.
    Small,
    /// 2 MiB of the pool of hugepages, as guest memory is.
    Huge,
}

impl Kind {
    /// Small pages first: the pool of hugepages takes all that is free.
    pub const ALL: [Self; 2] = [Self::Small, Self::Huge];

    /// Its name in keys.
    pub fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Huge => "huge",
        }
    }

    fn size(self) -> usize {
        match self {
            Self::Small => PAGE,
            Self::Huge => 2 << 20,
        }
    }

    fn flags(self) -> MemfdFlags {
        match self {
            Self::Small => MemfdFlags::CLOEXEC,
            Self::Huge => MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB,
        }
    }

    /// Whether node 1 has a region left.
    fn has_room(self) -> Result<bool> {
        Ok(match self {
            Self::Small => {
                let path = format!("{FOLDER}/meminfo");
                let text = fs::read_to_string(&path).at("read", &path)?;
                let free = text.lines().find(|line| line.contains("MemFree:"));
                let kib = free.and_then(|line| line.split_whitespace().nth(3)?.parse::<u64>().ok());
                kib >= Some(RESERVE_KIB + (REGION as u64 >> 10))
            }
            Self::Huge => {
                let path = format!("{FOLDER}/hugepages/hugepages-2048kB/free_hugepages");
                let text = fs::read_to_string(&path).at("read", &path)?;
                text.trim().parse().ok() >= Some(REGION / self.size())
            }
        })
    }

    /// Makes free memory available to it.
    fn prepare(self) -> Result<()> {
        let pages = match self {
            Self::Small => "0",
            // More than there is.
            Self::Huge => "4096",
        };
        let path = format!("{FOLDER}/hugepages/hugepages-2048kB/nr_hugepages");
        fs::write(&path, pages).at("write", &path)
    }
}

/// What became of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is at another place.
    Moved,
    /// It is where it was.
    Stayed,
    /// Its contents are different.
    Changed,
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Moved => "moved",
            Self::Stayed => "stayed",
            Self::Changed => "changed",
        })
    }
}

/// A page with contents, which were in `frame` in the beginning.
#[derive(Debug)]
pub struct Page {
    kind: Kind,
    file: File,
    offset: usize,
    mapping: Mapping,
    frame: u64,
}

impl Page {
    /// A page in a frame that is `wanted`, if node 1 has one.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Usage`]
    pub fn find(kind: Kind, wanted: impl Fn(u64) -> bool) -> Result<Option<Self>> {
        kind.prepare()?;
        // Kept until one is found, so that each is other memory.
        let mut regions = Vec::new();
        while kind.has_room()? {
            let file: File = memfd_create("region", kind.flags())
                .map_err(io::Error::from)
                .at("create", NAME)?
                .into();
            file.set_len(REGION as u64).at("size", NAME)?;
            let mapping = Mapping::on_node(&file, 0, REGION, NODE).at("map", NAME)?;
            let frames = mapping.frames(&pagemap()?)?;
            let mut firsts = frames.iter().step_by(kind.size() / PAGE);
            let found = firsts.position(|frame| frame.is_some_and(&wanted));
            if let Some(number) = found {
                drop(mapping);
                return Self::alone(kind, file, number * kind.size()).map(Some);
            }
            regions.push((file, mapping));
        }
        Ok(None)
    }

    /// The page at `offset`, and nothing else of the file.
    fn alone(kind: Kind, file: File, offset: usize) -> Result<Self> {
        let end = offset + kind.size();
        for range in [0..offset, end..REGION] {
            let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            let (start, len) = (range.start as u64, range.len() as u64);
            if len > 0 {
                fallocate(&file, hole, start, len)
                    .map_err(io::Error::from)
                    .at("make a hole in", NAME)?;
            }
        }
        let mut mapping = Mapping::on_node(&file, offset, kind.size(), NODE).at("map", NAME)?;
        for (number, word) in (0..).zip(mapping.words()) {
            *word = pattern(number);
        }
        let mut page = Self {
            kind,
            file,
            offset,
            mapping,
            frame: 0,
        };
        page.frame = page.current_frame()?;
        Ok(page)
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The file that it is in.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where it is in the file.
    pub fn range(&self) -> Range<u64> {
        let start = self.offset as u64;
        start..start + self.kind.size() as u64
    }

    /// Its first frame in the beginning.
    pub fn frame(&self) -> u64 {
        self.frame
    }

    /// Moves it to another node; see move_pages(2).
    ///
    /// # Errors
    /// [`Error::File`]
    pub fn migrate(&self, node: i32) -> Result<()> {
        self.mapping.migrate(node).at("move", NAME)
    }

    /// Takes its memory out of use; see madvise(2), `MADV_SOFT_OFFLINE`.
    ///
    /// # Errors
    /// [`Error::File`]
    pub fn soft_offline(&self) -> Result<()> {
        self.mapping.soft_offline().at("take away", NAME)
    }

    /// What became of it.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Usage`]
    pub fn verdict(&self) -> Result<Verdict> {
        let mut again =
            Mapping::of_file(&self.file, self.offset, self.kind.size()).at("map", NAME)?;
        let is_same = (0..)
            .zip(again.words())
            .all(|(number, word)| *word == pattern(number));
        let is_there = self.current_frame()? == self.frame;
        Ok(match (is_same, is_there) {
            (false, _) => Verdict::Changed,
            (true, true) => Verdict::Stayed,
            (true, false) => Verdict::Moved,
        })
    }

    fn current_frame(&self) -> Result<u64> {
        let frames = self.mapping.frames(&pagemap()?)?;
        let first = frames.first().copied().flatten();
        first.ok_or_else(|| Error::Usage("A locked page is not present".into()))
    }
}

fn pattern(number: u64) -> u64 {
    number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
