// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Slots and addresses on the guest's bus for functions that the monitor emulates.

use std::ops::Range;

use address::Gpa;
use host::DmaMap;

use super::address_map::AddressMap;
use super::slots::{LAST_SLOT, PciSlot};

/// What is still free on the guest's bus, beside the devices that are passed through.
#[derive(Clone, Debug)]
pub(crate) struct BusAllocator {
    /// Guest-physical addresses outside RAM. `None` if the guest has no bus.
    pub map: Option<AddressMap>,
    /// BARs.
    taken: Vec<Range<Gpa>>,
    next_slot: u8,
}

impl BusAllocator {
    /// A bus with these BARs, whose slots below `next_slot` are taken.
    pub fn new(map: Option<AddressMap>, taken: Vec<Range<Gpa>>, next_slot: u8) -> Self {
        Self {
            map,
            taken,
            next_slot,
        }
    }

    /// Where memory is for devices on the bus.
    pub fn dma(&self) -> &DmaMap {
        self.map.as_ref().map_or(&DmaMap::Identity, |map| &map.dma)
    }

    /// The next free slot, function 0; `None` if there is none.
    pub fn slot(&mut self) -> Option<PciSlot> {
        let slot = self.next_slot;
        (slot <= LAST_SLOT).then(|| {
            self.next_slot += 1;
            PciSlot { slot, function: 0 }
        })
    }

    /// A place for a BAR of `size` bytes, a power of two, below `limit`; `None` if there is none.
    pub fn bar(&mut self, size: u64, limit: Gpa) -> Option<Gpa> {
        let free = self.map.as_ref()?.free(size, &self.taken);
        let at = free.filter(|at| at.checked_add(size).is_some_and(|end| end <= limit))?;
        self.taken.push(at..at + size);
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_given_twice() {
        let map = AddressMap {
            windows: vec![Gpa(0x1_0000)..Gpa(0x1_4000)],
            ecam: Gpa(0)..Gpa(0),
            ..AddressMap::conventional()
        };
        let taken = vec![Gpa(0x1_0000)..Gpa(0x1_1000)];
        let mut bus = BusAllocator::new(Some(map), taken, LAST_SLOT - 1);
        let bars = [0x1000, 0x1000, 0x1000].map(|size| bus.bar(size, Gpa(0x1_3000)));
        assert_eq!(bars, [Some(Gpa(0x1_1000)), Some(Gpa(0x1_2000)), None]);
        let slots = [bus.slot(), bus.slot(), bus.slot()];
        assert_eq!(
            slots.map(|slot| slot.map(|slot| slot.slot)),
            [Some(LAST_SLOT - 1), Some(LAST_SLOT), None]
        );
    }

    #[test]
    fn without_a_bus_no_bar_has_a_place() {
        let mut bus = BusAllocator::new(None, Vec::new(), 1);
        assert_eq!(bus.bar(0x1000, Gpa(u64::MAX)), None);
    }
}
