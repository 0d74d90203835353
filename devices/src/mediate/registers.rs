// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The guest's loads and stores of mediated registers.

use std::ops::Range;

use crate::vfio_pci::{HostError, HostFunction, Region};

use super::function::MediatedFunction;
use super::profile::{Kind, Otherwise, Partial, Register};

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
            register.bar == bar && register.bytes_in(access.clone()).next().is_some()
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
        let mut overlay = [None; 8];
        let mut odd = false;
        for (index, register) in self.touched(bar, &access) {
            let mut bytes = match register.kind {
                Kind::Shadow => {
                    odd |= !register.takes(offset, data.len());
                    Some(self.values[index].to_le_bytes())
                }
                Kind::Start | Kind::Status => None,
            };
            let transfer = register.transfer;
            if self.shows_refusal[transfer] && self.profile.transfers[transfer].status == index {
                bytes = Some([0xff; 8]);
            }
            for (place, byte) in register.bytes_in(access.clone()) {
                overlay[place] = bytes.map(|bytes| bytes[usize::from(byte)]);
            }
        }
        if odd {
            self.ignore();
            data.fill(0xff);
            return Ok(());
        }
        if overlay[..data.len()].iter().any(Option::is_none) {
            self.host.region_read(Region::Bar(bar), offset, data)?;
        }
        for (byte, overlay) in data.iter_mut().zip(overlay) {
            *byte = overlay.unwrap_or(*byte);
        }
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
        let mut stores = [None; 8];
        let (mut count, mut covered, mut odd) = (0, 0, false);
        let mut status = None;
        for (index, register) in self.touched(bar, &access) {
            covered += register.bytes_in(access.clone()).count();
            odd |= !register.takes(offset, data.len());
            if register.kind == Kind::Status {
                status = Some(index);
            }
            stores[count] = Some(index);
            count += 1;
        }
        if count == 0 {
            return self.host.region_write(Region::Bar(bar), offset, data);
        }
        if odd || covered != data.len() || status.is_some() && count != 1 {
            self.ignore();
            return Ok(());
        }
        if let Some(index) = status {
            return self.write_status(index, offset, data);
        }
        let mut starts = [None; 8];
        for (index, start) in stores.into_iter().flatten().zip(&mut starts) {
            let register = &self.profile.registers[index];
            let (value, written) = merge(register, self.values[index], &access, data);
            if register.kind == Kind::Start {
                *start = Some((index, value, written));
            } else {
                self.values[index] = value;
            }
        }
        // The guest has asked for each of them, so each is counted, whether others fail or not.
        starts
            .into_iter()
            .flatten()
            .map(|(index, value, written)| self.write_start(index, value, written))
            .fold(Ok(()), Result::and)
    }

    /// A store to a register that reports whether a transfer is under way, or a refusal. If the
    /// guest could change it, a transfer could be started during another one. Only bits that the
    /// profile allows pass; the others are zeros.
    fn write_status(&mut self, index: usize, offset: u64, data: &[u8]) -> Result<(), HostError> {
        let register = &self.profile.registers[index];
        let access = offset..offset + data.len() as u64;
        let passed = register.passed.to_le_bytes();
        let mut bytes = [0; 8];
        let mut any = 0;
        for (place, byte) in register.bytes_in(access) {
            let mask = passed[usize::from(byte)];
            bytes[place] = data[place] & mask;
            any |= mask;
        }
        if any == 0 {
            self.ignore_status(index);
            return Ok(());
        }
        let data = &bytes[..data.len()];
        let region = Region::Bar(register.bar);
        self.host.region_write(region, offset, data)
    }

    /// The start register has `value` after a store of the bits in `written`.
    fn write_start(&mut self, index: usize, value: u64, written: u64) -> Result<(), HostError> {
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

/// `old` with the bytes of `data` that are the register's, and the bits that they decide on.
fn merge(register: &Register, old: u64, access: &Range<u64>, data: &[u8]) -> (u64, u64) {
    let whole = register.partial == Partial::Replace;
    let mut bytes = if whole { [0; 8] } else { old.to_le_bytes() };
    let mut written = [0; 8];
    for (place, byte) in register.bytes_in(access.clone()) {
        bytes[usize::from(byte)] = data[place];
        written[usize::from(byte)] = 0xff;
    }
    let written = if whole {
        register.bits()
    } else {
        u64::from_le_bytes(written)
    };
    (u64::from_le_bytes(bytes), written)
}
