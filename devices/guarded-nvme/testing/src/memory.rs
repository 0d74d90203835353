// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The memory of a machine, page by page, and whose each page is.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use address::Hpa;
use guarded_nvme::device::Block;
use guarded_nvme::guest::Access;
use guarded_nvme::spec::{PAGE, PAGE_BYTES};

const WORDS: usize = PAGE_BYTES / 8;
/// Blocks of the monitor's begin here.
const BLOCKS: u64 = 0x40_0000_0000;

/// Whose a page is, and what a device may do to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The guest's RAM, which a device may write if so marked.
    Guest {
        /// Whether a device may write it.
        writable: bool,
    },
    /// A block of the monitor's, while it is not dropped.
    Monitor,
}

/// A page of words.
type Words = Arc<[AtomicU64; WORDS]>;

fn zeros() -> Words {
    Arc::new([const { AtomicU64::new(0) }; WORDS])
}

struct Frame {
    owner: Owner,
    words: Words,
}

#[derive(Default)]
struct Frames {
    frames: BTreeMap<u64, Frame>,
    next_block: u64,
    blocks_left: Option<usize>,
    is_scattered: bool,
    is_false: bool,
    /// While a device is running no block may go.
    is_running: bool,
}

/// All memory. Copies share it.
#[derive(Clone, Default)]
pub struct Physical(Arc<Mutex<Frames>>);

impl fmt::Debug for Physical {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let frames = self.lock();
        f.debug_struct("Physical")
            .field("pages", &frames.frames.len())
            .finish_non_exhaustive()
    }
}

impl Physical {
    fn lock(&self) -> MutexGuard<'_, Frames> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a page of zeros.
    pub fn add(&self, page: Hpa, owner: Owner) {
        let words = zeros();
        let old = self
            .lock()
            .frames
            .insert(page.0 / PAGE, Frame { owner, words });
        assert!(old.is_none(), "two pages at {page}");
    }

    /// Whether blocks are made of pages that are not contiguous, where that is allowed.
    pub fn scatter(&self, is_scattered: bool) {
        self.lock().is_scattered = is_scattered;
    }

    /// Blocks that are to be contiguous are not.
    pub fn falsify(&self) {
        self.lock().is_false = true;
    }

    /// After so many contiguous blocks of several pages there are no more.
    pub fn limit_contiguous(&self, blocks: usize) {
        self.lock().blocks_left = Some(blocks);
    }

    /// Says whether a device may be accessing memory.
    pub fn set_running(&self, is_running: bool) {
        self.lock().is_running = is_running;
    }

    /// A block of the monitor's, of zeros.
    #[must_use]
    pub fn block(&self, pages: usize, is_contiguous: bool) -> Option<ModelBlock> {
        let mut frames = self.lock();
        if is_contiguous && pages > 1 {
            let left = frames.blocks_left.map(|left| left.checked_sub(1));
            match left {
                Some(None) => return None,
                Some(Some(left)) => frames.blocks_left = Some(left),
                None => {}
            }
        }
        let is_together = is_contiguous && !frames.is_false;
        let step = if is_together || !frames.is_scattered {
            1
        } else {
            3
        };
        let first = BLOCKS / PAGE + frames.next_block;
        frames.next_block += pages as u64 * step + 1;
        let numbers = (0..pages as u64).map(|page| first + page * step);
        let pages: Vec<(u64, Words)> = numbers.map(|page| (page, zeros())).collect();
        for (page, words) in &pages {
            let (owner, words) = (Owner::Monitor, Arc::clone(words));
            frames.frames.insert(*page, Frame { owner, words });
        }
        let physical = self.clone();
        Some(ModelBlock { physical, pages })
    }

    /// Whose the page of an address is.
    #[must_use]
    pub fn owner(&self, address: Hpa) -> Option<Owner> {
        let frames = self.lock();
        frames
            .frames
            .get(&(address.0 / PAGE))
            .map(|frame| frame.owner)
    }

    /// How many pages are in blocks of the monitor's.
    #[must_use]
    pub fn monitor_pages(&self) -> usize {
        let frames = self.lock();
        let of_monitor = |frame: &&Frame| frame.owner == Owner::Monitor;
        frames.frames.values().filter(of_monitor).count()
    }

