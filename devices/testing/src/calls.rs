// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the function under test may call.

use std::ops::Range;

use address::Gpa;
use devices::pci::{MsiMessage, Region};
use devices::vfio_pci::{HostError, HostFunction, HostInfo, InterruptKind};

use super::host::{Call, SimulatedHost, State};

impl HostFunction for SimulatedHost {
    fn info(&self) -> &HostInfo {
        &self.info
    }

    fn config_read(&mut self, offset: u16, data: &mut [u8]) -> Result<(), HostError> {
        let length = data.len();
        self.perform(Call::ConfigRead { offset, length }, |state| {
            state.check_config(offset, length);
            for (at, byte) in (usize::from(offset)..).zip(data) {
                *byte = state.config.get(at).copied().unwrap_or(0xff);
            }
        })
    }

    fn config_write(&mut self, offset: u16, data: &[u8]) -> Result<(), HostError> {
        let call = Call::ConfigWrite {
            offset,
            data: data.to_vec(),
        };
        self.perform(call, |state| state.write_config(offset, data))
    }

    fn region_read(
        &mut self,
        region: Region,
        offset: u64,
        data: &mut [u8],
    ) -> Result<(), HostError> {
        let length = data.len();
        let call = Call::RegionRead {
            region,
            offset,
            length,
        };
        self.perform(call, |state| {
            state.check_region(region, offset, length);
            for (at, byte) in (offset..).zip(data) {
                *byte = state.registers.get(&(region, at)).copied().unwrap_or(0);
            }
        })
    }

    fn region_write(&mut self, region: Region, offset: u64, data: &[u8]) -> Result<(), HostError> {
        let call = Call::RegionWrite {
            region,
            offset,
            data: data.to_vec(),
        };
        self.perform(call, |state| {
            state.check_region(region, offset, data.len());
            state.expect(region != Region::Rom, "write to the ROM", offset);
            for (at, byte) in (offset..).zip(data) {
                state.registers.insert((region, at), *byte);
            }
        })
    }

    fn map(&mut self, bar: u8, area: Range<u64>, gpa: Gpa) -> Result<(), HostError> {
        let call = Call::Map {
            bar,
            area: area.clone(),
            gpa,
        };
        self.perform(call, |state| state.map(bar, area, gpa))
    }

    fn unmap(&mut self, bar: u8, area: Range<u64>) -> Result<(), HostError> {
        let call = Call::Unmap {
            bar,
            area: area.clone(),
        };
        self.perform(call, |state| state.unmap(bar, area))
    }

    fn enable_interrupts(&mut self, kind: InterruptKind, vectors: u16) -> Result<u16, HostError> {
        self.perform(Call::Enable { kind, vectors }, |state| {
            state.enable(kind, vectors)
        })
    }

    fn disable_interrupts(&mut self) -> Result<(), HostError> {
        self.perform(Call::Disable, State::disable)
    }

    fn connect(&mut self, vector: u16, message: MsiMessage) -> Result<(), HostError> {
        let connected = self.perform(Call::Connect { vector, message }, |state| {
            state.set_vector(vector, Some(message))
        })?;
        let absent = || HostError(format!("there is no vector {vector}").into());
        connected.then_some(()).ok_or_else(absent)
    }

    fn disconnect(&mut self, vector: u16) -> Result<(), HostError> {
        self.perform(Call::Disconnect { vector }, |state| {
            state.set_vector(vector, None);
        })
    }

    fn restore_vectors(&mut self) -> Result<(), HostError> {
        self.perform(Call::Restore, |state| state.expect_awake("restored"))
    }

    fn pending(&mut self, vector: u16) -> bool {
        let mut state = self.witness.lock();
        let disconnected = match &state.interrupts {
            Some((_, set)) => set.get(&vector) == Some(&None),
            None => false,
        };
        state.expect(disconnected, "pending of a connected vector", vector);
        state.pending.contains(&vector)
    }

    fn reset(&mut self) -> Result<(), HostError> {
        self.perform(Call::Reset, State::reset)
    }
}
