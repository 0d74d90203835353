// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The DMA engine as a host's device, which records what it should not have received.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use address::{Gpa, Hpa};
use devices::pci::{PciFunction, Region, Space};
use devices::vfio_pci::{HostError, HostFunction, HostInfo, InterruptKind, RegionInfo, Vectors};
use software_edu::Edu;

use crate::edu::PAGE;

use super::memory::GuestMemory;

/// Where BAR 0 is.
pub(super) const BAR: u64 = 0xfe00_0000;
const BAR_SIZE: u64 = 1 << 20;
/// The device addresses that QEMU's device has; others crash it.
const WINDOW: Range<u64> = 0x40000..0x41000;

/// What the device received and should not have. Clones are the same list.
#[derive(Clone, Debug, Default)]
pub struct Violations(Arc<Mutex<Vec<String>>>);

impl Violations {
    /// The list.
    #[must_use]
    pub fn list(&self) -> Vec<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn expect(&self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            list.push(what());
        }
    }
}

/// [`Edu`] behind [`HostFunction`]. Each store to a DMA register must be one of 8 bytes, each
/// address in one the guest's memory or the engine's buffer as QEMU has it, and each start one
/// that moves data between the two.
#[derive(Debug)]
pub struct EduHost {
    edu: Edu,
    info: HostInfo,
    memory: GuestMemory,
    dma: [u64; 3],
    violations: Violations,
}

impl EduHost {
    /// The engine with BAR 0 at home, and the list of what goes wrong.
    #[must_use]
    pub fn new(edu: Edu, memory: GuestMemory) -> (Self, Violations) {
        let mut bars: [RegionInfo; 6] = Default::default();
        bars[0] = RegionInfo {
            size: BAR_SIZE,
            host_address: Some(Hpa(BAR)),
            mappable: std::iter::once(0..BAR_SIZE).collect(),
        };
        let info = HostInfo {
            name: "edu".to_owned(),
            bars,
            rom: RegionInfo::default(),
            config_size: 256,
            page_size: 4096,
            interrupts: [InterruptKind::Intx, InterruptKind::Msi]
                .map(|kind| (kind, Vectors::fixed(1)))
                .into_iter()
                .collect(),
            resettable: true,
        };
        let violations = Violations::default();
        let host = Self {
            edu,
            info,
            memory,
            dma: [0; 3],
            violations: violations.clone(),
        };
        (host, violations)
    }

    fn check_decode(&self, region: Region, offset: u64) -> Result<(), HostError> {
        let found = self.edu.windows().find(Space::Memory, BAR + offset);
        if found == Some((region, offset)) {
            Ok(())
        } else {
            Err(HostError("memory decode is off".into()))
        }
    }

    fn check_store(&mut self, offset: u64, data: &[u8]) {
        if offset >= 0xa0 || offset + data.len() as u64 <= 0x80 {
            return;
        }
        let whole = data.len() == 8 && offset.is_multiple_of(8);
        self.violations
            .expect(whole, || format!("{data:x?} stored at {offset:#x}"));
        let Some(value) = data.try_into().ok().map(u64::from_le_bytes) else {
            return;
        };
        match offset {
            0x80 | 0x88 => {
                let known = WINDOW.contains(&value) || self.memory.owns(value);
                self.violations
                    .expect(known, || format!("address {value:#x} at {offset:#x}"));
            }
            0x98 => self.check_start(value),
            _ => {}
        }
        if let Some(register) = self.dma.get_mut((offset as usize - 0x80) / 8) {
            *register = value;
        }
    }

    fn check_start(&self, command: u64) {
        let [source, destination, count] = self.dma;
        let (memory, device) = if command & 2 == 0 {
            (source, destination)
        } else {
            (destination, source)
        };
        let held = (1..=4096).contains(&count)
            && WINDOW.contains(&device)
            && device + count <= WINDOW.end
            && memory.checked_add(count).is_some()
            && (memory / PAGE..=(memory + count - 1) / PAGE)
                .all(|page| self.memory.owns(page * PAGE));
        self.violations.expect(held && command & 1 != 0, || {
            format!("command {command:#x} with {:x?}", self.dma)
        });
    }
}

impl HostFunction for EduHost {
    accessors_without_effect!();

    fn config_read(&mut self, offset: u16, data: &mut [u8]) -> Result<(), HostError> {
        self.edu.config_read(offset, data);
        Ok(())
    }

    fn config_write(&mut self, offset: u16, data: &[u8]) -> Result<(), HostError> {
        self.edu.config_write(offset, data);
        Ok(())
    }

    fn region_read(
        &mut self,
        region: Region,
        offset: u64,
        data: &mut [u8],
    ) -> Result<(), HostError> {
        self.check_decode(region, offset)?;
        self.edu.bar_read(region, offset, data);
        Ok(())
    }

    fn region_write(&mut self, region: Region, offset: u64, data: &[u8]) -> Result<(), HostError> {
        self.check_decode(region, offset)?;
        self.check_store(offset, data);
        self.edu.bar_write(region, offset, data);
        Ok(())
    }

    fn map(&mut self, bar: u8, area: Range<u64>, _: Gpa) -> Result<(), HostError> {
        self.violations.expect(area.start >= 0x1000, || {
            format!("BAR {bar} mapped at {area:x?}")
        });
        Ok(())
    }

    fn reset(&mut self) -> Result<(), HostError> {
        self.edu.reset();
        self.dma = [0; 3];
        Ok(())
    }
}
