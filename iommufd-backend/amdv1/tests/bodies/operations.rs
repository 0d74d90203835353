// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Operations on a table and on a plain model of it: a map from pages to pages.

use std::collections::{BTreeMap, BTreeSet};

use address::{Hpa, Iova};
use amdv1::{
    Attributes, HeapTables, Leaf, Level, MapError, PageTables, Run, Table, TableAddress,
    TableMemory, TablePage, UnmapError,
};

const RW: Attributes = Attributes::all();
/// The space under test, in granules.
const SPAN: u64 = 1024;
/// Bytes of the header and of an operation.
const HEADER: usize = 3;
const OPERATION: usize = 6;

/// Runs the operations that `data` encodes: granule, base and memory, then six bytes each.
pub fn operations(data: &[u8]) {
    let Some((header, data)) = data.split_first_chunk::<HEADER>() else {
        return;
    };
    // 4 KiB, 2 MiB, 1 GiB, and the sizes that are special: no leaf, the largest natural one.
    let granule_lg2 = [12, 12, 21, 30, 39, 48][usize::from(header[0]) % 6];
    let base = base(granule_lg2, header[1]);
    let few_pages = usize::from(header[2] / 2) % 24 + 1;
    if header[2].is_multiple_of(2) {
        let memory = HeapTables::new();
        Driver::new(memory, granule_lg2, base).run(data);
    } else {
        let pages: Vec<_> = std::iter::repeat_with(TablePage::default)
            .take(few_pages)
            .collect();
        let at = TableAddress::new(0xf_0000_0000_0000).unwrap();
        let memory = PageTables::new(at, pages).unwrap();
        Driver::new(memory, granule_lg2, base).run(data);
    }
}

/// A space that lies around the border that a level of tables makes, or at an end.
fn base(granule_lg2: u32, choice: u8) -> u64 {
    let half = (SPAN / 2) << granule_lg2;
    match choice % 7 {
        0 => 0,
        1 => 0_u64.wrapping_sub(2 * half),
        nth => {
            let border = 1_u64 << (12 + 9 * (u32::from(nth) - 1));
            border.saturating_sub(half)
        }
    }
}

struct Driver<M> {
    table: Table<M>,
    /// Granule by number, counted from `base`, to the granule that it is mapped to.
    model: BTreeMap<u64, u64>,
    granule_lg2: u32,
    base: u64,
}

impl<M: TableMemory> Driver<M> {
    fn new(memory: M, granule_lg2: u32, base: u64) -> Self {
        Self {
            table: Table::new(memory).unwrap(),
            model: BTreeMap::new(),
            granule_lg2,
            base,
        }
    }

    fn run(mut self, data: &[u8]) {
        for (nth, operation) in data.chunks_exact(OPERATION).enumerate() {
            self.operation(operation);
            if nth % 32 == 31 {
                self.check_all();
            }
        }
        self.check_all();
        self.check_emptied();
    }

    fn operation(&mut self, bytes: &[u8]) {
        let word = |nth: usize| u64::from(u16::from_le_bytes([bytes[nth], bytes[nth + 1]]));
        let at = word(1) % SPAN;
        // Mostly short, some long.
        let len = 1 + u64::from(bytes[3]) % if word(4) % 8 == 0 { 256 } else { 16 };
        let len = len.min(SPAN - at);
        match bytes[0] % 8 {
            0..=2 => self.map(at, len, word(4)),
            3 | 4 => self.unmap(at, len),
            5 => self.unmap_whole_pages(at, len),
            6 => self.translate(at, len, word(4)),
            _ if word(4) % 64 == 0 => {
                self.table.clear();
                self.model.clear();
                assert_eq!(self.table.memory().in_use(), 1);
                assert_eq!(self.table.root().level, Level::START);
            }
            _ => self.check_extents(),
        }
    }

    fn iova(&self, granule: u64) -> Iova {
        Iova(self.base.wrapping_add(granule << self.granule_lg2))
    }

    fn bytes(&self, granules: u64) -> u64 {
        granules << self.granule_lg2
    }

    fn range(at: u64, len: u64) -> std::ops::Range<u64> {
        at..at + len
    }

