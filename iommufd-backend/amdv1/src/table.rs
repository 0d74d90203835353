//! A table and its translations.

use address::{Hpa, Iova};

use crate::level::{ENTRIES, Level};
use crate::memory::{EntryRun, HeapTables, OutOfTables, TABLE_BYTES, TableAddress, TableMemory};
use crate::pte::Entry;
use crate::walk::{self, Leaf, Leaves, ReadEntry, Root, Run, WalkError};

/// A page table in memory `M`.
///
/// It starts as one empty table of 512 GiB ([`Level::START`]) and grows at the top when a
/// mapping needs more.
#[derive(Clone, Debug)]
pub struct Table<M> {
    pub(crate) memory: M,
    pub(crate) root: Root,
}

/// An empty table on the heap.
impl Default for Table<HeapTables> {
    fn default() -> Self {
        let (memory, table) = HeapTables::with_one();
        let root = Root {
            table,
            level: Level::START,
        };
        Self { memory, root }
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
        Ok(Self { memory, root })
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
        self.find(iova).map(|(hpa, _)| hpa)
    }

    /// Where `iova` lies and how many of the `len` bytes from there on are contiguous, in
    /// however many pages; `None` if it is not mapped or `len` is 0.
    #[must_use]
    #[inline]
    pub fn run(&self, iova: Iova, len: u64) -> Option<Run> {
        let (hpa, within) = self.find(iova)?;
        let more = within - (iova.0 & within);
        match len.checked_sub(1) {
            Some(rest) if rest <= more => Some(Run { hpa, len }),
            Some(_) => Some(self.longer_run(iova, len, hpa, more)),
            None => None,
        }
    }

    /// Address of `iova` and the mask of the offsets within its page.
    // One compare per level and no loop. A loop over the levels, or decoding leaves of several
    // items here, takes up to three times as long; whatever is neither a pointer nor a leaf of
    // one item is left to functions out of line.
    #[inline(always)]
    fn find(&self, iova: Iova) -> Option<(Hpa, u64)> {
        let mut table = self.root.table;
        if self.root.level == Level::START {
            if iova.0 >> 39 != 0 {
                return None;
            }
        } else {
            if self.root.level != Level::L3 || iova.0 >> 48 != 0 {
                return self.find_high(iova);
            }
            let entry = self.memory.load(table, Level::L3.index(iova))?;
            if !entry.is_table(Level::L3) {
                return self.find_high(iova);
            }
            table = entry.pointee();
        }
        let entry = self.memory.load(table, Level::L2.index(iova))?;
        if entry.is_natural_leaf() {
            return Some(entry.natural_hpa(iova.0, 30));
        }
        if !entry.is_table(Level::L2) {
            return several_items(entry, iova);
        }
        let entry = self.memory.load(entry.pointee(), Level::L1.index(iova))?;
        if entry.is_natural_leaf() {
            return Some(entry.natural_hpa(iova.0, 21));
        }
        if !entry.is_table(Level::L1) {
            return several_items(entry, iova);
        }
        let entry = self
            .memory
            .load(entry.pointee(), Level::BOTTOM.index(iova))?;
        if entry.is_natural_leaf() {
            return Some(entry.natural_hpa(iova.0, 12));
        }
        several_items(entry, iova)
    }

    /// [`find`](Self::find) for pages above level 2 and for trees higher than four levels.
    #[cold]
    #[inline(never)]
    fn find_high(&self, iova: Iova) -> Option<(Hpa, u64)> {
        let leaf = self.lookup(iova)?;
        Some((leaf.hpa_of(iova), leaf.size.bytes() - 1))
    }

    /// [`run`](Self::run) past the end of the first page, of which `more` bytes follow `iova`.
    #[cold]
    #[inline(never)]
    fn longer_run(&self, iova: Iova, len: u64, hpa: Hpa, mut more: u64) -> Run {
        while more < len - 1 {
            let next = iova.checked_add(more).and_then(|last| last.checked_add(1));
            let found = next.and_then(|next| self.find(next));
            match found {
                Some((next, within)) if hpa.checked_add(more + 1) == Some(next) => {
                    more += within + 1;
                }
                _ => break,
            }
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
    /// An item is an error only if someone else has written to the tables.
    pub fn leaves(&self, first: Iova, last: Iova) -> Leaves<&Self> {
        walk::leaves(self, self.root, (first, last), u64::MAX)
    }

    /// Everything mapped, in order, as the longest runs contiguous in both spaces that one
    /// number for the length can express.
    ///
    /// # Errors
    ///
    /// The iterator yields a [`WalkError`] only if someone else has written to the tables.
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

/// [`Table::find`] for an entry that is empty or a leaf of several items.
#[cold]
#[inline(never)]
fn several_items(entry: Entry, iova: Iova) -> Option<(Hpa, u64)> {
    entry.several_hpa(iova.0)
}
