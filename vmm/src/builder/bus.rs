//! The emulated devices, the passed-through functions, and the addresses that they answer.

use std::ops::Range;
use std::sync::Arc;

use devices::i8042::{self, I8042};
use devices::pci::{self, PciRoot, Pin};
use devices::power::{self, Power, PowerEvent};
use devices::serial;
use devices::vfio_pci::{BusMasterGate, HostInfo, Options, PassthroughFunction};
use iommufd_backend::VfioDevice;
use vm_device::DevicePio;
use vm_device::bus::{BusRange, MmioAddress, PioAddress};
use vm_device::device_manager::{IoManager, MmioManager, PioManager};
use vmm_sys_util::eventfd::EventFd;

use super::devices::Devices;
use crate::console::GuestSerial;
use crate::error::{Error, process};
use crate::eventfd;
use crate::exit::{ExitReason, ExitSender};
use crate::host_map::HostMap;
use crate::kvm::irq::Interrupts;
use crate::kvm::vm::Vm;
use crate::passthrough::VfioFunction;
use crate::software::{EngineThread, SoftwareMachine};
use crate::topology::Place;

/// Ports of the power device.
pub(super) const POWER_PORT: u16 = 0x600;
/// I/O ports that BARs may have.
pub(super) const BAR_PORTS: Range<u16> = 0x1000..0xfff0;
/// GSIs of the four INTx lines: pins of the I/O APIC above those of ISA interrupts.
pub(super) const INTX_GSIS: [u32; 4] = [16, 17, 18, 19];

/// Slot of the engine in a machine in software.
const ENGINE_SLOT: u8 = 1;

/// What a passed-through function is connected to besides its bus.
pub(super) struct Wiring<'a> {
    pub vm: &'a Arc<Vm>,
    pub interrupts: &'a Arc<Interrupts>,
    pub exits: &'a ExitSender,
}

impl Wiring<'_> {
    /// The root with every device in its place.
    pub fn plug(
        &self,
        host_map: &HostMap,
        devices: &mut Devices,
    ) -> Result<(PciRoot, Option<EngineThread>), Error> {
        let mut root = PciRoot::new(host_map.ecam.start)?;
        let mut plugs: Vec<_> = devices
            .bound
            .iter()
            .map(|bound| &bound.device)
            .zip(devices.infos.drain(..))
            .zip(&devices.places)
            .collect();
        // Function 0 of a slot goes in first.
        plugs.sort_by_key(|(_, place)| (place.slot, place.function));
        for ((device, info), place) in plugs {
            let function = self.function(device, info, *place)?;
            let guest = root.add(place.slot, place.function, Box::new(function))?;
            log::info!("{}: is {guest} in the guest", device.bdf());
        }
        let machine = devices.software.as_ref();
        let engine = machine.map(|machine| self.plug_engine(machine, &mut root));
        Ok((root, engine.transpose()?))
    }

    /// Puts the engine of a machine in software on the bus and lets it work.
    fn plug_engine(
        &self,
        machine: &SoftwareMachine,
        root: &mut PciRoot,
    ) -> Result<EngineThread, Error> {
        let gsi = INTX_GSIS[usize::from(Pin::A.line(ENGINE_SLOT))];
        let (function, worker) = machine.engine(self.interrupts, gsi)?;
        let guest = root.add(ENGINE_SLOT, 0, Box::new(function))?;
        log::info!("the DMA engine in software is {guest} in the guest");
        EngineThread::spawn(worker).map_err(process("start the DMA engine"))
    }

    fn function(
        &self,
        device: &Arc<VfioDevice>,
        info: HostInfo,
        place: Place,
    ) -> Result<PassthroughFunction<VfioFunction>, Error> {
        // Every passed-through function shows INTA#.
        let gsi = INTX_GSIS[usize::from(Pin::A.line(place.slot))];
        let host = VfioFunction::new(
            Arc::clone(device),
            info,
            Arc::clone(self.vm),
            Arc::clone(self.interrupts),
            gsi,
        );
        let bdf = device.bdf();
        let exits = self.exits.clone();
        let options = Options {
            bus_master: BusMasterGate::opened(),
            interrupt_line: u8::try_from(gsi).unwrap_or(u8::MAX),
            on_failure: Box::new(move |failure| {
                exits.send(ExitReason::Device(bdf, failure.to_string()));
            }),
        };
        Ok(PassthroughFunction::new(host, options)?)
    }
}

/// An eventfd that raises the serial port's interrupt.
pub(super) fn serial_interrupt(interrupts: &Interrupts) -> Result<EventFd, Error> {
    let event = eventfd::new().map_err(process("make an eventfd"))?;
    interrupts.attach(&event, serial::IRQ)?;
    Ok(event)
}

/// Connects the emulated devices to the addresses that they answer.
pub(super) fn connect(
    pci: &Arc<PciRoot>,
    host_map: &HostMap,
    serial: &Arc<GuestSerial>,
    exits: &ExitSender,
) -> Result<IoManager, Error> {
    let mut bus = IoManager::new();
    let failed = |error: vm_device::bus::Error| Error::Process {
        operation: "connect an emulated device",
        source: error.to_string().into(),
    };
    for range in host_map.windows.iter().chain([&host_map.ecam]) {
        let range =
            BusRange::new(MmioAddress(range.start.0), range.end - range.start).map_err(failed)?;
        bus.register_mmio(range, Arc::clone(pci) as _)
            .map_err(failed)?;
    }
    let bar_ports = BAR_PORTS.end - BAR_PORTS.start;
    let keyboard = Arc::new(I8042::new(ResetLine(exits.clone())));
    let ports: [(u16, u16, Arc<dyn DevicePio + Send + Sync>); 5] = [
        (pci::CONFIG_PORT, pci::CONFIG_PORTS, Arc::clone(pci) as _),
        (BAR_PORTS.start, bar_ports, Arc::clone(pci) as _),
        (serial::BASE_PORT, serial::PORTS, Arc::clone(serial) as _),
        (POWER_PORT, power::PORTS, power_registers(exits.clone())),
        (i8042::BASE_PORT, i8042::PORTS, keyboard),
    ];
    for (start, count, device) in ports {
        let range = BusRange::new(PioAddress(start), count).map_err(failed)?;
        bus.register_pio(range, device).map_err(failed)?;
    }
    Ok(bus)
}

fn power_registers(exits: ExitSender) -> Arc<dyn DevicePio + Send + Sync> {
    Arc::new(Power::new(move |event| {
        exits.send(match event {
            PowerEvent::PowerOff { status } => ExitReason::PowerOff { status },
            PowerEvent::Reset => ExitReason::Reset,
        });
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
