// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Starts of transfers: from the guest's request to the device.

use crate::vfio_pci::{DeviceFailure, HostError, HostFunction};

use super::check::{Reason, Refusal, Replacements};
use super::function::MediatedFunction;
use super::profile::RefusalShown;

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
}
