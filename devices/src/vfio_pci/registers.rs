// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Trapped accesses to BARs: MSI-X structures, and the device's registers beside them.

use crate::pci::Region;

use super::function::PassthroughFunction;
use super::host::{HostFunction, InterruptKind};

/// What is at an offset of a region.
enum Target {
    /// MSI-X table, offset in it.
    Table(u64),
    /// MSI-X pending bits, offset in them.
    Pending(u64),
    /// A register of the device.
    Device,
}

impl<H: HostFunction> PassthroughFunction<H> {
    fn target(&self, region: Region, offset: u64) -> Target {
        let (Region::Bar(bar), Some(msix)) = (region, &self.msix) else {
            return Target::Device;
        };
        let (table, pending) = (&msix.layout.table, &msix.layout.pending);
        if table.bar == bar && table.range.contains(&offset) {
            Target::Table(offset - table.range.start)
        } else if pending.bar == bar && pending.range.contains(&offset) {
            Target::Pending(offset - pending.range.start)
        } else {
            Target::Device
        }
    }

    pub(super) fn read_region(&mut self, region: Region, offset: u64, data: &mut [u8]) {
        match self.target(region, offset) {
            Target::Table(at) => match self.msix_state() {
                Some(msix) => msix.read_table(at, data),
                None => data.fill(0xff),
            },
            Target::Pending(at) => {
                self.read_device(region, offset, data);
                self.overlay_pending(at, data);
            }
            Target::Device => self.read_device(region, offset, data),
        }
    }

    pub(super) fn write_region(&mut self, region: Region, offset: u64, data: &[u8]) {
        match self.target(region, offset) {
            Target::Table(at) => self.write_table(at, data),
            Target::Pending(_) => {}
            Target::Device => {
                if let Err(error) = self.host.region_write(region, offset, data) {
                    self.reporter
                        .warn(format_args!("write to {region:?} at {offset:#x}: {error}"));
                }
            }
        }
    }

    fn read_device(&mut self, region: Region, offset: u64, data: &mut [u8]) {
        if let Err(error) = self.host.region_read(region, offset, data) {
            data.fill(0xff);
            self.reporter
                .warn(format_args!("read of {region:?} at {offset:#x}: {error}"));
        }
    }

    fn write_table(&mut self, at: u64, data: &[u8]) {
        let table = self.msix.as_mut().and_then(|msix| msix.state.as_mut());
        if let Some(vector) = table.and_then(|table| table.write_table(at, data)) {
            self.settle_vectors(vector..vector + 1);
        }
    }

    /// Puts the pending bits of the vectors that the host has turned on into `data`, which holds
    /// the device's own. The host keeps those vectors unmasked in the device, so they are pending
    /// here; the others are still masked there, and pending there.
    fn overlay_pending(&mut self, at: u64, data: &mut [u8]) {
        if self.interrupts.kind() != Some(InterruptKind::Msix) {
            return;
        }
        for place in 0..8 * data.len() {
            let vector = u16::try_from(at * 8 + place as u64).unwrap_or(u16::MAX);
            if !self.interrupts.is_on(vector) {
                continue;
            }
            let mask = 1 << (place % 8);
            if self.interrupts.is_pending(vector, &mut self.host) {
                data[place / 8] |= mask;
            } else {
                data[place / 8] &= !mask;
            }
        }
    }
}
