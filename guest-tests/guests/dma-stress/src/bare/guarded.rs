// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! NVMe controllers that the monitor guards, to be attacked.

use alloc::string::{String, ToString};

use address::Gpa;
use dma_stress::hostile::nvme::{Attack, Meddler, Slot};
use dma_stress::pci::Function;
use dma_stress::stress::Shared;
use pci_config::regs::BARS;
use pci_types::capability::PciCapability;
use pci_types::{CommandRegister, ConfigRegionAccess, EndpointHeader, PciHeader};

use super::arch::interrupts;
use super::clock;
use super::ecam::Ecam;
use super::mmio::Mmio;
use super::physical::PhysicalMemory;
use super::serial::Console;

/// Registers of the PCI Express capability, from its beginning: Device Capabilities and Device Control (PCIe 5.0, 7.5.3).
const DEVICE_CAPABILITIES: u16 = 4;
const DEVICE_CONTROL: u16 = 8;
/// The function can be reset.
const CAN_RESET: u32 = 1 << 28;
/// Initiate Function Level Reset.
const RESET: u32 = 1 << 15;
/// How long a function may take to be reset (PCIe 5.0, 6.6.2).
const RESET_MS: u64 = 100;
/// The first BAR, and the command register.
const FIRST_BAR: u16 = 0x10;
const COMMAND: u16 = 4;

/// A controller.
pub struct Guarded {
    /// Its address on the bus.
    pub bdf: String,
    registers: Mmio,
    own: Gpa,
    bytes: u64,
    slot: ConfigSlot,
    meddler: Meddler,
}

impl Guarded {
    /// A controller whose registers are these. `None` if it has none.
    pub fn new(
        function: &Function,
        registers: Mmio,
        ecam: Ecam,
        ticks_per_ms: u64,
    ) -> Option<Self> {
        let bar = function.memory_bar(0)?;
        Some(Self {
            bdf: function.to_string(),
            registers,
            own: bar.start,
            bytes: bar.end - bar.start,
            slot: ConfigSlot {
                function: function.clone(),
                ecam,
                express: express(function, ecam),
                ticks_per_ms,
            },
            meddler: Meddler::default(),
        })
    }

    /// One processor attacks it, and the others disturb.
    pub fn attack(
        &self,
        shared: &Shared<'_, PhysicalMemory, Console>,
        id: u64,
        processor: usize,
        running: usize,
    ) {
        if processor > 0 {
            // The timer ends the sleep.
            let seed = shared.options.seed + processor as u64;
            let idle = interrupts::enable_and_hlt;
            self.meddler
                .take_part(shared.memory, &self.registers, seed, idle);
            return;
        }
        let attack = Attack {
            shared,
            id,
            registers: &self.registers,
            own: self.own,
            bytes: self.bytes,
            slot: &self.slot,
            meddler: (running > 1).then_some(&self.meddler),
        };
        attack.run();
    }
}

/// Where its PCI Express capability is, if it has one and can be reset by it.
fn express(function: &Function, ecam: Ecam) -> Option<u16> {
    let header = PciHeader::new(function.address);
    let endpoint = EndpointHeader::from_header(header, ecam)?;
    let mut capabilities = endpoint.capabilities(ecam);
    let offset = capabilities.find_map(|capability| match capability {
        PciCapability::PciExpress(address) => Some(address.offset),
        _ => None,
    })?;
    // SAFETY: reading a capability's register has no effect.
    let can = unsafe { ecam.read(function.address, offset + DEVICE_CAPABILITIES) };
    (can & CAN_RESET != 0).then_some(offset)
}

/// Config space of a controller.
struct ConfigSlot {
    function: Function,
    ecam: Ecam,
    express: Option<u16>,
    ticks_per_ms: u64,
}

impl ConfigSlot {
    fn read(&self, offset: u16) -> u32 {
        // SAFETY: reading the registers named here has no effect.
        unsafe { self.ecam.read(self.function.address, offset) }
    }

    fn write(&self, offset: u16, value: u32) {
        // SAFETY: these are the BARs with their own values, the command register, and the reset that is asked for.
        unsafe { self.ecam.write(self.function.address, offset, value) };
    }
}

impl Slot for ConfigSlot {
    fn set_bus_master(&self, on: bool) {
        PciHeader::new(self.function.address).update_command(self.ecam, |mut command| {
            command.set(CommandRegister::BUS_MASTER_ENABLE, on);
            command
        });
    }

    fn reset(&self) -> bool {
        let Some(express) = self.express else {
            return false;
        };
        let bars = (0..u16::from(BARS)).map(|bar| FIRST_BAR + 4 * bar);
        let saved = bars
            .chain([COMMAND])
            .map(|offset| (offset, self.read(offset)));
        let saved: alloc::vec::Vec<_> = saved.collect();
        let control = self.read(express + DEVICE_CONTROL);
        self.write(express + DEVICE_CONTROL, control & 0xffff | RESET);
        clock::delay(RESET_MS * self.ticks_per_ms);
        for (offset, value) in saved {
            // The upper half of the command register is the status, whose bits are cleared by ones.
            let value = if offset == COMMAND {
                value & 0xffff
            } else {
                value
            };
            self.write(offset, value);
        }
        true
    }
}
