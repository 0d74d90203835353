//! The window as a PCI function.

use std::collections::HashSet;

use address::{Bdf, Gpa};
use thiserror::Error;

use crate::pci::{Bar, BarError, BarKind, EmulatedConfig, Identity, PciFunction, Region, Windows};
use crate::vfio_pci::BusMasterGate;

use super::registers::{DEVICE, Gated, REGISTERS_SIZE, Registers, VENDOR, VERSION};
use super::table::WindowTable;

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
pub struct Options {
    /// Where BAR 0 stands, [`REGISTERS_SIZE`] bytes below 4 GiB.
    pub registers: Gpa,
    /// What BAR 2 shows, where it was built for.
    pub table: WindowTable,
    /// The functions whose bus mastering waits for the guest's word, by their place on the
    /// guest's bus, in domain 0.
    pub functions: Vec<(Bdf, BusMasterGate)>,
}

/// A window that cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SetupError {
    /// A BAR cannot stand where it should.
    #[error("The DMA window's BAR {index}")]
    Bar {
        /// Which one.
        index: u8,
        /// Why.
        #[source]
        source: BarError,
    },
    /// A function cannot be named through the window, or is named twice.
    #[error("the DMA window cannot tell {bdf} from other functions")]
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
pub struct DmaWindow {
    config: EmulatedConfig,
    registers: Registers,
    table: WindowTable,
}

impl DmaWindow {
    /// A window at power-on. Closes the gates of all functions in `options`.
    ///
    /// # Errors
    ///
    /// [`SetupError`]; no gate is changed then.
    pub fn new(options: Options) -> Result<Self, SetupError> {
        let Options {
            registers,
            table,
            functions,
        } = options;
        let mut config = EmulatedConfig::new(&IDENTITY);
        let narrow = BarKind::Memory32 {
            prefetchable: false,
        };
        let wide = BarKind::Memory64 { prefetchable: true };
        for (index, kind, size, home) in [
            (REGISTERS_BAR, narrow, REGISTERS_SIZE, registers),
            (TABLE_BAR, wide, table.bar_size(), table.base()),
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

    /// The table that it shows.
    #[must_use]
    pub fn table(&self) -> &WindowTable {
        &self.table
    }
}

impl PciFunction for DmaWindow {
    fn config_read(&mut self, offset: u16, data: &mut [u8]) {
        self.config.read(offset, data);
    }

    fn config_write(&mut self, offset: u16, data: &[u8]) {
        self.config.write(offset, data);
    }

    fn windows(&self) -> Windows {
        let mut windows = Windows::default();
        for window in self.config.windows().iter() {
            if let Region::Bar(index) = window.region
                && self.config.bars().get(index).is_some_and(Bar::is_home)
            {
                windows.push(*window);
            }
        }
        windows
    }

    fn bar_read(&mut self, region: Region, offset: u64, data: &mut [u8]) {
        match region {
            Region::Bar(REGISTERS_BAR) => self.registers.read(offset, data),
            Region::Bar(TABLE_BAR) => self.table.read(offset, data),
            Region::Bar(_) | Region::Rom => data.fill(0xff),
        }
    }

    fn bar_write(&mut self, region: Region, offset: u64, data: &[u8]) {
        if region == Region::Bar(REGISTERS_BAR) {
            self.registers.write(offset, data, self.table.memory());
        }
    }

    fn reset(&mut self) {
        self.config.reset();
        self.registers.reset();
    }
}
