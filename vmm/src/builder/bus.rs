//! The emulated devices, the passed-through functions, and the addresses that they answer.

use std::ops::Range;
use std::sync::Arc;

use address::Bdf;
use devices::i8042::{self, I8042};
use devices::mediate::{self, Counters, MediatedFunction, Profile};
use devices::pci::{self, PciFunction, PciRoot, Pin};
use devices::power::{self, Power, PowerEvent};
use devices::serial;
use devices::vfio_pci::{BusMasterGate, HostFunction, Options, PassthroughFunction};
use vm_device::DevicePio;
use vm_device::bus::{BusRange, MmioAddress, PioAddress};
use vm_device::device_manager::{IoManager, MmioManager, PioManager};
use vmm_sys_util::eventfd::EventFd;

use super::devices::{Devices, Reach};
use crate::console::GuestSerial;
use crate::error::{Error, process};
use crate::eventfd;
use crate::exit::{ExitReason, ExitSender};
use crate::host_map::HostMap;
use crate::kvm::irq::Interrupts;
use crate::kvm::vm::{Memslot, Vm};
use crate::memory::table::RamTable;
use crate::passthrough::VfioFunction;
use crate::software::{ENGINE, ENGINE_SLOT, EngineThread, SoftwareMachine};
use crate::window::{self, Places};

/// Ports of the power device.
pub(super) const POWER_PORT: u16 = 0x600;
/// I/O ports that BARs may have.
pub(super) const BAR_PORTS: Range<u16> = 0x1000..0xfff0;
/// GSIs of the four INTx lines: pins of the I/O APIC above those of ISA interrupts.
pub(super) const INTX_GSIS: [u32; 4] = [16, 17, 18, 19];

/// The guest's bus and what belongs to it.
pub(super) struct Plugged {
    pub root: PciRoot,
    pub engine: Option<EngineThread>,
    /// The DMA window's table in the guest.
    pub window: Option<Memslot>,
    /// What mediated functions count.
    pub mediated: Vec<(Bdf, Counters)>,
}

/// A function for the guest's bus, and what else there is of it.
struct Passed {
    function: Box<dyn PciFunction>,
    /// Closed, where the guest's driver has to say that it translates.
    gate: Option<BusMasterGate>,
    /// Where the monitor translates.
    counters: Option<Counters>,
}

/// The bus while functions are put on it.
struct Slots {
    root: PciRoot,
    /// The last slot in use.
    last: u8,
    /// Of the functions whose guest translates.
    gates: Vec<(Bdf, BusMasterGate)>,
    mediated: Vec<(Bdf, Counters)>,
}

impl Slots {
    /// Puts the function of the device `bdf` at a slot and function number, and says what it is
    /// called in the guest.
    fn add(&mut self, (slot, function): (u8, u8), bdf: Bdf, passed: Passed) -> Result<Bdf, Error> {
        let guest = self.root.add(slot, function, passed.function)?;
        self.gates.extend(passed.gate.map(|gate| (guest, gate)));
        let counters = passed.counters.map(|counters| (bdf, counters));
        self.mediated.extend(counters);
        self.last = self.last.max(slot);
        Ok(guest)
    }
}

/// What a passed-through function is connected to besides its bus.
pub(super) struct Wiring<'a> {
    pub vm: &'a Arc<Vm>,
    /// Where guest memory is, for those who translate.
    pub table: &'a Arc<RamTable>,
    /// Where the guest is shown that, if it is.
    pub window: Option<Places>,
    pub interrupts: &'a Arc<Interrupts>,
    pub exits: &'a ExitSender,
}

