// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The guest as its controller's thread reaches it.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use address::{Gpa, Hpa};
use devices::guarded_nvme::{Outside, Shared};
use devices::pci::MsiMessage;
use guarded_nvme::guest::{Access, Doorbell, Doorbells, GuestMemory, Interrupts, Translate};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

use super::doorbells::DoorbellPages;
use crate::bus::lines::InterruptLines;
use crate::memory::guest::SharedRam;
use crate::memory::table::RamTable;

/// Memory, translation, doorbells and interrupts of a guest.
///
/// What the table does not hold is no memory to the controller, even where the guest has some: its first MiB.
#[derive(Debug)]
pub struct Machine {
    pub table: Arc<RamTable>,
    pub ram: SharedRam,
    pub shared: Arc<Shared>,
    /// In a control of the tests.
    pub unchecked: Option<Unchecked>,
}

/// Lookups of pages, of which those of one command are not made: the device is given what the guest wrote.
#[derive(Debug, Default)]
pub struct Unchecked(AtomicU64);

impl Unchecked {
    /// Which lookups: late enough that the guest reads its disk in large pieces.
    const SKIPPED: Range<u64> = 256..288;

    fn skips(&self) -> bool {
        Self::SKIPPED.contains(&self.0.fetch_add(1, Ordering::Relaxed))
    }
}

impl Machine {
    /// Whether all of a range is in the table.
    fn is_ram(&self, gpa: Gpa, len: usize) -> bool {
        let len = len as u64;
        self.table
            .translate(gpa, len)
            .is_some_and(|run| run.len == len)
            || self.is_ram_in_pieces(gpa, len)
    }

    /// The same where the range is in several pieces of the host's memory.
    fn is_ram_in_pieces(&self, gpa: Gpa, len: u64) -> bool {
        let mut done = 0;
        while done < len {
            match self.table.translate(gpa + done, len - done) {
                Some(run) if run.len > 0 => done += run.len,
                _ => return false,
            }
        }
        true
    }
}

impl Translate for Machine {
    fn page(&self, gpa: Gpa, access: Access) -> Option<Hpa> {
        if self.unchecked.as_ref().is_some_and(Unchecked::skips) {
            return Some(Hpa(gpa.0));
        }
        Translate::page(&*self.table, gpa, access)
    }
}

impl GuestMemory for Machine {
    fn read(&self, gpa: Gpa, data: &mut [u8]) -> bool {
        let memory = self.ram.memory();
        self.is_ram(gpa, data.len()) && memory.read_slice(data, GuestAddress(gpa.0)).is_ok()
    }

    fn write(&self, gpa: Gpa, data: &[u8]) -> bool {
        let memory = self.ram.memory();
        self.is_ram(gpa, data.len()) && memory.write_slice(data, GuestAddress(gpa.0)).is_ok()
    }

    fn load(&self, gpa: Gpa) -> Option<u64> {
        if !self.is_ram(gpa, 8) {
            return None;
        }
        let loaded = self
            .ram
            .memory()
            .load(GuestAddress(gpa.0), Ordering::Relaxed);
        loaded.ok().map(u64::from_le)
    }

    fn publish(&self, gpa: Gpa, value: u64) -> bool {
        let store = |value: u64| {
            let memory = self.ram.memory();
            memory.store(value, GuestAddress(gpa.0), Ordering::Release)
        };
        self.is_ram(gpa, 8) && store(value.to_le()).is_ok()
    }
}

impl Doorbells for Machine {
    fn value(&self, doorbell: Doorbell) -> u32 {
        self.shared.value(doorbell)
    }

    fn clear(&self, doorbell: Doorbell) {
        self.shared.clear(doorbell);
    }
}

impl Interrupts for Machine {
    fn raise(&self, vector: u16) {
        self.shared.raise(vector);
    }
}

/// The monitor, as the controller's function reaches it.
#[derive(Debug)]
pub struct Monitor {
    pub lines: InterruptLines,
    /// Wakes the controller's thread.
    pub bell: Arc<EventFd>,
    pub doorbells: DoorbellPages,
}

impl Outside for Monitor {
    fn wake(&self) {
        // It only fails where the count is at its end, and then the thread is awake.
        let _ = self.bell.write(1);
    }

