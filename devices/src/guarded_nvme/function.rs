// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The controller as a PCI function.

use std::sync::Arc;

use address::Gpa;
use pci_config::regs::{CAP_MSIX, MSIX_CONTROL, MSIX_ENABLE, MSIX_FUNCTION_MASK};
use thiserror::Error;

use crate::pci::{
    Bar, BarError, BarKind, CapabilityError, EmulatedConfig, Identity, PciFunction, Region, Window,
    Windows,
};

use super::shared::Shared;

/// NVM Express, I/O controller (NVMe over PCIe Transport Specification 1.1, section 3.1.1.5).
const CLASS: u32 = 0x01_08_02;
const BAR: u8 = 0;

/// What the monitor decides for a controller.
#[derive(Debug)]
pub struct Options {
    /// The device's vendor, device and subsystem IDs and its revision. Class and interrupt pin are not looked at.
    pub identity: Identity,
    /// Address of BAR0 at power-on, a multiple of its size. The guest can move it.
    pub bar: Gpa,
    /// The rest of the controller.
    pub shared: Arc<Shared>,
}

/// A function that cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SetupError {
    /// The BAR cannot stand where it should.
    #[error("its BAR0 in the guest")]
    Bar(#[from] BarError),
    /// Config space has no room.
    #[error("its MSI-X capability in the guest")]
    Capability(#[from] CapabilityError),
}

/// A guarded NVMe controller.
#[derive(Debug)]
pub struct GuardedNvme {
    config: EmulatedConfig,
    /// Offset of the MSI-X capability.
    msix: u16,
    /// Address of BAR0 at power-on.
    home: Gpa,
    /// Whether it answers there.
    is_home: bool,
    shared: Arc<Shared>,
}

impl GuardedNvme {
    /// A controller at power-on.
    ///
    /// # Errors
    ///
    /// [`SetupError`]
    pub fn new(options: Options) -> Result<Self, SetupError> {
        let Options {
            identity,
            bar,
            shared,
        } = options;
        let mut config = EmulatedConfig::new(&Identity {
            class: CLASS,
            pin: None,
            ..identity
        });
        let layout = *shared.layout();
        let kind = BarKind::Memory64 {
            prefetchable: false,
        };
        config.add_bar(BAR, Bar::new(kind, layout.size(), bar.0)?)?;
        let msix = config.add_capability(CAP_MSIX, &capability(&layout), &WRITABLE)?;
        Ok(Self {
            config,
            msix,
            home: bar,
            is_home: false,
            shared,
        })
    }
}

impl GuardedNvme {
    /// Doorbells that are memory are where BAR0 answers, if it does so where the monitor has kept room for it; elsewhere
    /// all of it is trapped.
    fn follow(&mut self) {
        let is_home = |window: &Window| window.base == self.home.0;
        let is_home = self.config.windows().iter().any(is_home);
        if is_home != self.is_home {
            self.is_home = is_home;
            self.shared.follow(is_home);
        }
    }
}

/// Of the capability the guest writes the two bits that turn MSI-X on and mask it.
const WRITABLE: [u8; 10] = {
    let [low, high] = (MSIX_ENABLE | MSIX_FUNCTION_MASK).to_le_bytes();
    [low, high, 0, 0, 0, 0, 0, 0, 0, 0]
};

/// The capability after its header: Message Control, table and pending bits (PCI 3.0, section 6.8.2).
fn capability(layout: &guarded_nvme::registers::Layout) -> [u8; 10] {
    let mut body = [0; 10];
    let control = layout.vectors().saturating_sub(1);
    // BAR0 is 0 in the lower three bits.
    let place = |start: u64| u32::try_from(start).unwrap_or(0).to_le_bytes();
    body[..2].copy_from_slice(&control.to_le_bytes());
    body[2..6].copy_from_slice(&place(layout.msix_table().start));
    body[6..].copy_from_slice(&place(layout.pending_bits().start));
    body
}

impl PciFunction for GuardedNvme {
    fn config_read(&mut self, offset: u16, data: &mut [u8]) {
        self.config.read(offset, data);
    }

    fn config_write(&mut self, offset: u16, data: &[u8]) {
        self.config.write(offset, data);
        self.follow();
        if offset & !3 == self.msix {
            let mut control = [0; 2];
            self.config.read(self.msix + MSIX_CONTROL, &mut control);
            self.shared.set_message_control(u16::from_le_bytes(control));
        }
    }

    fn windows(&self) -> Windows {
        self.config.windows()
    }

    fn bar_read(&mut self, _: Region, offset: u64, data: &mut [u8]) {
        self.shared.read(offset, data);
    }

    fn bar_write(&mut self, _: Region, offset: u64, data: &[u8]) {
        self.shared.write(offset, data);
    }

    fn reset(&mut self) {
        self.config.reset();
        self.follow();
        self.shared.reset();
    }
}
