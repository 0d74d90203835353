// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! MSI.

use pci_config::regs::CAP_MSI;
use pci_config::{InterruptKind, find_capability};

use crate::pci::access::DwordWrite;
use crate::pci::{Msi, MsiMessage};

use super::super::report::Reporter;
use super::capability::{Device, Found, MessageCapability, Written};

/// MSI with at most the vectors that the host grants.
#[derive(Debug)]
struct MsiCapability {
    registers: Msi,
    granted: u16,
}

pub(super) fn find(device: Device<'_>, _: &mut Reporter) -> Found {
    let Ok(at) = find_capability(device.config, CAP_MSI);
    let header = device.config.get(usize::from(at? / 4))?;
    let granted = device.info.interrupts[InterruptKind::Msi].count;
    let registers = registers(*header, granted);
    Some(Box::new(MsiCapability { registers, granted }))
}

fn registers(header: u32, granted: u16) -> Msi {
    let [_, _, low, high] = header.to_le_bytes();
    Msi::new(u16::from_le_bytes([low, high]), granted)
}

impl MessageCapability for MsiCapability {
    fn kind(&self) -> InterruptKind {
        InterruptKind::Msi
    }

    fn is_offered(&self) -> bool {
        self.granted != 0
    }

    fn shown(&mut self, header: u32) {
        self.registers = registers(header, self.granted);
    }

    fn is_enabled(&self) -> bool {
        self.registers.is_enabled()
    }

    fn vectors(&self) -> u16 {
        self.registers.vectors()
    }

    fn message(&self, vector: u16) -> Option<MsiMessage> {
        self.registers.message(vector)
    }

    fn length(&self) -> u16 {
        self.registers.length()
    }

    fn read(&self, register: u16, pending: &mut dyn FnMut(u16) -> bool) -> u32 {
        self.registers.read(register, || {
            let vectors = (0..32).filter(|vector| pending(*vector));
            vectors.fold(0, |bits, vector| bits | 1 << vector)
        })
    }

    fn write(&mut self, write: DwordWrite) -> Written {
        self.registers.write(write);
        Written::Changed
    }

    fn reset(&mut self) {
        self.registers.reset();
    }
}
