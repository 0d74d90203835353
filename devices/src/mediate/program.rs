// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What the device gets at a start, in as few calls of the host as possible, and what it reports.

use thiserror::Error;

use crate::vfio_pci::{HostError, HostFunction, Region};

use super::check::Replacements;
use super::function::MediatedFunction;
use super::profile::RUN;

/// A device that does not hold what was stored.
#[derive(Debug, Error)]
#[error("register {register:?} reads as {found:#x} after {stored:#x} was stored")]
struct NotTaken {
    register: String,
    stored: u64,
    found: u64,
}

/// What the registers of a run get; those that it does not have are 0.
type Values = [u64; RUN];

impl<H: HostFunction> MediatedFunction<H> {
    /// Programs the device and starts it; `false` if a transfer is under way.
    pub(super) fn program(
        &mut self,
        number: usize,
        replaced: Replacements,
    ) -> Result<bool, HostError> {
        // A device that is busy may ignore some of what follows and take the rest, and so start
        // something that was not checked. One that is not stays so: only the monitor can start it.
        if self.is_busy(number)? {
            return Ok(false);
        }
        let runs = self.profile.transfers[number].programmed.len();
        for run in 0..runs {
            self.store_run(number, run, self.values(number, run, replaced))?;
        }
        for run in 0..runs {
            self.read_back(number, run, self.values(number, run, replaced))?;
        }
        let start = self.profile.transfers[number].start.register;
        self.store(start, self.values[start])?;
        self.shows_refusal[number] = false;
        Ok(true)
    }

    fn run(&self, number: usize, run: usize) -> &[usize] {
        &self.profile.transfers[number].programmed[run]
    }

    /// What the guest has stored, with addresses replaced and without bits that no field names.
    fn values(&self, number: usize, run: usize, replaced: Replacements) -> Values {
        let mut values = [0; RUN];
        for (value, register) in values.iter_mut().zip(self.run(number, run)) {
            let replaced = replaced.iter().flatten().find(|(at, _)| at == register);
            let stored = replaced.map_or(self.values[*register], |(_, address)| address.0);
            *value = stored & self.profile.registers[*register].passed;
        }
        values
    }

    /// Where a run is, and how many registers it has.
    fn place(&self, number: usize, run: usize) -> (Region, u64, usize) {
        let registers = self.run(number, run);
        let first = &self.profile.registers[registers[0]];
        (
            Region::Bar(first.bar),
            first.spans[0].offset,
            registers.len(),
        )
    }

    fn store_run(&mut self, number: usize, run: usize, values: Values) -> Result<(), HostError> {
        if let [register] = *self.run(number, run) {
            return self.store(register, values[0]);
        }
        let (region, offset, count) = self.place(number, run);
        let bytes = values.map(u64::to_le_bytes);
        self.host
            .region_write_all(region, offset, bytes[..count].as_flattened())
    }

    /// Fails if the device does not hold the `stored` values, if the profile declares these registers readable.
    fn read_back(&mut self, number: usize, run: usize, stored: Values) -> Result<(), HostError> {
        let first = self.run(number, run)[0];
        if !self.profile.registers[first].read_back {
            return Ok(());
        }
        let (region, offset, count) = self.place(number, run);
        let mut found = stored;
        if count == 1 {
            found[0] = self.load(first)?;
        } else {
            let mut bytes = [[0; 8]; RUN];
            self.host
                .region_read_all(region, offset, bytes[..count].as_flattened_mut())?;
            found = bytes.map(u64::from_le_bytes);
        }
        let pairs = stored.into_iter().zip(found).zip(self.run(number, run));
        for ((stored, found), register) in pairs {
            if found != stored {
                let register = self.profile.registers[*register].name.clone();
                let error = NotTaken {
                    register,
                    stored,
                    found,
                };
                return Err(HostError(Box::new(error)));
            }
        }
        Ok(())
    }

    /// Whether a transfer is under way, as the device reports.
    pub(super) fn is_busy(&mut self, number: usize) -> Result<bool, HostError> {
        match self.profile.transfers[number].busy {
            Some(busy) => Ok(self.load(busy.register)? & busy.mask == busy.value),
            None => Ok(false),
        }
    }

    /// Reads a register of the device.
    fn load(&mut self, index: usize) -> Result<u64, HostError> {
        let register = &self.profile.registers[index];
        let (region, step) = (Region::Bar(register.bar), register.store);
        let mut bytes = [0; 8];
        for span in &register.spans {
            for at in (0..span.length).step_by(step.into()) {
                let first = usize::from(span.first + at);
                let data = &mut bytes[first..first + usize::from(step)];
                let offset = span.offset + u64::from(at);
                self.host.region_read(region, offset, data)?;
            }
        }
        Ok(u64::from_le_bytes(bytes))
    }

    /// Writes a register of the device, with stores as it needs them. Bits that no field names are
    /// zeros, unless the profile specifies otherwise.
    pub(super) fn store(&mut self, index: usize, value: u64) -> Result<(), HostError> {
        let register = &self.profile.registers[index];
        let (region, step) = (Region::Bar(register.bar), register.store);
        let bytes = (value & register.passed).to_le_bytes();
        for span in &register.spans {
            for at in (0..span.length).step_by(step.into()) {
                let first = usize::from(span.first + at);
                let data = &bytes[first..first + usize::from(step)];
                let offset = span.offset + u64::from(at);
                self.host.region_write(region, offset, data)?;
            }
        }
        Ok(())
    }
}