    fn map(&mut self, at: u64, len: u64, hpa: u64) {
        let granules = 1 << (52 - self.granule_lg2);
        let len = len.min(granules);
        let hpa = match hpa % 4 {
            // Congruent, so that large pages fit.
            0 | 1 => (self.iova(at).0 >> self.granule_lg2) % granules,
            2 => at.wrapping_add(hpa & !0xf) % granules,
            _ => hpa.wrapping_mul(0x9e37_79b9_7f4a_7c15) % granules,
        };
        let hpa = hpa.min(granules - len);
        let free = self.model.range(Self::range(at, len)).next().is_none();
        let to = Hpa(self.bytes(hpa));
        match self.table.map(self.iova(at), to, self.bytes(len), RW) {
            Ok(()) => {
                assert!(free, "mapped over another");
                self.model.extend((at..at + len).zip(hpa..));
            }
            Err(MapError::InUse { .. }) => assert!(!free, "refused though free"),
            Err(MapError::OutOfTables { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn unmap(&mut self, at: u64, len: u64) {
        let range = Self::range(at, len);
        let mapped = self.model.range(range.clone()).count() as u64;
        match self.table.unmap(self.iova(at), self.bytes(len)) {
            Ok(bytes) => {
                assert_eq!(bytes, self.bytes(mapped));
                self.model.retain(|granule, _| !range.contains(granule));
            }
            Err(UnmapError::OutOfTables { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn unmap_whole_pages(&mut self, at: u64, len: u64) {
        // In bytes: a granule of 512 GiB is two pages.
        let (asked, mut expected) = (self.bytes(len), 0);
        while expected < asked {
            let iova = Iova(self.iova(at).0.wrapping_add(expected));
            match self.table.lookup(iova).filter(|leaf| leaf.iova == iova) {
                Some(leaf) => expected += leaf.size.bytes(),
                None => break,
            }
        }
        let bytes = self.table.unmap_whole_pages(self.iova(at), asked);
        let expected = expected >> self.granule_lg2;
        assert_eq!(bytes, self.bytes(expected));
        let range = Self::range(at, expected);
        assert_eq!(self.model.range(range.clone()).count() as u64, expected);
        self.model.retain(|granule, _| !range.contains(granule));
    }

    fn translate(&self, at: u64, len: u64, seed: u64) {
        let offset = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) & (self.bytes(1) - 1);
        let iova = self.iova(at) + offset;
        let hpa = self
            .model
            .get(&at)
            .map(|hpa| Hpa(self.bytes(*hpa) + offset));
        assert_eq!(self.table.translate(iova), hpa);
        assert_eq!(
            self.table.lookup(iova).map(|leaf| leaf.hpa_of(iova)),
            hpa,
            "the quick walk and the careful one differ"
        );
        let asked = self.bytes(len);
        let contiguous = (1..)
            .take_while(|more| {
                let next = self.model.get(&(at + more));
                next.is_some() && next.copied() == self.model.get(&at).map(|hpa| hpa + more)
            })
            .last()
            .unwrap_or(0);
        let run = hpa.map(|hpa| Run {
            hpa,
            len: asked.min(self.bytes(contiguous + 1) - offset),
        });
        assert_eq!(self.table.run(iova, asked), run);
        assert_eq!(self.table.run(iova, 0), None);
    }

    fn leaves(&self) -> Vec<Leaf> {
        let all = self.table.leaves(Iova(0), Iova(u64::MAX));
        all.map(Result::unwrap).collect()
    }

    /// Leaves do not overlap, and together are the model.
    fn check_all(&self) {
        let mut left = self.model.clone();
        let mut half = false;
        for leaf in self.leaves() {
            let first = leaf.iova.0.wrapping_sub(self.base) >> self.granule_lg2;
            if leaf.size.lg2() < self.granule_lg2 {
                // The first or second half of 512 GiB.
                let hpa = if half {
                    left.remove(&first)
                } else {
                    left.get(&first).copied()
                };
                let expected = hpa.map(|hpa| self.bytes(hpa) + u64::from(half) * leaf.size.bytes());
                assert_eq!(expected, Some(leaf.hpa.0));
                half = !half;
                continue;
            }
            for nth in 0..leaf.size.bytes() >> self.granule_lg2 {
                let expected = left.remove(&(first + nth)).map(|hpa| self.bytes(hpa));
                assert_eq!(expected, Some(leaf.hpa.0 + self.bytes(nth)));
            }
        }
        assert!(left.is_empty(), "not mapped: {left:x?}");
        self.check_tables();
        self.check_walks();
    }

    /// The quick walk and the careful one agree, also where nothing ever was.
    fn check_walks(&self) {
        for granule in (0..SPAN).step_by(5) {
            for reach in [64, 48, 39, 30, 21] {
                let iova = Iova(self.iova(granule).0 & (u64::MAX >> (64 - reach)));
                let careful = self.table.lookup(iova).map(|leaf| leaf.hpa_of(iova));
                assert_eq!(self.table.translate(iova), careful, "{iova}");
            }
        }
    }

    /// Every table is on the way to a page, or was made for one that is gone; none is lost.
    fn check_tables(&self) {
        let top = self.table.root().level;
        let mut needed = BTreeSet::new();
        for leaf in self.leaves() {
            let mut level = leaf.size.level();
            while level < top {
                let span = level.last_offset();
                needed.insert((level, leaf.iova.0 & !span));
                level = level.above().unwrap();
            }
        }
        assert!(self.table.memory().in_use() > needed.len());
    }

    fn check_extents(&self) {
        let mut expected: Vec<(Iova, Run)> = Vec::new();
        for (granule, hpa) in &self.model {
            let (iova, hpa) = (self.iova(*granule), Hpa(self.bytes(*hpa)));
            match expected.last_mut() {
                Some((start, run))
                    if Some(iova) == start.checked_add(run.len) && hpa == run.hpa + run.len =>
                {
                    run.len += self.bytes(1);
                }
                _ => {
                    let len = self.bytes(1);
                    expected.push((iova, Run { hpa, len }));
                }
            }
        }
        let extents: Result<Vec<_>, _> = self.table.extents().collect();
        assert_eq!(extents, Ok(expected));
    }

    /// Everything unmapped, exactly: what is left are the top and the tops that it grew over.
    fn check_emptied(mut self) {
        // Whole pages, so that no memory for tables is needed.
        for leaf in self.leaves() {
            let bytes = leaf.size.bytes();
            assert_eq!(self.table.unmap(leaf.iova, bytes), Ok(bytes));
        }
        for (iova, len) in [(0, 1 << 63), (1 << 63, (1 << 63) - 4096), (!0xfff, 4096)] {
            self.table.unmap(Iova(iova), len).unwrap();
        }
        assert_eq!(self.leaves(), []);
        assert_eq!(self.table.memory().in_use(), 1);
        assert_eq!(self.table.into_memory().in_use(), 0);
    }
}
