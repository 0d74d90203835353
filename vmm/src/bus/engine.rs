// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The device of a synthetic machine as a function of the guest's bus.

use address::Bdf;

use super::emulated::{EmulatedFunction, Place};
use super::{BusError, Passed};

/// What the device is called, as the host gives it no name: its place in the guest.
const BDF: Bdf = Bdf::new(0, 0, 1, 0).unwrap();

/// The device of the synthetic machine that the guest's memory is from.
#[derive(Debug)]
pub(crate) struct Engine;

impl EmulatedFunction for Engine {
    fn name(&self) -> &'static str {
        "DMA engine in software"
    }

    fn plug(self: Box<Self>, place: &mut Place<'_>) -> Result<Passed, BusError> {
        let Some(machine) = place.resources.assigned.spaces.synthetic() else {
            return Err(BusError::Engine("the machine is not synthetic".into()));
        };
        let device = machine
            .start(place.lines.clone())
            .map_err(BusError::Engine)?;
        let path = machine.dma_path().clone();
        place.resources.workers.push(device.worker);
        place.wiring.pass(device.function, BDF, &place.lines, &path)
    }
}
