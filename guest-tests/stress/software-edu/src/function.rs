// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The engine's PCI function.

use std::fmt;
use std::sync::Arc;

use address::Gpa;
use pci_config::regs::{CAP_MSI, COMMAND, INTERRUPT, STATUS_INTERRUPT, upper_half};
use thiserror::Error;

use devices::pci::{
    Bar, BarError, BarKind, CapabilityError, EmulatedConfig, Identity, PciFunction, Pin, Region,
    Windows,
};
use devices::pci::{DwordWrite, read_part};

use crate::interrupts::Interrupts;
use crate::outside::{DmaMemory, InterruptSink};
use crate::state::{Shared, State};
use crate::transfer::BUFFER_SIZE;
use crate::worker::EduWorker;

/// QEMU's identity of the device.
const IDENTITY: Identity = Identity {
    vendor: 0x1234,
    device: 0x11e8,
    revision: 0x10,
    class: 0xff_00_00,
    subsystem_vendor: 0x1af4,
    subsystem: 0x1100,
    pin: Some(Pin::A),
};

/// Bytes of BAR 0.
pub const BAR_SIZE: u64 = 1 << 20;

/// What the monitor decides for an engine.
pub struct Options {
    /// Address of BAR 0 at power-on: a multiple of 1 MiB; 0 for nowhere. The guest can move it.
    pub bar: Gpa,
    /// Value of the Interrupt Line register at power-on: the line that INTA# is wired to.
    pub interrupt_line: u8,
    /// Bytes of its own memory, at most [`BUFFER_SIZE`]: the rest does not exist.
    pub buffer: u32,
    /// What transfers reach.
    pub memory: Box<dyn DmaMemory>,
    /// Where interrupts go.
    pub interrupts: Box<dyn InterruptSink>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("bar", &self.bar)
            .field("interrupt_line", &self.interrupt_line)
            .field("buffer", &self.buffer)
            .finish_non_exhaustive()
    }
}

/// An engine that cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SetupError {
    /// The BAR cannot be at its address.
    #[error("The DMA engine's BAR 0")]
    Bar(#[from] BarError),
    /// Config space has no room.
    #[error("The DMA engine's MSI capability")]
    Capability(#[from] CapabilityError),
}

/// The engine as a PCI function.
///
/// Accesses to config space and the BAR never wait for a transfer. That which takes bus mastering
/// away, and a reset, wait for a burst under way, at most 256 bytes: none follows them. Dropping
/// the function stops its worker.
pub struct Edu {
    shared: Arc<Shared>,
    interrupt_line: u8,
    /// Offset of the MSI capability.
    pub(crate) msi: u16,
}

impl fmt::Debug for Edu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Edu")
            .field("interrupt_line", &self.interrupt_line)
            .finish_non_exhaustive()
    }
}

/// An engine at power-on: the function for the bus, and the worker for a thread.
///
/// # Errors
///
/// If BAR 0 cannot be at [`Options::bar`].
pub fn new(options: Options) -> Result<(Edu, EduWorker), SetupError> {
    let interrupts = Interrupts::new(options.interrupts);
    let mut config = EmulatedConfig::new(&IDENTITY);
    let kind = BarKind::Memory64 {
        prefetchable: false,
    };
    config.add_bar(0, Bar::new(kind, BAR_SIZE, options.bar.0)?)?;
    // `Msi` keeps the registers; here they are only room.
    let body = vec![0; usize::from(interrupts.msi.length()) - 2];
    let msi = config.add_capability(CAP_MSI, &body, &body)?;
    config.write(INTERRUPT, &[options.interrupt_line]);
    let size = options.buffer.min(BUFFER_SIZE);
    let shared = Shared::new(config, interrupts, size);
    let edu = Edu {
        shared: Arc::clone(&shared),
        interrupt_line: options.interrupt_line,
        msi,
    };
    Ok((edu, EduWorker::new(shared, options.memory)))
}

impl Edu {
    /// Offset into the MSI capability of the dword at `offset`.
    fn msi_offset(&self, state: &State, offset: u16) -> Option<u16> {
        let inside = offset.checked_sub(self.msi)?;
        (inside < state.interrupts.msi.length()).then_some(inside)
    }

    /// The bits of the dword at `offset` that are not in `EmulatedConfig`.
    fn overlay(&self, state: &State, offset: u16) -> u32 {
        if let Some(inside) = self.msi_offset(state, offset) {
            let interrupts = &state.interrupts;
            return interrupts.msi.read(inside, || interrupts.pending());
        }
        let waiting = state.interrupts.is_intx_waiting(state.registers.interrupts);
        match offset {
            COMMAND if waiting => upper_half(STATUS_INTERRUPT),
            _ => 0,
        }
    }
}

impl PciFunction for Edu {
    fn config_read(&mut self, offset: u16, data: &mut [u8]) {
        let state = self.shared.state();
        let mut dword = [0; 4];
        state.config.read(offset & !3, &mut dword);
        let value = u32::from_le_bytes(dword) | self.overlay(&state, offset & !3);
        read_part(value, offset, data);
    }

    fn config_write(&mut self, offset: u16, data: &[u8]) {
        let Some(write) = DwordWrite::new(offset, data) else {
            return;
        };
        let mut state = self.shared.state();
        let was_master = state.config.is_bus_master();
        state.config.write(offset, data);
        if let Some(inside) = self.msi_offset(&state, write.offset) {
            state.interrupts.msi.write(DwordWrite {
                offset: inside,
                ..write
            });
        }
        state.settle();
        let is_master = state.config.is_bus_master();
        drop(state);
        if was_master && !is_master {
            drop(self.shared.buffer());
        }
    }

    fn windows(&self) -> Windows {
        self.shared.state().config.windows()
    }

    fn bar_read(&mut self, _: Region, offset: u64, data: &mut [u8]) {
        let value = self.shared.state().registers.read(offset, data.len());
        for (byte, value) in data.iter_mut().zip(value.to_le_bytes()) {
            *byte = value;
        }
    }

    fn bar_write(&mut self, _: Region, offset: u64, data: &[u8]) {
        let mut bytes = [0; 8];
        for (byte, value) in bytes.iter_mut().zip(data) {
            *byte = *value;
        }
        let value = u64::from_le_bytes(bytes);
        if self.shared.state().write(offset, data.len(), value) {
            self.shared.notify();
        }
    }

    fn reset(&mut self) {
        let mut state = self.shared.state();
        state.reset();
        state.config.write(INTERRUPT, &[self.interrupt_line]);
        drop(state);
        self.shared.buffer().fill(0);
    }
}

impl Drop for Edu {
    fn drop(&mut self) {
        self.shared.stop();
    }
}
