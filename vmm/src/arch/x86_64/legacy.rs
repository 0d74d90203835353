// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The devices of every machine, which are not PCI functions, and the addresses of these and of the
//! bus.

use std::sync::Arc;

use devices::i8042::{self, I8042};
use devices::pci::{CONFIG_PORT, CONFIG_PORTS, PciRoot};
use devices::power::{self, Power};
use devices::serial;
use vm_device::DevicePio;
use vm_device::bus::{BusRange, MmioAddress, PioAddress};
use vm_device::device_manager::{IoManager, MmioManager, PioManager};
use vmm_sys_util::eventfd::EventFd;

use super::layout::{BAR_PORTS, POWER_PORT};
use crate::bus::BusError;
use crate::bus::address_map::AddressMap;
use crate::error::explain::{ProcessError, process};
use crate::kvm::eventfd;
use crate::kvm::irq::Interrupts;
use crate::run::console::GuestSerial;
use crate::run::exit::{ExitReason, ExitSender};

/// An eventfd that raises the serial port's interrupt.
pub fn serial_interrupt(interrupts: &Interrupts) -> Result<EventFd, BusError> {
    let event = eventfd::new().map_err(process("create an eventfd"))?;
    interrupts.attach(&event, serial::IRQ)?;
    Ok(event)
}

/// Connects the emulated devices, and the functions of the bus if there is one, to the addresses that they answer.
///
/// Without a bus there is still config space of a host bridge, by ports: Linux writes an error to its console where it
/// finds no config mechanism (arch/x86/pci/direct.c `pci_direct_probe`, arch/x86/pci/init.c).
pub fn connect(
    pci: Option<(&Arc<PciRoot>, &AddressMap)>,
    serial: &Arc<GuestSerial>,
    exits: &ExitSender,
    _: &Arc<Interrupts>,
) -> Result<IoManager, ProcessError> {
    let mut bus = IoManager::new();
    let keyboard = Arc::new(I8042::new(ResetLine(exits.clone())));
    let mut ports: Vec<(u16, u16, Arc<dyn DevicePio + Send + Sync>)> = vec![
        (serial::BASE_PORT, serial::PORTS, Arc::clone(serial) as _),
        (POWER_PORT, power::PORTS, power_registers(exits.clone())),
        (i8042::BASE_PORT, i8042::PORTS, keyboard),
    ];
    if let Some((root, map)) = pci {
        for range in map.windows.iter().chain([&map.ecam]) {
            let range = BusRange::new(MmioAddress(range.start.0), range.end - range.start);
            bus.register_mmio(
                range.map_err(|error| failed(&error))?,
                Arc::clone(root) as _,
            )
            .map_err(|error| failed(&error))?;
        }
        let bar_ports = BAR_PORTS.end - BAR_PORTS.start;
        ports.push((BAR_PORTS.start, bar_ports, Arc::clone(root) as _));
    }
    let config = match pci {
        Some((root, _)) => Arc::clone(root),
        None => Arc::new(PciRoot::of_ports().map_err(|error| failed(&error))?),
    };
    ports.push((CONFIG_PORT, CONFIG_PORTS, config));
    for (start, count, device) in ports {
        let range = BusRange::new(PioAddress(start), count).map_err(|error| failed(&error))?;
        bus.register_pio(range, device)
            .map_err(|error| failed(&error))?;
    }
    Ok(bus)
}

fn failed(error: &dyn ToString) -> ProcessError {
    ProcessError {
        operation: "connect an emulated device",
        source: error.to_string().into(),
    }
}

fn power_registers(exits: ExitSender) -> Arc<dyn DevicePio + Send + Sync> {
    Arc::new(Power::new(move |event| {
        exits.send(ExitReason::from(event));
    }))
}

/// The keyboard controller's reset line.
#[derive(Debug)]
struct ResetLine(ExitSender);

impl vm_superio::Trigger for ResetLine {
    type E = std::convert::Infallible;

    fn trigger(&self) -> Result<(), Self::E> {
        self.0.send(ExitReason::Reset);
        Ok(())
    }
}