    /// The 8 bytes at an address, a multiple of 8, if there is memory.
    #[must_use]
    pub fn load(&self, address: Hpa) -> Option<u64> {
        let frames = self.lock();
        let frame = frames.frames.get(&(address.0 / PAGE))?;
        Some(frame.words[index(address)].load(Ordering::Relaxed))
    }

    /// Stores 8 bytes; `false` if there is no memory.
    pub fn store(&self, address: Hpa, value: u64) -> bool {
        let frames = self.lock();
        match frames.frames.get(&(address.0 / PAGE)) {
            Some(frame) => frame.words[index(address)].store(value, Ordering::Relaxed),
            None => return false,
        }
        true
    }

    /// Copies bytes that do not cross a page; `false` if there is no memory.
    pub fn read(&self, address: Hpa, data: &mut [u8]) -> bool {
        let frames = self.lock();
        let Some(frame) = frames.frames.get(&(address.0 / PAGE)) else {
            return false;
        };
        for (at, byte) in (address.0 % PAGE..).zip(data) {
            let (word, within) = split(at);
            *byte = frame.words[word].load(Ordering::Relaxed).to_le_bytes()[within];
        }
        true
    }

    /// Stores bytes that do not cross a page; `false` if there is no memory.
    pub fn write(&self, address: Hpa, data: &[u8]) -> bool {
        let frames = self.lock();
        let Some(frame) = frames.frames.get(&(address.0 / PAGE)) else {
            return false;
        };
        for (at, byte) in (address.0 % PAGE..).zip(data) {
            let (word, within) = split(at);
            let word = &frame.words[word];
            let mut bytes = word.load(Ordering::Relaxed).to_le_bytes();
            bytes[within] = *byte;
            word.store(u64::from_le_bytes(bytes), Ordering::Relaxed);
        }
        true
    }

    /// Checks that a device may access the page of `address`: only the guest's RAM, as that permits, and the monitor's.
    ///
    /// # Panics
    ///
    /// If it may not.
    pub fn check(&self, address: Hpa, access: Access, what: &str) {
        match (self.owner(address), access) {
            (Some(Owner::Monitor), _)
            | (Some(Owner::Guest { .. }), Access::Read)
            | (Some(Owner::Guest { writable: true }), Access::Write) => {}
            (owner, _) => {
                panic!("{what}: the device's {access:?} of {address}, which is {owner:?}")
            }
        }
    }

    /// Checks that `address` is the monitor's: no guest can write what a device takes for an entry or a list.
    ///
    /// # Panics
    ///
    /// If it is not.
    pub fn check_monitor(&self, address: Hpa, what: &str) {
        let owner = self.owner(address);
        assert_eq!(owner, Some(Owner::Monitor), "{what} at {address}");
    }
}

fn index(address: Hpa) -> usize {
    assert_eq!(address.0 % 8, 0, "not a word: {address}");
    usize::try_from(address.0 % PAGE / 8).unwrap_or(0)
}

/// The word of a byte in a page, and which byte of it that is.
fn split(at: u64) -> (usize, usize) {
    let at = usize::try_from(at).unwrap_or(0);
    (at / 8, at % 8)
}

/// A block of the monitor's.
#[derive(Debug)]
pub struct ModelBlock {
    physical: Physical,
    pages: Vec<(u64, Words)>,
}

impl ModelBlock {
    fn word(&self, offset: usize) -> &AtomicU64 {
        assert_eq!(offset % 8, 0, "not a word: {offset}");
        let (_, words) = self
            .pages
            .get(offset / PAGE_BYTES)
            .expect("inside the block");
        &words[offset % PAGE_BYTES / 8]
    }
}

impl Block for ModelBlock {
    fn pages(&self) -> usize {
        self.pages.len()
    }

    fn hpa(&self, page: usize) -> Hpa {
        Hpa(self.pages[page].0 * PAGE)
    }

    fn load(&self, offset: usize) -> u64 {
        self.word(offset).load(Ordering::Relaxed)
    }

    fn store(&self, offset: usize, value: u64) {
        self.word(offset).store(value, Ordering::Relaxed);
    }
}

impl Drop for ModelBlock {
    fn drop(&mut self) {
        let mut frames = self.physical.lock();
        let is_running = frames.is_running;
        for (page, _) in &self.pages {
            frames.frames.remove(page);
        }
        drop(frames);
        if !std::thread::panicking() {
            assert!(!is_running, "a block goes while the device runs");
        }
    }
}
