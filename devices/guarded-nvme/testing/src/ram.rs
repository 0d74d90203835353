// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest's memory, and what it does while the monitor reads it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use address::{Gpa, Hpa};
use guarded_nvme::guest::{Access, GuestMemory, Translate};
use guarded_nvme::spec::PAGE;

use crate::memory::{Owner, Physical};

/// Where the guest's pages are, in the host: apart from one another and in no order.
const BASE: u64 = 0x1_0000_0000;

/// What another vCPU does each time that the monitor has read something: called with the address, and free to write.
pub type Trick = Box<dyn FnMut(&GuestRam, Gpa)>;

/// A guest's RAM: page n is at GPA n * 4096, where it is not left out.
pub struct GuestRam {
    physical: Physical,
    pages: BTreeMap<u64, (Hpa, bool)>,
    trick: RefCell<Option<Trick>>,
    loads: RefCell<Option<BTreeMap<u64, u32>>>,
}

impl fmt::Debug for GuestRam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuestRam")
            .field("pages", &self.pages.len())
            .finish_non_exhaustive()
    }
}

impl GuestRam {
    /// RAM of this number of pages. `kind` decides for each whether a device may write it; `None` leaves it out.
    pub fn new(physical: Physical, pages: u64, kind: impl Fn(u64) -> Option<bool>) -> Self {
        let mut map = BTreeMap::new();
        for page in 0..pages {
            let Some(writable) = kind(page) else {
                continue;
            };
            // An odd multiplier gives each page below 2^12 a place of its own; only every other one is used.
            let place = page.wrapping_mul(0x9e5) % 0x1000 * 2 + page / 0x1000 * 0x2000;
            let hpa = Hpa(BASE + place * PAGE);
            physical.add(hpa, Owner::Guest { writable });
            map.insert(page, (hpa, writable));
        }
        Self {
            physical,
            pages: map,
            trick: RefCell::new(None),
            loads: RefCell::new(None),
        }
    }

    /// RAM of this number of pages that a device may write, without holes.
    #[must_use]
    pub fn plain(pages: u64) -> Self {
        Self::new(Physical::default(), pages, |_| Some(true))
    }

    /// All memory.
    #[must_use]
    pub fn physical(&self) -> &Physical {
        &self.physical
    }

    /// Sets what happens behind the monitor's back.
    pub fn play(&self, trick: Trick) {
        *self.trick.borrow_mut() = Some(trick);
    }

    /// Begins to count the words that the monitor reads.
    pub fn count_loads(&self) {
        *self.loads.borrow_mut() = Some(BTreeMap::new());
    }

    /// How often it has read each, by address.
    #[must_use]
    pub fn loads(&self) -> BTreeMap<u64, u32> {
        self.loads.borrow().clone().unwrap_or_default()
    }

    /// Where an address is, whatever may be done there.
    #[must_use]
    pub fn hpa(&self, gpa: Gpa) -> Option<Hpa> {
        let (page, _) = self.pages.get(&(gpa.0 / PAGE))?;
        Some(*page + gpa.0 % PAGE)
    }

    /// The guest's own store of 8 bytes.
    pub fn put(&self, gpa: Gpa, value: u64) {
        if let Some(hpa) = self.hpa(gpa) {
            self.physical.store(hpa, value);
        }
    }

    /// The guest's own load of 8 bytes; 0 where there is no RAM.
    #[must_use]
    pub fn get(&self, gpa: Gpa) -> u64 {
        self.hpa(gpa)
            .and_then(|hpa| self.physical.load(hpa))
            .unwrap_or(0)
    }

    /// The guest's own stores of several words.
    pub fn put_all(&self, gpa: Gpa, values: &[u64]) {
        for (place, value) in (0..).zip(values) {
            self.put(gpa + place * 8, *value);
        }
    }

    /// The guest's own loads of bytes; zeros where there is no RAM.
    #[must_use]
    pub fn bytes(&self, gpa: Gpa, length: usize) -> Vec<u8> {
        let mut data = vec![0; length];
        self.pieces(gpa, length, |hpa, range| {
            self.physical.read(hpa, &mut data[range]);
        });
        data
    }

    /// The parts of a range that are in one page each, with where they are.
    fn pieces(&self, gpa: Gpa, length: usize, mut each: impl FnMut(Hpa, Range<usize>)) {
        let mut done = 0;
        while done < length {
            let at = gpa + done as u64;
            let rest = usize::try_from(PAGE - at.0 % PAGE).unwrap_or(0);
            let end = length.min(done + rest);
            if let Some(hpa) = self.hpa(at) {
                each(hpa, done..end);
            }
            done = end;
        }
    }

    fn is_ram(&self, gpa: Gpa, length: usize, for_writing: bool) -> bool {
        let Some(end) = gpa.checked_add(length as u64) else {
            return false;
        };
        let pages = gpa.0 / PAGE..end.0.div_ceil(PAGE);
        let allowed = |(_, writable): &(Hpa, bool)| *writable || !for_writing;
        pages
            .into_iter()
            .all(|page| self.pages.get(&page).is_some_and(allowed))
    }

    /// A word was read, or a part of it: what other words hold may change before these are.
    fn after_read(&self, gpa: Gpa) {
        if let Some(loads) = self.loads.borrow_mut().as_mut() {
            *loads.entry(gpa.0).or_default() += 1;
        }
        // Taken out meanwhile, as a trick may read too.
        let trick = self.trick.borrow_mut().take();
        if let Some(mut trick) = trick {
            trick(self, gpa);
            *self.trick.borrow_mut() = Some(trick);
        }
    }
}

impl Translate for GuestRam {
    fn page(&self, gpa: Gpa, access: Access) -> Option<Hpa> {
        assert_eq!(gpa.0 % PAGE, 0, "not a page: {gpa}");
        let (hpa, writable) = self.pages.get(&(gpa.0 / PAGE))?;
        (*writable || access == Access::Read).then_some(*hpa)
    }
}

impl GuestMemory for GuestRam {
    fn read(&self, gpa: Gpa, data: &mut [u8]) -> bool {
        if !self.is_ram(gpa, data.len(), false) {
            return false;
        }
        let mut at = 0;
        while at < data.len() {
            let start = gpa + at as u64;
            let left = usize::try_from(8 - start.0 % 8).unwrap_or(8);
            let word = at..data.len().min(at + left);
            self.pieces(start, word.len(), |hpa, range| {
                self.physical.read(hpa, &mut data[word.clone()][range]);
            });
            at = word.end;
            self.after_read(start);
        }
        true
    }

    fn write(&self, gpa: Gpa, data: &[u8]) -> bool {
        if !self.is_ram(gpa, data.len(), true) {
            return false;
        }
        self.pieces(gpa, data.len(), |hpa, range| {
            self.physical.write(hpa, &data[range]);
        });
        true
    }

    fn load(&self, gpa: Gpa) -> Option<u64> {
        assert_eq!(gpa.0 % 8, 0, "not a word: {gpa}");
        if !self.is_ram(gpa, 8, false) {
            return None;
        }
        let value = self.get(gpa);
        self.after_read(gpa);
        Some(value)
    }

    fn publish(&self, gpa: Gpa, value: u64) -> bool {
        assert_eq!(gpa.0 % 8, 0, "not a word: {gpa}");
        let is_ram = self.is_ram(gpa, 8, true);
        if is_ram {
            self.put(gpa, value);
        }
        is_ram
    }
}
