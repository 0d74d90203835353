// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Registers of a device that this process writes by itself, without a system call.

use std::ops::Range;

use crate::device::VfioDevice;
use crate::error::Error;
use crate::mapping::{Mapping, pointer};
use crate::page_size::host_page_size;
use address::Hpa;

/// A mapped part of a BAR. It keeps the device open.
///
/// While memory decode of the device is off a store raises SIGBUS (Linux drivers/vfio/pci/vfio_pci_core.c
/// `vfio_pci_mmap_huge_fault`); a reset makes it wait.
#[derive(Debug)]
pub struct Registers {
    mapping: Mapping,
    start: u64,
}

impl Registers {
    /// Maps the pages that hold `range` of region `index`, which the host has at `physical`. `None` if they cannot all be
    /// mapped.
    ///
    /// # Errors
    /// [`Error::Map`], [`Error::Device`]
    pub fn map(
        device: &VfioDevice,
        index: u32,
        range: &Range<u64>,
        physical: Hpa,
    ) -> Result<Option<Self>, Error> {
        let page = host_page_size();
        let (start, end) = (range.start / page * page, range.end.next_multiple_of(page));
        let is_inside = |area: &Range<u64>| area.start <= start && end <= area.end;
        let region = device.region(index);
        if !region.is_some_and(|region| region.mappable.iter().any(is_inside)) {
            return Ok(None);
        }
        let mapping = device.map_region(index, &(start..end), physical + start)?;
        Ok(Some(Self { mapping, start }))
    }

    /// Writes the 4 bytes at `offset` of the region, a multiple of 4, in one store. `false` if it is not in the mapped pages.
    #[must_use]
    pub fn write(&self, offset: u64, value: u32) -> bool {
        let inside = offset
            .checked_sub(self.start)
            .filter(|at| at.is_multiple_of(4) && at + 4 <= self.mapping.len());
        let Some(at) = inside else {
            return false;
        };
        let register = pointer(self.mapping.start() + at).cast::<u32>();
        // SAFETY: the 4 bytes are inside the mapping, which is writable, aligned, and lives as long as `self`. They are a
        // device's registers, to which no reference exists.
        unsafe { register.write_volatile(value.to_le()) };
        true
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::file_range::FileRange;

    #[test]
    fn a_store_reaches_its_register_and_none_outside() {
        let mut file = tempfile::tempfile().unwrap();
        let page = host_page_size();
        file.set_len(page).unwrap();
        let mut mapping = Mapping::reserve(page, 0).unwrap();
        mapping
            .place(0, FileRange::first(&file, page), "a file")
            .unwrap();
        let registers = Registers {
            mapping,
            start: 0x1000,
        };
        assert!(registers.write(0x1008, 0x0403_0201));
        assert!(registers.write(0x1ffc, 7));
        for outside in [0, 0xffc, 0x1002, 0x2000, u64::MAX - 3] {
            assert!(!registers.write(outside, 9), "{outside:#x}");
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes[8..12], [1, 2, 3, 4]);
        assert_eq!(bytes.iter().filter(|byte| **byte != 0).count(), 5);
    }
}
