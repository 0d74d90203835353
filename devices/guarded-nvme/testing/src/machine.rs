// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest as its controller sees it: memory, doorbells, and interrupts.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use address::{Gpa, Hpa};
use guarded_nvme::guest::{Access, Doorbell, Doorbells, GuestMemory, Interrupts, Translate};

use crate::GuestRam;

/// A guest. Copies are the same one.
#[derive(Clone, Debug)]
pub struct GuestMachine(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    ram: GuestRam,
    doorbells: RefCell<BTreeMap<u32, u32>>,
    raised: RefCell<BTreeMap<u16, u64>>,
}

impl GuestMachine {
    /// A guest with this memory.
    #[must_use]
    pub fn new(ram: GuestRam) -> Self {
        Self(Rc::new(Inner {
            ram,
            doorbells: RefCell::default(),
            raised: RefCell::default(),
        }))
    }

    /// Its memory.
    #[must_use]
    pub fn ram(&self) -> &GuestRam {
        &self.0.ram
    }

    /// A store to a doorbell.
    pub fn ring(&self, doorbell: Doorbell, value: u32) {
        self.0
            .doorbells
            .borrow_mut()
            .insert(doorbell.index(), value);
    }

    /// How often a vector was raised.
    #[must_use]
    pub fn raised(&self, vector: u16) -> u64 {
        self.0.raised.borrow().get(&vector).copied().unwrap_or(0)
    }

    /// The highest vector that was raised.
    #[must_use]
    pub fn highest_vector(&self) -> Option<u16> {
        self.0.raised.borrow().keys().next_back().copied()
    }
}

impl Translate for GuestMachine {
    fn page(&self, gpa: Gpa, access: Access) -> Option<Hpa> {
        self.0.ram.page(gpa, access)
    }
}

impl GuestMemory for GuestMachine {
    fn read(&self, gpa: Gpa, data: &mut [u8]) -> bool {
        self.0.ram.read(gpa, data)
    }

    fn write(&self, gpa: Gpa, data: &[u8]) -> bool {
        self.0.ram.write(gpa, data)
    }

    fn load(&self, gpa: Gpa) -> Option<u64> {
        self.0.ram.load(gpa)
    }

    fn publish(&self, gpa: Gpa, value: u64) -> bool {
        self.0.ram.publish(gpa, value)
    }
}

impl Doorbells for GuestMachine {
    fn value(&self, doorbell: Doorbell) -> u32 {
        let doorbells = self.0.doorbells.borrow();
        doorbells.get(&doorbell.index()).copied().unwrap_or(0)
    }

    fn clear(&self, doorbell: Doorbell) {
        self.0.doorbells.borrow_mut().remove(&doorbell.index());
    }
}

impl Interrupts for GuestMachine {
    fn raise(&self, vector: u16) {
        *self.0.raised.borrow_mut().entry(vector).or_default() += 1;
    }
}
