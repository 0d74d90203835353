// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Functions that the monitor emulates, and what each takes from the machine.
//!
//! Another device is a folder with a type that implements [`EmulatedFunction`], and a line where the bus is built
//! ([`Wiring::plug`](super::Wiring::plug)).

use std::sync::Arc;

use address::Gpa;
use iommufd_backend::Mapping;
use vm_memory::GuestMemoryMmap;

use super::lines::InterruptLines;
use super::{BusError, Passed, Wiring};
use crate::kvm::vm::Memslot;

/// What a function takes from the machine.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    /// Its interrupts.
    pub lines: InterruptLines,
    /// Guest memory, for DMA.
    #[expect(
        dead_code,
        reason = "no function that is emulated so far does DMA by itself"
    )]
    pub memory: &'a GuestMemoryMmap,
    /// The rest of the machine.
    pub wiring: &'a Wiring<'a>,
    /// Memory of its own that the guest sees.
    pub memslots: Vec<Memslot>,
}

impl Place<'_> {
    /// Shows `mapping` at `gpa` to the guest, which can only read it.
    pub fn show(&mut self, gpa: Gpa, mapping: Arc<Mapping>) -> Result<(), BusError> {
        let memslot = self.wiring.vm.map_read_only(gpa, mapping)?;
        self.memslots.push(memslot);
        Ok(())
    }
}

/// A function that the monitor emulates.
pub(crate) trait EmulatedFunction {
    /// What logs call it.
    const NAME: &'static str;

    /// Makes the function at its place.
    ///
    /// # Errors
    /// [`BusError`]
    fn plug(self, place: &mut Place<'_>) -> Result<Passed, BusError>;
}