impl Wiring<'_> {
    /// The root with every device in its place.
    pub fn plug(&self, host_map: &HostMap, devices: &mut Devices) -> Result<Plugged, Error> {
        let mut slots = Slots {
            root: PciRoot::new(host_map.ecam.start)?,
            last: 0,
            gates: Vec::new(),
            mediated: Vec::new(),
        };
        let mut plugs: Vec<_> = devices
            .held
            .devices
            .iter()
            .map(|bound| &bound.device)
            .zip(devices.infos.drain(..))
            .zip(&devices.places)
            .zip(&devices.reaches)
            .collect();
        // Function 0 of a slot goes in first.
        plugs.sort_by_key(|((_, place), _)| (place.slot, place.function));
        for (((device, info), place), reach) in plugs {
            let bdf = device.bdf();
            let gsi = intx_gsi(place.slot);
            let host = VfioFunction::new(
                Arc::clone(device),
                info,
                Arc::clone(self.vm),
                Arc::clone(self.interrupts),
                gsi,
            )
            .map_err(process("make an eventfd"))?;
            let passed = self.function(host, (bdf, gsi), reach)?;
            let guest = slots.add((place.slot, place.function), bdf, passed)?;
            log::info!("{bdf}: is {guest} in the guest");
        }
        let engine = match (&devices.software, devices.reaches.first()) {
            (Some(machine), Some(reach)) => Some(self.plug_engine(machine, reach, &mut slots)?),
            _ => None,
        };
        let mut window = None;
        if let Some(places) = self.window {
            let (function, table) = window::open(self.table, places, self.vm, slots.gates)?;
            let guest = slots.root.add(slots.last + 1, 0, Box::new(function))?;
            log::info!("the DMA window is {guest} in the guest");
            window = Some(table);
        }
        Ok(Plugged {
            root: slots.root,
            engine,
            window,
            mediated: slots.mediated,
        })
    }

    /// Puts the engine of a machine in software on the bus and lets it work.
    fn plug_engine(
        &self,
        machine: &SoftwareMachine,
        reach: &Reach,
        slots: &mut Slots,
    ) -> Result<EngineThread, Error> {
        let gsi = intx_gsi(ENGINE_SLOT);
        let (host, worker) = machine.engine(self.interrupts, gsi)?;
        let passed = self.function(host, (ENGINE, gsi), reach)?;
        let guest = slots.add((ENGINE_SLOT, 0), ENGINE, passed)?;
        log::info!("the DMA engine in software is {guest} in the guest");
        EngineThread::spawn(worker).map_err(process("start the DMA engine"))
    }

    /// Shows `host`, called `bdf` in messages, to the guest, with its DMA by `reach`.
    fn function<H: HostFunction + 'static>(
        &self,
        host: H,
        (bdf, gsi): (Bdf, u32),
        reach: &Reach,
    ) -> Result<Passed, Error> {
        let gate = matches!(reach, Reach::Translate).then(BusMasterGate::closed);
        let exits = self.exits.clone();
        let options = Options {
            bus_master: gate.clone().unwrap_or_else(BusMasterGate::opened),
            interrupt_line: u8::try_from(gsi).unwrap_or(u8::MAX),
            on_failure: Box::new(move |failure| {
                exits.send(ExitReason::Device(bdf, failure.reason()));
            }),
        };
        let Reach::Mediate(profile) = reach else {
            return Ok(Passed {
                function: Box::new(PassthroughFunction::new(host, options)?),
                gate,
                counters: None,
            });
        };
        let host = self.mediated(host, bdf, profile.as_ref())?;
        let counters = Some(host.counters());
        Ok(Passed {
            function: Box::new(PassthroughFunction::new(host, options)?),
            gate,
            counters,
        })
    }

    /// Puts the monitor between `host` and its guest, by `profile` or a shipped one.
    fn mediated<H: HostFunction>(
        &self,
        mut host: H,
        bdf: Bdf,
        profile: Option<&Profile>,
    ) -> Result<MediatedFunction<H>, Error> {
        let profile = match profile {
            Some(profile) => profile.clone(),
            None => shipped(&mut host, bdf)?,
        };
        let table = Arc::clone(self.table);
        let exits = self.exits.clone();
        let options = mediate::Options {
            translate: Box::new(move |gpa, length| table.translate(gpa, length)),
            on_stop: Box::new(move |failure| {
                exits.send(ExitReason::Device(bdf, failure.reason()));
            }),
        };
        Ok(MediatedFunction::new(host, profile, options)?)
    }
}

/// The line of INTA#, which every passed-through function shows.
fn intx_gsi(slot: u8) -> u32 {
    INTX_GSIS[usize::from(Pin::A.line(slot))]
}

/// The shipped profile for a device.
fn shipped<H: HostFunction>(host: &mut H, bdf: Bdf) -> Result<Profile, Error> {
    let mut identity = [0; 4];
    host.config_read(0, &mut identity)
        .map_err(|error| Error::Process {
            operation: "read the identity of a device",
            source: error.into(),
        })?;
    let [vendor, device] =
        [[identity[0], identity[1]], [identity[2], identity[3]]].map(u16::from_le_bytes);
    for (name, text) in mediate::SHIPPED {
        let profile = Profile::parse(name, text)?;
        if profile.is_for(vendor, device) {
            return Ok(profile);
        }
    }
    Err(Error::NoProfile {
        bdf,
        vendor,
        device,
    })
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
