//! Memory-mapped configuration space.

use core::ops::Range;
use core::ptr;

use address::Gpa;
use pci_types::{ConfigRegionAccess, PciAddress};

/// Bytes of configuration space of a bus.
pub const BUS_BYTES: u64 = 1 << 20;

/// The configuration space of bus 0.
#[derive(Clone, Copy, Debug)]
pub struct Ecam(u64);

impl Ecam {
    /// Configuration space at `range`.
    ///
    /// # Safety
    /// It is there, [`BUS_BYTES`] of it, and mapped uncached.
    pub unsafe fn new(range: &Range<Gpa>) -> Self {
        Self(range.start.0)
    }

    fn register(self, address: PciAddress, offset: u16) -> *mut u32 {
        assert!(
            address.bus() == 0 && offset < 4096,
            "a register outside of bus 0"
        );
        let function = u64::from(address.device()) << 15 | u64::from(address.function()) << 12;
        ptr::with_exposed_provenance_mut((self.0 + function + u64::from(offset & !3)) as usize)
    }
}

impl ConfigRegionAccess for Ecam {
    unsafe fn read(&self, address: PciAddress, offset: u16) -> u32 {
        // SAFETY: `register` checks the range, and `new`'s caller vouches for it.
        unsafe { self.register(address, offset).read_volatile() }
    }

    unsafe fn write(&self, address: PciAddress, offset: u16, value: u32) {
        // SAFETY: as above.
        unsafe { self.register(address, offset).write_volatile(value) };
    }
}
