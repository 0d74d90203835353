// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Functions on the PCI bus. There is one bus, BARs are assigned, and are never moved: they are
//! where the host's do.

use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use address::Gpa;
use pci_config::regs::{BARS, VENDOR_NONE};
use pci_types::capability::{MsiCapability, MsixCapability, PciCapability};
use pci_types::{
    Bar, CommandRegister, ConfigRegionAccess, EndpointHeader, HeaderType, PciAddress, PciHeader,
};

const SLOTS: u8 = 32;
const FUNCTIONS: u8 = 8;

/// A function.
#[derive(Clone, Debug)]
pub struct Function {
    /// Its address.
    pub address: PciAddress,
    /// Vendor and device.
    pub id: (u16, u16),
    /// Class, subclass and programming interface.
    pub class: (u8, u8, u8),
    /// Its BARs; the second half of a 64-bit one is `None`.
    pub bars: [Option<Bar>; BARS as usize],
    /// Message-signalled interrupts.
    pub msi: Option<MsiCapability>,
    /// The same with a table.
    pub msix: Option<MsixCapability>,
    /// Its interrupt pin, from 1; 0 if it has none.
    pub pin: u8,
    /// What firmware noted about the line of that pin.
    pub line: u8,
    /// The interrupt that its pin raises: to be filled in by what knows the machine.
    pub gsi: Option<u8>,
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = &self.address;
        write!(
            f,
            "{:02x}:{:02x}.{}",
            address.bus(),
            address.device(),
            address.function()
        )
    }
}

/// Every function of bus 0 that is not a bridge.
pub fn scan(access: &impl ConfigRegionAccess) -> Vec<Function> {
    let mut found = Vec::new();
    for slot in 0..SLOTS {
        for function in 0..FUNCTIONS {
            let header = PciHeader::new(PciAddress::new(0, 0, slot, function));
            if header.id(access).0 == VENDOR_NONE {
                if function == 0 {
                    break;
                }
                continue;
            }
            let alone = function == 0 && !header.has_multiple_functions(access);
            if header.header_type(access) == HeaderType::Endpoint {
                found.extend(Function::read(header, access));
            }
            if alone {
                break;
            }
        }
    }
    found
}

impl Function {
    fn read(header: PciHeader, access: &impl ConfigRegionAccess) -> Option<Self> {
        let (address, id) = (header.address(), header.id(access));
        let (_, class, subclass, interface) = header.revision_and_class(access);
        let endpoint = EndpointHeader::from_header(header, access)?;
        let mut bars = [None; BARS as usize];
        let mut slot = 0;
        while slot < BARS {
            let bar = endpoint.bar(slot, access);
            bars[usize::from(slot)] = bar;
            slot += if matches!(bar, Some(Bar::Memory64 { .. })) {
                2
            } else {
                1
            };
        }
        let (mut msi, mut msix) = (None, None);
        for capability in endpoint.capabilities(access) {
            match capability {
                PciCapability::Msi(found) => msi = Some(found),
                PciCapability::MsiX(found) => msix = Some(found),
                _ => (),
            }
        }
        let (pin, line) = endpoint.interrupt(access);
        Some(Self {
            address,
            id,
            class: (class, subclass, interface),
            bars,
            msi,
            msix,
            pin,
            line,
            gsi: None,
        })
    }

    /// Lets it decode its BARs.
    pub fn decode(&self, access: &impl ConfigRegionAccess) {
        PciHeader::new(self.address).update_command(access, |command| {
            command | CommandRegister::MEMORY_ENABLE | CommandRegister::IO_ENABLE
        });
    }

    /// Lets it decode its BARs and be a bus master.
    pub fn enable(&self, access: &impl ConfigRegionAccess) {
        PciHeader::new(self.address).update_command(access, |command| {
            command
                | CommandRegister::MEMORY_ENABLE
                | CommandRegister::IO_ENABLE
                | CommandRegister::BUS_MASTER_ENABLE
        });
    }

    /// Lets it pull its interrupt line, or not.
    pub fn enable_line(&self, enabled: bool, access: &impl ConfigRegionAccess) {
        PciHeader::new(self.address).update_command(access, |mut command| {
            command.set(CommandRegister::INTERRUPT_DISABLE, !enabled);
            command
        });
    }

    /// The addresses of a memory BAR.
    #[must_use]
    pub fn memory_bar(&self, bar: usize) -> Option<Range<Gpa>> {
        match (*self.bars.get(bar)?)? {
            Bar::Memory32 { address, size, .. } => Gpa(address.into()).span(size.into()),
            Bar::Memory64 { address, size, .. } => {
                // pci_types 0.10 extends the sign of a size of 2 GiB.
                let size = size & size.wrapping_neg();
                Gpa(address).span(size)
            }
            Bar::Io { .. } => None,
        }
    }

    /// The first port of an I/O BAR.
    #[must_use]
    pub fn port_bar(&self, bar: usize) -> Option<u16> {
        match (*self.bars.get(bar)?)? {
            Bar::Io { port } => u16::try_from(port).ok(),
            _ => None,
        }
    }

    /// All of its memory BARs.
    pub fn memory_bars(&self) -> impl Iterator<Item = Range<Gpa>> {
        (0..self.bars.len()).filter_map(|bar| self.memory_bar(bar))
    }
}
