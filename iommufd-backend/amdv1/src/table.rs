// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A table and its translations.

use address::{Hpa, Iova};

use crate::level::{ENTRIES, Level};
use crate::memory::{EntryRun, HeapTables, OutOfTables, TABLE_BYTES, TableAddress, TableMemory};
use crate::pte::{Entry, Place};
use crate::walk::{self, Leaf, Leaves, ReadEntry, Root, Run, WalkError};

/// A page table in memory `M`.
///
/// It starts as one empty table of 512 GiB ([`Level::START`]) and grows at the top when a
/// mapping needs more.
#[derive(Clone, Debug)]
pub struct Table<M> {
    pub(crate) memory: M,
    pub(crate) root: Root,
    /// A pointer to the table of level 2 at IOVA 0, where almost everything is mapped, however
    /// high the tree is; empty if there is none.
    low: Entry,
}

/// An empty table on the heap.
impl Default for Table<HeapTables> {
    fn default() -> Self {
        let (memory, table) = HeapTables::with_one();
        let root = Root {
            table,
            level: Level::START,
        };
        Self::with_root(memory, root)
    }
}

impl<M: TableMemory> Table<M> {
    /// An empty table.
    ///
    /// # Errors
    ///
    /// [`OutOfTables`] if there is no memory for the top table.
    pub fn new(mut memory: M) -> Result<Self, OutOfTables> {
        let root = Root {
            table: memory.alloc()?,
            level: Level::START,
        };
        Ok(Self::with_root(memory, root))
    }

    fn with_root(memory: M, root: Root) -> Self {
        let mut table = Self {
            memory,
            root,
            low: Entry::EMPTY,
        };
        table.find_low(Iova(0), Iova(u64::MAX));
        table
    }

    /// Finds the table of level 2 at IOVA 0 again, and notes its entries for `first` to `last`. To
    /// be called after every change there.
    pub(crate) fn find_low(&mut self, first: Iova, last: Iova) {
        let table = self.low_table();
        self.low = table
            .and_then(|table| Entry::table(table, Level::L3))
            .unwrap_or_default();
        let gib = |iova: Iova| iova.0 >> Level::L2.item_lg2();
        for nth in gib(first)..=gib(last).min(ENTRIES as u64 - 1) {
            let nth = Level::L2.index(Iova(nth << Level::L2.item_lg2()));
            let entry = table.and_then(|table| self.memory.load(table, nth));
            self.memory.note(nth, entry.unwrap_or_default());
        }
    }

    /// The table of level 2 at IOVA 0.
    fn low_table(&self) -> Option<TableAddress> {
        let Root {
            mut table,
            mut level,
        } = self.root;
        while level > Level::L2 {
            let entry = self.memory.load(table, 0)?;
            let below = level.below().filter(|_| entry.is_table(level))?;
            (table, level) = (entry.pointee(), below);
        }
        Some(table)
    }

    /// Where the tree begins. Changes when the table grows.
    #[must_use]
    pub const fn root(&self) -> Root {
        self.root
    }

    /// The memory that the tables live in.
    #[must_use]
    pub const fn memory(&self) -> &M {
        &self.memory
    }

    /// Unmaps everything, and makes the table as small as a new one.
    pub fn clear(&mut self) {
        self.free_below(self.root.table, self.root.level);
        let nothing = EntryRun {
            first: 0,
            count: ENTRIES,
            entry: Entry::EMPTY,
            step: 0,
        };
        self.memory.store_run(self.root.table, nothing);
        self.root.level = Level::START;
        self.find_low(Iova(0), Iova(u64::MAX));
    }

    /// Frees all tables and gives their memory back.
    #[must_use]
    pub fn into_memory(mut self) -> M {
        self.clear();
        self.memory.free(self.root.table);
        self.memory
    }

