//! The memory of a machine, page by page, and whose each page is.

use std::collections::BTreeMap;
use std::fmt;
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

struct Frame {
    owner: Owner,
    words: Box<[u64; WORDS]>,
}

#[derive(Default)]
struct Frames {
    frames: BTreeMap<u64, Frame>,
    next_block: u64,
    blocks_left: Option<usize>,
    is_scattered: bool,
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
        let words = Box::new([0; WORDS]);
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
        let step = if is_contiguous || !frames.is_scattered {
            1
        } else {
            3
        };
        let first = BLOCKS / PAGE + frames.next_block;
        frames.next_block += pages as u64 * step + 1;
        let pages: Vec<u64> = (0..pages as u64).map(|page| first + page * step).collect();
        for page in &pages {
            let (owner, words) = (Owner::Monitor, Box::new([0; WORDS]));
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
        Some(frame.words[index(address)])
    }

    /// Stores 8 bytes; `false` if there is no memory.
    pub fn store(&self, address: Hpa, value: u64) -> bool {
        let mut frames = self.lock();
        match frames.frames.get_mut(&(address.0 / PAGE)) {
            Some(frame) => frame.words[index(address)] = value,
            None => return false,
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

/// A block of the monitor's.
#[derive(Debug)]
pub struct ModelBlock {
    physical: Physical,
    pages: Vec<u64>,
}

impl ModelBlock {
    fn address(&self, offset: usize) -> Option<Hpa> {
        let page = self.pages.get(offset / PAGE_BYTES)?;
        Some(Hpa(page * PAGE + (offset % PAGE_BYTES) as u64))
    }
}

impl Block for ModelBlock {
    fn pages(&self) -> usize {
        self.pages.len()
    }

    fn hpa(&self, page: usize) -> Hpa {
        Hpa(self.pages[page] * PAGE)
    }

    fn load(&self, offset: usize) -> u64 {
        let address = self.address(offset).expect("inside the block");
        self.physical.load(address).expect("memory of a block")
    }

    fn store(&self, offset: usize, value: u64) {
        let address = self.address(offset).expect("inside the block");
        assert!(self.physical.store(address, value));
    }
}

impl Drop for ModelBlock {
    fn drop(&mut self) {
        let mut frames = self.physical.lock();
        let is_running = frames.is_running;
        for page in &self.pages {
            frames.frames.remove(page);
        }
        drop(frames);
        if !std::thread::panicking() {
            assert!(!is_running, "a block goes while the device runs");
        }
    }
}
