//! The emulated devices, the passed-through functions, and the addresses that they answer.

pub(crate) mod address_map;
pub(crate) mod slots;
pub(crate) mod software;
pub(crate) mod window;

use std::sync::Arc;

use address::Bdf;
use devices::mediate::{self, Counters, MediatedFunction, Profile};
use devices::pci::{PciFunction, PciRoot, Pin};
use devices::vfio_pci::{BusMasterGate, HostFunction, Options, PassthroughFunction};

use self::slots::PciSlot;
use self::software::{ENGINE, ENGINE_SLOT, EngineThread, SoftwareMachine};
use self::window::Places;
use crate::arch::layout;
use crate::bus::address_map::AddressMap;
use crate::error::{Error, process};
use crate::kvm::irq::Interrupts;
use crate::kvm::vm::Vm;
use crate::memory::table::RamTable;
use crate::passthrough::VfioFunction;
use crate::passthrough::dma_path::DmaPath;
use crate::run::exit::{ExitReason, ExitSender};
use crate::teardown::Resources;

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
    /// Puts the function of the device `bdf` at its place, and returns its name in the guest.
    fn add(&mut self, place: PciSlot, bdf: Bdf, passed: Passed) -> Result<Bdf, Error> {
        let PciSlot { slot, function } = place;
        let guest = self.root.add(slot, function, passed.function)?;
        self.gates.extend(passed.gate.map(|gate| (guest, gate)));
        let counters = passed.counters.map(|counters| (bdf, counters));
        self.mediated.extend(counters);
        self.last = self.last.max(slot);
        Ok(guest)
    }
}

/// What a passed-through function is connected to besides its bus.
pub(crate) struct Wiring<'a> {
    pub vm: &'a Arc<Vm>,
    /// Where guest memory is, for those who translate.
    pub table: &'a Arc<RamTable>,
    /// Where the guest is shown that, if it is.
    pub window: Option<Places>,
    pub interrupts: &'a Arc<Interrupts>,
    pub exits: &'a ExitSender,
}

impl Wiring<'_> {
    /// The root with every device of `resources` in its place, which get what belongs to the bus besides.
    pub fn plug(&self, host_map: &AddressMap, resources: &mut Resources) -> Result<PciRoot, Error> {
        let mut slots = Slots {
            root: PciRoot::new(host_map.ecam.start)?,
            last: 0,
            gates: Vec::new(),
            mediated: Vec::new(),
        };
        let mut devices: Vec<_> = resources.assigned.devices.iter().collect();
        // Function 0 of a slot goes in first.
        devices.sort_by_key(|assigned| (assigned.slot.slot, assigned.slot.function));
        for assigned in devices {
            let bdf = assigned.bdf();
            let gsi = intx_gsi(assigned.slot.slot);
            let host = VfioFunction::new(
                assigned,
                Arc::clone(self.vm),
                Arc::clone(self.interrupts),
                gsi,
            )
            .map_err(process("make an eventfd"))?;
            let passed = self.function(host, (bdf, gsi), &assigned.dma)?;
            let guest = slots.add(assigned.slot, bdf, passed)?;
            log::info!("{bdf}: is {guest} in the guest");
        }
        if let Some(machine) = resources.assigned.spaces.software() {
            resources.engine = Some(self.plug_engine(machine, &mut slots)?);
        }
        if let Some(places) = self.window {
            let (function, table) = window::open(self.table, places, self.vm, slots.gates)?;
            resources.memslots.push(table);
            let guest = slots.root.add(slots.last + 1, 0, Box::new(function))?;
            log::info!("the DMA window is {guest} in the guest");
        }
        resources.mediated = slots.mediated;
        Ok(slots.root)
    }

    /// Puts the engine of a machine in software on the bus and lets it work.
    fn plug_engine(
        &self,
        machine: &SoftwareMachine,
        slots: &mut Slots,
    ) -> Result<EngineThread, Error> {
        let gsi = intx_gsi(ENGINE_SLOT);
        let (host, worker) = machine.engine(self.interrupts, gsi)?;
        let passed = self.function(host, (ENGINE, gsi), machine.path())?;
        let place = PciSlot {
            slot: ENGINE_SLOT,
            function: 0,
        };
        let guest = slots.add(place, ENGINE, passed)?;
        log::info!("the DMA engine in software is {guest} in the guest");
        EngineThread::spawn(worker).map_err(process("start the DMA engine"))
    }

    /// Shows `host`, called `bdf` in messages, to the guest, with its DMA by `path`.
    fn function<H: HostFunction + 'static>(
        &self,
        host: H,
        (bdf, gsi): (Bdf, u32),
        path: &DmaPath,
    ) -> Result<Passed, Error> {
        let gate = matches!(path, DmaPath::Translate).then(BusMasterGate::closed);
        let exits = self.exits.clone();
        let options = Options {
            bus_master: gate.clone().unwrap_or_else(BusMasterGate::opened),
            interrupt_line: u8::try_from(gsi).unwrap_or(u8::MAX),
            on_failure: Box::new(move |failure| {
                exits.send(ExitReason::Device(bdf, failure.reason()));
            }),
        };
        let DmaPath::Mediate(profile) = path else {
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
    layout::INTX_GSIS[usize::from(Pin::A.line(slot))]
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
    Profile::shipped_for(vendor, device)?.ok_or(Error::NoProfile {
        bdf,
        vendor,
        device,
    })
}
