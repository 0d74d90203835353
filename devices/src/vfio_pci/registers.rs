// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Trapped accesses to BARs: structures for messages, and the device's registers beside them.

use crate::pci::Region;

use super::function::PassthroughFunction;
use super::host::HostFunction;
use super::messages::{Part, Structure};

/// What is at an offset of a region.
enum Target {
    /// A structure of the capability for messages with this number; offset in it.
    Structure(usize, Part, u64),
    /// A register of the device.
    Device,
}

impl<H: HostFunction> PassthroughFunction<H> {
    fn target(&self, region: Region, offset: u64) -> Target {
        let Region::Bar(bar) = region else {
            return Target::Device;
        };
        let capabilities = self.messages.iter().enumerate();
        let mut structures = capabilities
            .flat_map(|(index, one)| one.structures().iter().map(move |part| (index, part)));
        let found = structures
            .find(|(_, Structure { place, .. })| place.bar == bar && place.range.contains(&offset));
        match found {
            Some((index, Structure { place, part })) => {
                Target::Structure(index, *part, offset - place.range.start)
            }
            None => Target::Device,
        }
    }

    pub(super) fn read_region(&mut self, region: Region, offset: u64, data: &mut [u8]) {
        match self.target(region, offset) {
            Target::Structure(index, Part::Table, at) => self.messages[index].read_table(at, data),
            Target::Structure(index, Part::Pending, at) => {
                self.read_device(region, offset, data);
                self.overlay_pending(index, at, data);
            }
            Target::Device => self.read_device(region, offset, data),
        }
    }

    pub(super) fn write_region(&mut self, region: Region, offset: u64, data: &[u8]) {
        match self.target(region, offset) {
            Target::Structure(index, Part::Table, at) => {
                if let Some(vector) = self.messages[index].write_table(at, data) {
                    self.settle_vectors(vector..vector + 1);
                }
            }
            Target::Structure(_, Part::Pending, _) => {}
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

    /// Puts the pending bits of the vectors that the host has turned on into `data`, which holds
    /// the device's own. The host keeps those vectors unmasked in the device, so they are pending
    /// here; the others are still masked there, and pending there.
    fn overlay_pending(&mut self, index: usize, at: u64, data: &mut [u8]) {
        if self.interrupts.kind() != Some(self.messages[index].kind()) {
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
