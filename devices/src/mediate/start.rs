// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Starts of transfers: from the guest's request to the device.

use thiserror::Error;

use crate::vfio_pci::{DeviceFailure, HostError, HostFunction, Region};

use super::check::{Reason, Refusal, Replacements};
use super::function::MediatedFunction;
use super::profile::RefusalShown;

/// A device that does not hold what was stored.
#[derive(Debug, Error)]
#[error("register {register:?} reads as {found:#x} after {stored:#x} was stored")]
struct NotTaken {
    register: String,
    stored: u64,
    found: u64,
}

impl<H: HostFunction> MediatedFunction<H> {
    /// Starts transfer `number` as the registers have it, if it may be.
    pub(super) fn start(&mut self, number: usize) -> Result<(), HostError> {
        let transfer = &self.profile.transfers[number];
        let checked = if self.stopped {
            Err(Refusal {
                direction: None,
                length: 0,
                reason: Reason::Stopped,
            })
        } else {
            transfer.check(&self.values, self.translate.as_ref())
        };
        let replacements = match checked {
            Ok(replacements) => replacements,
            Err(refusal) => {
                self.refuse(number, refusal);
                return Ok(());
            }
        };
        let result = self.program(number, replacements);
        if let Ok(true) = result {
            self.log_start(number, replacements);
        }
        self.counters.update(|statistics| match result {
            Ok(true) => statistics.started += 1,
            Ok(false) => statistics.busy += 1,
            Err(_) => statistics.failed += 1,
        });
        result.map(|_| ())
    }

    fn log_start(&self, number: usize, replaced: Replacements) {
        let transfer = &self.profile.transfers[number];
        for (register, address) in replaced.into_iter().flatten() {
            log::debug!(
                "{}: {}: {:#x} bytes started, {} is {address}",
                self.host.info().name,
                transfer.name,
                transfer.length.of(&self.values),
                self.profile.registers[register].name
            );
        }
    }

    /// Programs the device and starts it; `false` if a transfer is under way.
    fn program(&mut self, number: usize, replaced: Replacements) -> Result<bool, HostError> {
        // A device that is busy may ignore some of what follows and take the rest, and so start
        // something that was not checked. One that is not stays so: only the monitor can start it.
        if self.is_busy(number)? {
            return Ok(false);
        }
        let value_of = |values: &[u64], register: usize| {
            let replaced = replaced.iter().flatten().find(|(at, _)| *at == register);
            replaced.map_or(values[register], |(_, address)| address.0)
        };
        let count = self.profile.transfers[number].programmed.len();
        for place in 0..count {
            let register = self.profile.transfers[number].programmed[place];
            self.store(register, value_of(&self.values, register))?;
        }
        for place in 0..count {
            let register = self.profile.transfers[number].programmed[place];
            self.read_back(register, value_of(&self.values, register))?;
        }
        let start = self.profile.transfers[number].start.register;
        self.store(start, self.values[start])?;
        self.shows_refusal[number] = false;
        Ok(true)
    }

    /// Fails if the device does not hold `stored`, if the profile declares it readable.
    fn read_back(&mut self, index: usize, stored: u64) -> Result<(), HostError> {
        if !self.profile.registers[index].read_back {
            return Ok(());
        }
        let found = self.load(index)?;
        let register = &self.profile.registers[index];
        let stored = stored & register.passed;
        if found == stored {
            return Ok(());
        }
        let register = register.name.clone();
        let error = NotTaken {
            register,
            stored,
            found,
        };
        Err(HostError(Box::new(error)))
    }

    fn refuse(&mut self, number: usize, refusal: Refusal) {
        let device = &self.host.info().name;
        let transfer = &self.profile.transfers[number].name;
        self.counters.refuse(device, transfer, refusal);
        match self.profile.refusal {
            RefusalShown::Drop => {}
            RefusalShown::AllOnes => self.shows_refusal[number] = true,
            RefusalShown::Stop if self.stopped => {}
            RefusalShown::Stop => {
                self.stopped = true;
                (self.on_stop)(DeviceFailure {
                    device: device.clone(),
                    operation: "mediated DMA".into(),
                    source: HostError(Box::new(refusal)),
                });
            }
        }
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