    fn signal(&self, message: MsiMessage) {
        if let Err(error) = self.lines.signal(message.address, message.data) {
            log::debug!("an interrupt of the guest's controller: {error}");
        }
    }

    fn page(&self, doorbell: Doorbell) -> Option<&AtomicU64> {
        self.doorbells.word(doorbell)
    }

    fn follow(&self, is_home: bool) {
        self.doorbells.follow(is_home);
    }

    fn show_tails(&self, are_memory: bool) -> bool {
        self.doorbells.show_tails(are_memory)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use guarded_nvme::registers::Layout;

    use super::*;
    use crate::arch::low;
    use crate::memory::guest::GuestRam;
    use crate::memory::layout::Conventional;
    use crate::memory::plan::{Constraints, Extent, MemoryPlan, Region};
    use crate::memory::table::Draft;

    const MIB: u64 = 1 << 20;

    struct Deaf;

    impl Outside for Deaf {
        fn wake(&self) {}
        fn signal(&self, _: MsiMessage) {}
    }

    /// 4 MiB behind the first, in two pieces of the host's memory.
    fn machine() -> Machine {
        let extent = |offset, hpa| Extent {
            offset,
            hpa: Hpa(hpa),
            len: 2 * MIB,
        };
        let extents = [extent(0, 0x8_0000_0000), extent(2 * MIB, 0x4000_0000)];
        let constraints = Constraints {
            taken: vec![("low memory", Gpa(0)..Gpa(MIB))],
            address_bits: 40,
            slots: 10,
            kept: 0,
            dma: host::DmaMap::Identity,
        };
        let region = Region::of_file(4 * MIB);
        let plan = MemoryPlan::new(vec![region], &Conventional, &constraints).unwrap();
        let file: File = tempfile::tempfile().unwrap();
        file.set_len(4 * MIB).unwrap();
        let ram = GuestRam::map(low::allocate().unwrap().as_ref(), Some(&file), &plan).unwrap();
        let table = Draft::new(&plan, &extents).unwrap().build(Gpa(0)).unwrap();
        let layout = Layout::new(4096, 1, 2).unwrap();
        Machine {
            table: Arc::new(table),
            // It outlives the `GuestRam`.
            ram: ram.share(),
            shared: Shared::new(layout, Box::new(Deaf)),
            unchecked: None,
        }
    }

    #[test]
    fn a_control_forwards_a_few_addresses_and_no_others() {
        let machine = Machine {
            unchecked: Some(Unchecked::default()),
            ..machine()
        };
        let gpa = Gpa(2 * MIB);
        let found: Vec<_> = (0..400).map(|_| machine.page(gpa, Access::Read)).collect();
        let wrong = |number: &usize| found[*number] == Some(Hpa(gpa.0));
        let wrong: Vec<_> = (0..400).filter(wrong).collect();
        assert_eq!(wrong, (256..288).collect::<Vec<_>>());
    }

    #[test]
    fn memory_is_what_the_table_has() {
        let machine = machine();
        let first = machine.table.pieces().next().unwrap().unwrap().gpa;
        let seam = first + 2 * MIB;
        assert!(machine.write(seam - 3, &[1, 2, 3, 4, 5, 6]));
        let mut data = [0; 6];
        assert!(machine.read(seam - 3, &mut data));
        assert_eq!(data, [1, 2, 3, 4, 5, 6]);
        assert_eq!(machine.load(seam), Some(0x06_0504));
        assert!(machine.publish(seam, 9));
        assert_eq!(machine.load(seam), Some(9));
        for access in [Access::Read, Access::Write] {
            assert_eq!(machine.page(first, access), Some(Hpa(0x8_0000_0000)));
            assert_eq!(machine.page(seam, access), Some(Hpa(0x4000_0000)));
        }
        // The guest's first MiB is not pinned, and nothing is behind the end.
        let end = first + 4 * MIB;
        for outside in [Gpa(0), Gpa(0x9_f000), end, Gpa(!0xfff)] {
            assert_eq!(machine.load(outside), None, "{outside}");
            assert!(!machine.publish(outside, 1), "{outside}");
            assert!(!machine.read(outside, &mut data), "{outside}");
            assert!(!machine.write(outside, &data), "{outside}");
            assert_eq!(machine.page(outside, Access::Read), None, "{outside}");
        }
        assert!(!machine.write(end - 3, &data), "half of it outside");
    }
}
