// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The window as a PCI function.

use std::collections::HashSet;
use std::sync::Arc;

use address::{Bdf, Gpa};
use amdv1::TablePage;
use amdv1::level::ENTRIES;
use thiserror::Error;

use crate::guest_table::GuestTable;
use crate::pci::{Bar, BarError, BarKind, EmulatedConfig, Identity, PciFunction, Region, Windows};
use crate::vfio_pci::BusMasterGate;

use super::registers::{DEVICE, Gated, REGISTERS_SIZE, Registers, VENDOR, VERSION, read_part};

const IDENTITY: Identity = Identity {
    vendor: VENDOR,
    device: DEVICE,
    revision: VERSION,
    // Base system peripheral, other.
    class: 0x08_80_00,
    subsystem_vendor: VENDOR,
    subsystem: DEVICE,
    pin: None,
};

const REGISTERS_BAR: u8 = 0;
const TABLE_BAR: u8 = 2;

/// What the monitor decides for a window.
#[derive(Debug)]
pub struct Options<P> {
    /// Address of BAR 0, [`REGISTERS_SIZE`] bytes below 4 GiB.
    pub registers: Gpa,
    /// What BAR 2 shows, at the table's base.
    pub table: Arc<GuestTable<P>>,
    /// The functions whose bus mastering waits for the guest's word, by their place on the
    /// guest's bus, in domain 0.
    pub functions: Vec<(Bdf, BusMasterGate)>,
}

/// A window that cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SetupError {
    /// A BAR cannot be at its address.
    #[error("Cannot place BAR {index} of the DMA window")]
    Bar {
        /// Which one.
        index: u8,
        /// Why.
        #[source]
        source: BarError,
    },
    /// The table's BAR would hide guest memory, or has no address.
    #[error("the table of the DMA window, {} KiB, cannot be placed at GPA {base}", size / 1024)]
    Table {
        /// First address of the BAR.
        base: Gpa,
        /// Bytes.
        size: u64,
    },
    /// A function cannot be named through the window, or is named twice.
    #[error("the DMA window cannot distinguish {bdf} from other functions")]
    Function {
        /// The function.
        bdf: Bdf,
    },
}

/// The DMA window.
///
/// Its BARs cannot move: a guest that writes other addresses reads them back, but the BAR answers
/// at its first address and nowhere else.
#[derive(Debug)]
pub struct DmaWindow<P> {
    config: EmulatedConfig,
    registers: Registers,
    table: Arc<GuestTable<P>>,
}

impl<P: AsRef<[TablePage]>> DmaWindow<P> {
    /// A window at power-on. Closes the gates of all functions in `options`.
    ///
    /// # Errors
    ///
    /// [`SetupError`]; no gate is changed then.
    pub fn new(options: Options<P>) -> Result<Self, SetupError> {
        let Options {
            registers,
            table,
            functions,
        } = options;
        let (base, size) = (table.base(), table.bar_size());
        if base.0 == 0 || table.touches(base, size) {
            return Err(SetupError::Table { base, size });
        }
        let mut config = EmulatedConfig::new(&IDENTITY);
        let narrow = BarKind::Memory32 {
            prefetchable: false,
        };
        let wide = BarKind::Memory64 { prefetchable: true };
        for (index, kind, size, home) in [
            (REGISTERS_BAR, narrow, REGISTERS_SIZE, registers),
            (TABLE_BAR, wide, size, base),
        ] {
            Bar::new(kind, size, home.0)
                .and_then(|bar| config.add_bar(index, bar))
                .map_err(|source| SetupError::Bar { index, source })?;
        }
        let mut names = HashSet::new();
        for (bdf, _) in &functions {
            if bdf.domain() != 0 || !names.insert(*bdf) {
                return Err(SetupError::Function { bdf: *bdf });
            }
        }
        let gated = |(bdf, gate)| Gated { bdf, gate };
        let functions = functions.into_iter().map(gated).collect();
        Ok(Self {
            config,
            registers: Registers::new(&table, functions),
            table,
        })
    }

    /// Reads `data.len()` bytes, at most 8 and not across a multiple of 8, at `offset` into the
    /// table's BAR; zeros behind the pages.
    fn read_table(&self, offset: u64, data: &mut [u8]) {
        let word = usize::try_from(offset / 8).unwrap_or(usize::MAX);
        let page = self.table.pages().as_ref().get(word / ENTRIES);
        let entry = page.and_then(|page| page.load(word % ENTRIES));
        read_part(entry.unwrap_or_default().0, offset, data);
    }
}

impl<P: AsRef<[TablePage]> + Send + Sync> PciFunction for DmaWindow<P> {
    fn config_read(&mut self, offset: u16, data: &mut [u8]) {
        self.config.read(offset, data);
    }

    fn config_write(&mut self, offset: u16, data: &[u8]) {
        self.config.write(offset, data);
    }

    fn windows(&self) -> Windows {
        self.config.windows()
    }

    fn bar_read(&mut self, region: Region, offset: u64, data: &mut [u8]) {
        match region {
            Region::Bar(REGISTERS_BAR) => self.registers.read(offset, data),
            Region::Bar(TABLE_BAR) => self.read_table(offset, data),
            Region::Bar(_) | Region::Rom => data.fill(0xff),
        }
    }

    fn bar_write(&mut self, region: Region, offset: u64, data: &[u8]) {
        if region == Region::Bar(REGISTERS_BAR) {
            self.registers.write(offset, data, &self.table);
        }
    }

    fn reset(&mut self) {
        self.config.reset();
        self.registers.reset();
    }
}
