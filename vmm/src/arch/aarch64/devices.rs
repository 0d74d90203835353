// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The devices of every machine, which are no PCI functions, and the addresses that they and the bus answer.

use std::ops::Range;
use std::sync::Arc;

use address::Gpa;
use devices::pci::PciRoot;
use devices::power::Power;
use devices::rtc::Rtc;
use vm_device::bus::{BusRange, MmioAddress, MmioAddressOffset, PioAddress};
use vm_device::device_manager::{IoManager, MmioManager};
use vm_device::{DeviceMmio, DevicePio};
use vmm_sys_util::eventfd::EventFd;

use super::layout::{BAR_PORTS, MESSAGE_FRAME, PORTS, POWER, RTC, UART, UART_GSI};
use super::v2m::MessageFrame;
use crate::bus::BusError;
use crate::bus::address_map::AddressMap;
use crate::error::explain::{ProcessError, process};
use crate::kvm::eventfd;
use crate::kvm::irq::Interrupts;
use crate::run::console::GuestSerial;
use crate::run::exit::{ExitReason, ExitSender};

/// An eventfd that raises the serial port's interrupt.
pub fn serial_interrupt(interrupts: &Interrupts) -> Result<EventFd, BusError> {
    let event = eventfd::new().map_err(process("make an eventfd"))?;
    interrupts.attach(&event, UART_GSI)?;
    Ok(event)
}

/// Connects the emulated devices, and the functions of the bus if there is one, to the addresses that they answer.
/// Power-off and reset are PSCI's, which KVM serves; a power-off with a status is that of a device.
pub fn connect(
    pci: Option<(&Arc<PciRoot>, &AddressMap)>,
    serial: &Arc<GuestSerial>,
    exits: &ExitSender,
    interrupts: &Arc<Interrupts>,
) -> Result<IoManager, ProcessError> {
    let mut bus = IoManager::new();
    let mut register = |range: Range<Gpa>, device: Arc<dyn DeviceMmio + Send + Sync>| {
        BusRange::new(MmioAddress(range.start.0), range.end - range.start)
            .and_then(|range| bus.register_mmio(range, device))
            .map_err(|error| ProcessError {
                operation: "connect an emulated device",
                source: error.to_string().into(),
            })
    };
    if let Some((root, map)) = pci {
        for range in map.windows.iter().chain([&map.ecam]) {
            register(range.clone(), Arc::clone(root) as _)?;
        }
        let port = |number: u16| PORTS.start + u64::from(number);
        let ports = port(BAR_PORTS.start)..port(BAR_PORTS.end);
        register(ports, Arc::new(Ports(Arc::clone(root))))?;
    }
    register(UART, Arc::clone(serial) as _)?;
    register(RTC, Arc::new(Rtc::new()))?;
    let exits = exits.clone();
    let power = Power::new(move |event| exits.send(ExitReason::from(event)));
    register(POWER, Arc::new(power))?;
    let interrupts = Arc::clone(interrupts);
    let frame = MessageFrame::new(move |pin| {
        if let Err(error) = interrupts.pulse(pin) {
            log::error!("An interrupt is lost: {error}");
        }
    });
    // Without a GICv2 nothing names it.
    register(MESSAGE_FRAME, Arc::new(frame))?;
    Ok(bus)
}

/// The bus's I/O ports that BARs may have, as memory.
struct Ports(Arc<PciRoot>);

/// The port `offset` bytes from the first one.
fn port(offset: MmioAddressOffset) -> Option<u16> {
    BAR_PORTS.start.checked_add(u16::try_from(offset).ok()?)
}

impl DeviceMmio for Ports {
    fn mmio_read(&self, _: MmioAddress, offset: MmioAddressOffset, data: &mut [u8]) {
        match port(offset) {
            Some(port) => self.0.pio_read(PioAddress(port), 0, data),
            None => data.fill(0xff),
        }
    }

    fn mmio_write(&self, _: MmioAddress, offset: MmioAddressOffset, data: &[u8]) {
        if let Some(port) = port(offset) {
            self.0.pio_write(PioAddress(port), 0, data);
        }
    }
}