    /// Host-physical address of `iova`, or `None` if it is not mapped.
    ///
    /// One read for a 1 GiB page, two for 2 MiB, three for 4 KiB, one more above 512 GiB.
    #[must_use]
    #[inline(always)]
    pub fn translate(&self, iova: Iova) -> Option<Hpa> {
        self.find(
            iova,
            |hpa, _| Some(Hpa(hpa)),
            |place| place.is_mapped().then_some(Hpa(place.hpa)),
        )
    }

    /// Where `iova` lies and how many of the `len` bytes from there on are contiguous, in
    /// however many pages; `None` if it is not mapped or `len` is 0.
    #[must_use]
    #[inline]
    pub fn run(&self, iova: Iova, len: u64) -> Option<Run> {
        let Place { hpa, within } = self.place(iova);
        if within == 0 {
            return None;
        }
        let hpa = Hpa(hpa);
        let more = within - (iova.0 & within);
        match len.checked_sub(1) {
            Some(rest) if rest <= more => Some(Run { hpa, len }),
            Some(_) => Some(self.longer_run(iova, len, hpa, more)),
            None => None,
        }
    }

    /// Where `iova` lies.
    #[inline(always)]
    fn place(&self, iova: Iova) -> Place {
        let usual = |hpa, within| Place { hpa, within };
        self.find(iova, usual, |place| place)
    }

    /// Walks to `iova`: `usual` gets its address and the mask of the offsets within its page if
    /// that is a leaf of one item with all attributes; `other` gets what all else comes to.
    // The caller makes its result on each way out, so that on the usual ones it is known to be
    // there. A loop over the levels, or taking all leaves apart here, takes up to three times as
    // long; the others are left to functions out of line.
    #[inline(always)]
    fn find<T>(&self, iova: Iova, usual: impl Fn(u64, u64) -> T, other: impl Fn(Place) -> T) -> T {
        let Some(entry) = self.memory.noted_entry(iova) else {
            return other(self.find_far(iova));
        };
        if let Some(hpa) = entry.hpa_in_2mib(iova.0) {
            return usual(hpa, Level::L1.item_bytes() - 1);
        }
        if let Some(hpa) = self.memory.noted_leaf(iova) {
            let within = Level::L2.item_bytes() - 1;
            return usual(hpa.0 + (iova.0 & within), within);
        }
        other(self.find_near(entry, iova))
    }

    /// [`find`](Self::find) below 512 GiB, from `entry` on in a table of level 1. It is empty if
    /// there is no such table.
    #[cold]
    #[inline(never)]
    fn find_near(&self, entry: Entry, iova: Iova) -> Place {
        match self
            .memory
            .follow(entry, Level::L1, Level::BOTTOM.index(iova))
        {
            Some(entry) => entry.place(Level::BOTTOM, iova.0),
            None if entry.is_present() => entry.place(Level::L1, iova.0),
            None => self.find_far(iova),
        }
    }

    /// [`find`](Self::find) where there are no shortcuts.
    #[cold]
    #[inline(never)]
    fn find_far(&self, iova: Iova) -> Place {
        let pointer = match (iova.0 >> 39, self.root.level) {
            (0, _) => self.low,
            (1..512, Level::L3) => {
                let pointer = self.memory.load(self.root.table, Level::L3.index(iova));
                pointer.unwrap_or_default()
            }
            _ => return self.find_high(iova),
        };
        let memory = &self.memory;
        let Some(entry) = memory.follow(pointer, Level::L3, Level::L2.index(iova)) else {
            return self.find_high(iova);
        };
        let usual = |hpa, within| Place { hpa, within };
        match memory.follow(entry, Level::L2, Level::L1.index(iova)) {
            Some(entry) => match entry.usual_hpa(iova.0, Level::L1.item_lg2()) {
                Some(hpa) => usual(hpa, Level::L1.item_bytes() - 1),
                None => match memory.follow(entry, Level::L1, Level::BOTTOM.index(iova)) {
                    Some(entry) => entry.place(Level::BOTTOM, iova.0),
                    None => entry.place(Level::L1, iova.0),
                },
            },
            None => entry.place(Level::L2, iova.0),
        }
    }

