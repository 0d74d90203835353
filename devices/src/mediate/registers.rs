// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The guest's loads and stores of mediated registers.

use std::ops::Range;

use crate::vfio_pci::{HostError, HostFunction, Region};

use super::function::MediatedFunction;
use super::profile::{Kind, Otherwise, Partial, Register, ones};

impl<H: HostFunction> MediatedFunction<H> {
    /// The registers of which `access` has a byte.
    fn touched(
        &self,
        bar: u8,
        access: &Range<u64>,
    ) -> impl Iterator<Item = (usize, &Register)> + use<'_, H> {
        let access = access.clone();
        let all = self.profile.registers.iter().enumerate();
        all.filter(move |(_, register)| {
            register.bar == bar && register.parts_in(&access).next().is_some()
        })
    }

    /// A register's bytes in an access come from the guest's own, or are all-ones where the
    /// status shows a refusal; all other bytes are the device's.
    pub(super) fn read_registers(
        &mut self,
        bar: u8,
        offset: u64,
        data: &mut [u8],
    ) -> Result<(), HostError> {
        let access = offset..offset + data.len() as u64;
        // The bytes that are not the device's, and which these are.
        let (mut overlay, mut covered) = (0, 0);
        let mut odd = false;
        for (index, register) in self.touched(bar, &access) {
            let mut value = match register.kind {
                Kind::Shadow => {
                    odd |= !register.takes(offset, data.len());
                    Some(self.values[index])
                }
                Kind::Start | Kind::Status => None,
            };
            let transfer = register.transfer;
            if self.shows_refusal[transfer] && self.profile.transfers[transfer].status == index {
                value = Some(u64::MAX);
            }
            for part in register.parts_in(&access).filter(|_| value.is_some()) {
                overlay |= part.to_access(value.unwrap_or_default());
                covered |= part.in_access();
            }
        }
        if odd {
            self.ignore();
            data.fill(0xff);
            return Ok(());
        }
        if covered != bits(data.len()) {
            self.host.region_read(Region::Bar(bar), offset, data)?;
        }
        let value = word(data) & !covered | overlay;
        data.copy_from_slice(&value.to_le_bytes()[..data.len()]);
        Ok(())
    }

    /// A store that touches a mediated register must be of such registers only, and of a shape
    /// that each of them takes; else nothing of it has an effect. What starts a transfer comes
    /// last. One that touches a register of `busy` or `status` must be of that register only.
    pub(super) fn write_registers(
        &mut self,
        bar: u8,
        offset: u64,
        data: &[u8],
    ) -> Result<(), HostError> {
        let access = offset..offset + data.len() as u64;
        let mut stores = [(0, Kind::Shadow, Merged::default()); 8];
        let (mut count, mut covered, mut odd) = (0, 0, false);
        let mut status = None;
        for (index, register) in self.touched(bar, &access) {
            let merged = merge(register, self.values[index], &access, word(data));
            covered |= merged.covered;
            odd |= !register.takes(offset, data.len());
            if register.kind == Kind::Status {
                status = Some(index);
            }
            stores[count] = (index, register.kind, merged);
            count += 1;
        }
        if count == 0 {
            return self.host.region_write(Region::Bar(bar), offset, data);
        }
        if odd || covered != bits(data.len()) || status.is_some() && count != 1 {
            self.ignore();
            return Ok(());
        }
        if let Some(index) = status {
            return self.write_status(index, offset, data);
        }
        let stores = &stores[..count];
        for (index, _, merged) in stores.iter().filter(|(_, kind, _)| *kind != Kind::Start) {
            self.values[*index] = merged.value;
        }
        // The guest has asked for each of them, so each is counted, whether others fail or not.
        let mut result = Ok(());
        for (index, _, merged) in stores.iter().filter(|(_, kind, _)| *kind == Kind::Start) {
            result = result.and(self.write_start(*index, *merged));
        }
        result
    }

    /// A store to a register that reports whether a transfer is under way, or a refusal. If the
    /// guest could change it, a transfer could be started during another one. Only bits that the
    /// profile allows pass; the others are zeros.
    fn write_status(&mut self, index: usize, offset: u64, data: &[u8]) -> Result<(), HostError> {
        let register = &self.profile.registers[index];
        let access = offset..offset + data.len() as u64;
        let parts = register.parts_in(&access);
        let passed = parts.fold(0, |passed, part| passed | part.to_access(register.passed));
        if passed == 0 {
            self.ignore_status(index);
            return Ok(());
        }
        let bytes = (word(data) & passed).to_le_bytes();
        let region = Region::Bar(register.bar);
        self.host.region_write(region, offset, &bytes[..data.len()])
    }

    /// A store to the start register.
    fn write_start(&mut self, index: usize, merged: Merged) -> Result<(), HostError> {
        let Merged { value, written, .. } = merged;
        let number = self.profile.registers[index].transfer;
        let transfer = &self.profile.transfers[number];
        let (mask, otherwise) = (transfer.start.mask, transfer.otherwise);
        let starts = value & mask == transfer.start.value;
        let decided = mask & written;
        if decided != mask && decided != 0 {
            // Half of the start bits: no device is known to make sense of it.
            self.ignore();
            return Ok(());
        }
        self.values[index] = value;
        if decided != mask {
            return Ok(());
        }
        if starts {
            return self.start(number);
        }
        match otherwise {
            Otherwise::Drop => Ok(()),
            Otherwise::Pass if self.is_busy(number)? => Ok(()),
            Otherwise::Pass => self.store(index, value),
        }
    }
}

/// A register after an access.
#[derive(Clone, Copy, Debug, Default)]
struct Merged {
    /// What it has.
    value: u64,
    /// The bits of the register that the access decides on.
    written: u64,
    /// The bits of the access that are the register's.
    covered: u64,
}

/// `old` with the bytes of an access that are the register's. `data` has the bytes of the access.
fn merge(register: &Register, old: u64, access: &Range<u64>, data: u64) -> Merged {
    let mut merged = Merged::default();
    for part in register.parts_in(access) {
        merged.value |= part.to_register(data);
        merged.written |= part.in_register();
        merged.covered |= part.in_access();
    }
    match register.partial == Partial::Replace {
        true => merged.written = register.bits(),
        false => merged.value |= old & !merged.written,
    }
    merged
}

/// The bytes of an access, 8 at most.
fn word(data: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    bytes[..data.len()].copy_from_slice(data);
    u64::from_le_bytes(bytes)
}

/// All bits of an access of up to 8 bytes.
fn bits(length: usize) -> u64 {
    ones(u8::try_from(length).unwrap_or(8))
}
