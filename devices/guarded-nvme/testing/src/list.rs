// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A PRP list that remembers what was stored.

use address::Hpa;
use guarded_nvme::check::List;

/// A list of a command, in no memory at all.
#[derive(Clone, Debug)]
pub struct VecList {
    address: Hpa,
    entries: Vec<Option<Hpa>>,
}

impl VecList {
    /// A list of this number of slots, which reports that it is at `address`.
    #[must_use]
    pub fn new(address: Hpa, slots: usize) -> Self {
        let entries = vec![None; slots];
        Self { address, entries }
    }

    /// What was stored, up to the last slot.
    #[must_use]
    pub fn entries(&self) -> Vec<Hpa> {
        self.entries.iter().map_while(|entry| *entry).collect()
    }
}

impl List for VecList {
    fn address(&self) -> Hpa {
        self.address
    }

    fn slots(&self) -> u32 {
        u32::try_from(self.entries.len()).unwrap_or(u32::MAX)
    }

    fn set(&mut self, slot: u32, page: Hpa) {
        self.entries[slot as usize] = Some(page);
    }
}
