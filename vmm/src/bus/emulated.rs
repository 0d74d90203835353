// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Functions that the monitor emulates, and the resources that each uses.
//!
//! Another device is a file with a type that implements [`EmulatedFunction`], made where its option is inspected: it
//! opens its files there and takes room for its BARs from [`BusAllocator`](super::allocator::BusAllocator).

use std::fmt;
use std::sync::Arc;

use address::{Bdf, Gpa};
use devices::vfio_pci::BusMasterGate;
use iommufd_backend::Mapping;

use super::lines::InterruptLines;
use super::{BusError, Passed, Wiring};
use crate::teardown::Resources;

/// What a function takes from the machine.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    /// Its interrupts.
    pub lines: InterruptLines,
    /// What ends with the guest. Guest memory is in it, for DMA; a function adds its
    /// [workers](Resources::workers) and [memslots](Resources::memslots).
    pub resources: &'a mut Resources,
    /// Devices whose guest translates, each with the gate of its bus mastering, until a function takes them.
    pub gates: &'a mut Vec<(Bdf, BusMasterGate)>,
    /// The rest of the machine.
    pub wiring: &'a Wiring<'a>,
}

impl Place<'_> {
    /// Shows `mapping` at `gpa` to the guest, which can only read it.
    pub fn show(&mut self, gpa: Gpa, mapping: Arc<Mapping>) -> Result<(), BusError> {
        let memslot = self.wiring.vm.map_read_only(gpa, mapping)?;
        self.resources.memslots.push(memslot);
        Ok(())
    }
}

/// A function that the monitor emulates.
pub(crate) trait EmulatedFunction: fmt::Debug + Send {
    /// What logs call it.
    fn name(&self) -> &'static str;

    /// Makes the function at its place.
    ///
    /// # Errors
    /// [`BusError`]
    fn plug(self: Box<Self>, place: &mut Place<'_>) -> Result<Passed, BusError>;
}
