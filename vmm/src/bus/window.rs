// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The DMA window of a guest that translates: its address, and the run's table in the guest.

use std::sync::Arc;

use address::Gpa;
use devices::dma_window::{DmaWindow, Options, REGISTERS_SIZE, SetupError};
use devices::pci::PciFunction;

use super::allocator::BusAllocator;
use super::emulated::{EmulatedFunction, Place};
use super::{BusError, Passed};

/// The registers are below.
const LIMIT_4G: Gpa = Gpa(1 << 32);

/// Why a guest cannot have its window.
#[derive(Debug, thiserror::Error)]
pub enum WindowError {
    /// The bus has no room.
    #[error("The host's PCI address windows have no room for the {what} of the DMA window, {} KiB", size.div_ceil(1024))]
    NoRoom {
        /// Registers or table.
        what: &'static str,
        /// Bytes.
        size: u64,
    },
    /// The function cannot be made.
    #[error(transparent)]
    Setup(#[from] SetupError),
}

/// Addresses of a window's BARs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    /// Registers.
    pub registers: Gpa,
    /// The table.
    pub table: Gpa,
}

impl Places {
    /// Places for the BARs, that of the table of `table_size` bytes.
    ///
    /// # Errors
    /// [`WindowError::NoRoom`]
    pub fn find(table_size: u64, bus: &mut BusAllocator) -> Result<Self, WindowError> {
        let mut place = |what, size, limit| {
            let at = bus.bar(size, limit);
            at.ok_or(WindowError::NoRoom { what, size })
        };
        Ok(Self {
            registers: place("registers", REGISTERS_SIZE, LIMIT_4G)?,
            table: place("table", table_size, Gpa(u64::MAX))?,
        })
    }
}

/// A window for the run's table, which was made for these places. Through it the guest lets the devices whose
/// addresses it translates master the bus.
#[derive(Debug)]
pub(crate) struct Window(pub Places);

impl EmulatedFunction for Window {
    fn name(&self) -> &'static str {
        "DMA window"
    }

    fn plug(self: Box<Self>, place: &mut Place<'_>) -> Result<Passed, BusError> {
        let Self(places) = *self;
        let table = place.wiring.table;
        let window = DmaWindow::new(Options {
            registers: places.registers,
            table: Arc::clone(table),
            functions: std::mem::take(place.gates),
        });
        let function: Box<dyn PciFunction> = Box::new(window.map_err(WindowError::from)?);
        // The memslot is the table's own memory.
        place.show(places.table, table.pages().mapping())?;
        log::info!(
            "DMA window: registers gpa={}, table gpa={} of {} pages",
            places.registers,
            places.table,
            table.pages().as_ref().len()
        );
        Ok(function.into())
    }
}
