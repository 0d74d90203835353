// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest's memory in pieces, and the host's around it.

use std::collections::BTreeMap;

use address::{Gpa, Hpa, Iova};
use amdv1::{Attributes, Table};
use devices::mediate::Run;

use crate::edu::{PAGE, Ram};

/// Pages of the pieces that the guest's memory is in.
const PIECES: [u64; 10] = [1, 2, 1, 3, 1, 1, 4, 1, 2, 1];
/// Where the pieces are, in an order that is not theirs, with host pages between them.
const HOST: u64 = 0x20_0000_0000;
const SLOT: u64 = 8 * PAGE;
/// The guest's memory: the first pieces, and the others.
const LOW: u64 = 0x10_0000;
const HIGH: u64 = 0x1_0000_0000;

/// Which page of the guest is which of the host's.
#[derive(Clone, Debug)]
pub struct GuestMemory(BTreeMap<u64, u64>);

impl Default for GuestMemory {
    fn default() -> Self {
        Self::at(HOST)
    }
}

impl GuestMemory {
    /// With its pieces from the host address `host` on.
    #[must_use]
    pub fn at(host: u64) -> Self {
        let mut pages = BTreeMap::new();
        let (mut low, mut high) = (LOW, HIGH);
        for (piece, count) in (0..).zip(PIECES) {
            let gpa = if piece < 6 { &mut low } else { &mut high };
            let hpa = host + piece * 7 % 10 * SLOT;
            for page in 0..count {
                pages.insert(*gpa, hpa + page * PAGE);
                *gpa += PAGE;
            }
        }
        Self(pages)
    }

    /// The pages' GPAs.
    #[must_use]
    pub fn gpas(&self) -> Vec<u64> {
        self.0.keys().copied().collect()
    }

    /// All memory: the guest's, the host's around each piece, and the host's at the addresses that
    /// the guest or the engine would use without translation.
    #[must_use]
    pub fn ram(&self) -> Ram {
        let around = self
            .0
            .values()
            .flat_map(|hpa| [hpa - PAGE, *hpa, hpa + PAGE]);
        let untranslated = self.0.keys().copied();
        let engine = (0x3f..0x42).map(|page| page * PAGE);
        Ram::new(around.chain(untranslated).chain(engine))
    }

    /// Whether `hpa` is in a page of the guest.
    #[must_use]
    pub fn owns(&self, hpa: u64) -> bool {
        self.0.values().any(|page| hpa / PAGE * PAGE == *page)
    }

    /// Where the byte at `gpa` is.
    #[must_use]
    pub fn byte(&self, gpa: u64) -> Option<u64> {
        Some(self.0.get(&(gpa / PAGE * PAGE))? + gpa % PAGE)
    }

    /// Where the `length` bytes from `gpa` on are if all of them are the guest's and follow one
    /// another.
    #[must_use]
    pub fn contiguous(&self, gpa: u64, length: u64) -> Option<u64> {
        let first = self.byte(gpa)?;
        let follows = |at: u64| {
            let gpa = gpa.checked_add(at)?;
            (self.byte(gpa)? == first + at).then_some(())
        };
        // The last byte, and each that begins a page.
        let pages = (1..=length / PAGE).map(|page| page * PAGE - gpa % PAGE);
        pages
            .chain([length.checked_sub(1)?])
            .filter(|at| *at < length)
            .try_for_each(follows)?;
        Some(first)
    }

    /// The same as a table in the kernel's format, as the monitor has it.
    ///
    /// # Panics
    ///
    /// If the table refuses a page.
    pub fn translate(&self) -> impl Fn(Gpa, u64) -> Option<Run> + Send + 'static {
        let mut table = Table::default();
        let rights = Attributes::READ | Attributes::WRITE | Attributes::FORCE_COHERENT;
        for (gpa, hpa) in &self.0 {
            let mapped = table.map(Iova(*gpa), Hpa(*hpa), PAGE, rights);
            assert_eq!(mapped, Ok(()), "page {gpa:#x}");
        }
        move |gpa, length| table.run(Iova(gpa.0), length)
    }
}