    /// [`find`](Self::find) for pages above level 2 and for trees higher than four levels.
    #[cold]
    #[inline(never)]
    fn find_high(&self, iova: Iova) -> Place {
        self.lookup(iova).map_or(Place::NOWHERE, |leaf| Place {
            hpa: leaf.hpa_of(iova).0,
            within: leaf.size.bytes() - 1,
        })
    }

    /// [`run`](Self::run) past the end of the first page, of which `more` bytes follow `iova`.
    #[cold]
    #[inline(never)]
    fn longer_run(&self, iova: Iova, len: u64, hpa: Hpa, mut more: u64) -> Run {
        while more < len - 1 {
            let next = iova.checked_add(more).and_then(|last| last.checked_add(1));
            let Some(next) = next else { break };
            let place = self.place(next);
            if !place.is_mapped() || hpa.checked_add(more + 1) != Some(Hpa(place.hpa)) {
                break;
            }
            more += place.within + 1;
        }
        let len = if more < len { more + 1 } else { len };
        Run { hpa, len }
    }

    /// The page that maps `iova`, or `None` if none does.
    #[must_use]
    pub fn lookup(&self, iova: Iova) -> Option<Leaf> {
        match walk::walk(self, self.root, iova) {
            Ok(walk::Found::Leaf(leaf)) => Some(leaf),
            _ => None,
        }
    }

    /// All pages that map anything from `first` to `last`, in order.
    ///
    /// An item is an error only if the tables were written by others.
    pub fn leaves(&self, first: Iova, last: Iova) -> Leaves<&Self> {
        walk::leaves(self, self.root, first..=last, u64::MAX)
    }

    /// Everything mapped, in order, as the longest runs contiguous in both spaces that one
    /// number for the length can express.
    ///
    /// # Errors
    ///
    /// The iterator yields a [`WalkError`] only if the tables were written by others.
    pub fn extents(&self) -> impl Iterator<Item = Result<(Iova, Run), WalkError>> {
        let mut leaves = self.leaves(Iova(0), Iova(u64::MAX)).peekable();
        core::iter::from_fn(move || {
            let first = match leaves.next()? {
                Ok(leaf) => leaf,
                Err(error) => return Some(Err(error)),
            };
            let mut len = first.size.bytes();
            while let Some(next) = leaves.next_if(|next| {
                next.as_ref().is_ok_and(|leaf| {
                    first.iova.checked_add(len) == Some(leaf.iova)
                        && first.hpa.checked_add(len) == Some(leaf.hpa)
                        && first.attributes == leaf.attributes
                })
            }) {
                len += next.map_or(0, |leaf| leaf.size.bytes());
            }
            Some(Ok((
                first.iova,
                Run {
                    hpa: first.hpa,
                    len,
                },
            )))
        })
    }

    /// Frees all tables below `top`, a table of `level`; its own entries stay as they are.
    pub(crate) fn free_below(&mut self, top: TableAddress, level: Level) {
        // For each level the table being looked through and the next entry of it.
        let mut path = [(top, 0); Level::TOP.number() as usize + 1];
        let mut at = level;
        loop {
            let (table, index) = path[usize::from(at.number())];
            if index == ENTRIES || at == Level::BOTTOM {
                match at.above() {
                    Some(above) if at < level => {
                        self.memory.free(table);
                        at = above;
                    }
                    _ => return,
                }
                continue;
            }
            path[usize::from(at.number())].1 += 1;
            let entry = self.memory.load(table, index).unwrap_or_default();
            if let Some(below) = at.below().filter(|_| entry.is_table(at)) {
                path[usize::from(below.number())] = (entry.pointee(), 0);
                at = below;
            }
        }
    }
}

impl<M: TableMemory> ReadEntry for Table<M> {
    fn read_entry(&self, address: u64) -> Option<Entry> {
        let table = TableAddress::new(address & !(TABLE_BYTES - 1))?;
        let index = usize::try_from(address % TABLE_BYTES / 8).ok()?;
        self.memory.load(table, index)
    }
}
