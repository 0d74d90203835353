// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The emulated devices, the passed-through functions, and their addresses.

pub(crate) mod address_map;
pub(crate) mod allocator;
pub(crate) mod emulated;
pub(crate) mod engine;
mod error;
pub(crate) mod lines;
pub(crate) mod slots;
pub(crate) mod synthetic;
pub(crate) mod window;
pub(crate) mod worker;

use std::sync::Arc;

use address::Bdf;
use devices::mediate::{self, Counters, MediatedFunction, Profile};
use devices::pci::{BusWindows, PciFunction, PciRoot};
use devices::vfio_pci::{BusMasterGate, HostFunction, Options, PassthroughFunction};

use self::allocator::BusAllocator;
use self::emulated::{EmulatedFunction, Place};
use self::lines::{InterruptLines, intx_gsi};
use self::slots::{PciSlot, TooManyDevices};
use crate::confine::Confinement;
use crate::error::explain::process;
use crate::kvm::irq::Interrupts;
use crate::kvm::vm::Vm;
use crate::memory::table::RamTable;
use crate::passthrough::VfioFunction;
use crate::passthrough::assigned::AssignedDevice;
use crate::passthrough::dma_path::DmaPath;
use crate::passthrough::guarded::{self, GuardedController, Surroundings};
use crate::run::exit::{ExitReason, ExitSender};
use crate::teardown::Resources;

pub use error::BusError;

/// A function for the guest's bus, and what else there is of it.
pub(crate) struct Passed {
    function: Box<dyn PciFunction>,
    /// The device that it is, and the gate of its bus mastering: closed, if the guest's driver has
    /// to confirm that it translates.
    gate: Option<BusMasterGate>,
    /// What the monitor counts where it translates for it.
    counters: Option<(Bdf, Counters)>,
}

impl From<Box<dyn PciFunction>> for Passed {
    fn from(function: Box<dyn PciFunction>) -> Self {
        Self {
            function,
            gate: None,
            counters: None,
        }
    }
}

/// The bus while functions are put on it.
struct Slots {
    root: PciRoot,
    /// Of the functions whose guest translates.
    gates: Vec<(Bdf, BusMasterGate)>,
    mediated: Vec<(Bdf, Counters)>,
    guarded: Vec<GuardedController>,
}

impl Slots {
    /// Puts a function at its place, and returns its name in the guest.
    fn add(&mut self, place: PciSlot, passed: Passed) -> Result<Bdf, BusError> {
        let PciSlot { slot, function } = place;
        let guest = self.root.add(slot, function, passed.function)?;
        self.gates.extend(passed.gate.map(|gate| (guest, gate)));
        self.mediated.extend(passed.counters);
        Ok(guest)
    }
}

/// What functions are connected to besides their bus.
#[derive(Debug)]
pub(crate) struct Wiring<'a> {
    pub vm: &'a Arc<Vm>,
    /// Addresses of guest memory, for translation.
    pub table: &'a Arc<RamTable>,
    pub interrupts: &'a Arc<Interrupts>,
    pub exits: &'a ExitSender,
    /// How threads are confined.
    pub confinement: &'a Confinement,
    /// Which addresses on the bus those of the windows for BARs are.
    pub bus_windows: BusWindows,
    /// CPUs of the guest.
    pub cpus: u8,
    /// [`Layout::forwards_unchecked`](crate::Layout::forwards_unchecked)
    pub forwards_unchecked: bool,
}

impl Wiring<'_> {
    /// The root with every function in its place: the devices of `resources`, then the emulated `functions`.
    /// `resources` gets what belongs to the bus besides. `None` if the guest has no bus, and so nothing to be on it.
    pub fn plug(
        &self,
        bus: &mut BusAllocator,
        functions: Vec<Box<dyn EmulatedFunction>>,
        resources: &mut Resources,
    ) -> Result<Option<PciRoot>, BusError> {
        let Some(map) = &bus.map else {
            return Ok(None);
        };
        let mut slots = Slots {
            root: PciRoot::new(map.ecam.start)?.with_windows(self.bus_windows.clone()),
            gates: Vec::new(),
            mediated: Vec::new(),
            guarded: Vec::new(),
        };
        let mut devices: Vec<_> = resources.assigned.devices.iter().collect();
        let is_guarded = |assigned: &&&AssignedDevice| matches!(assigned.dma, DmaPath::Guarded(_));
        let threads = usize::from(self.cpus) + devices.iter().filter(is_guarded).count();
        // Function 0 of a slot goes in first.
        devices.sort_by_key(|assigned| (assigned.slot.slot, assigned.slot.function));
        for assigned in devices {
            let bdf = assigned.bdf();
            let lines = InterruptLines::of(self.interrupts, assigned.slot);
            if let DmaPath::Guarded(poll) = assigned.dma {
                let around = Surroundings {
                    vm: self.vm,
                    cpus: self.cpus,
                    poll,
                    threads,
                    lines,
                    table: self.table,
                    ram: resources.ram.share(),
                    exits: self.exits,
                    confinement: self.confinement,
                    forwards_unchecked: self.forwards_unchecked,
                };
                let (function, controller) = guarded::guard(assigned, bus, around)?;
                slots.guarded.push(controller);
                let function: Box<dyn PciFunction> = Box::new(function);
                let guest = slots.add(assigned.slot, function.into())?;
                log::info!("{bdf}: is {guest} in the guest");
                continue;
            }
            let host = VfioFunction::new(
                assigned,
                Arc::clone(self.vm),
                Arc::clone(self.interrupts),
                intx_gsi(assigned.slot.slot),
            )
            .map_err(process("create an eventfd"))?;
            let passed = self.pass(host, bdf, &lines, &assigned.dma)?;
            let guest = slots.add(assigned.slot, passed)?;
            log::info!("{bdf} is {guest} in the guest");
        }
        for function in functions {
            self.emulate(function, bus, &mut slots, resources)?;
        }
        resources.mediated = slots.mediated;
        resources.guarded = slots.guarded;
        Ok(Some(slots.root))
    }

    /// Puts an emulated function at the next free slot.
    fn emulate(
        &self,
        function: Box<dyn EmulatedFunction>,
        bus: &mut BusAllocator,
        slots: &mut Slots,
        resources: &mut Resources,
    ) -> Result<(), BusError> {
        let slot = bus.slot().ok_or(TooManyDevices {
            count: slots::MAX_SLOTS + 1,
            most: slots::MAX_SLOTS,
        })?;
        let name = function.name();
        let passed = function.plug(&mut Place {
            lines: InterruptLines::of(self.interrupts, slot),
            resources,
            gates: &mut slots.gates,
            wiring: self,
        })?;
        let guest = slots.add(slot, passed)?;
        log::info!("the {name} is {guest} in the guest");
        Ok(())
    }

    /// Shows `host`, called `bdf` in messages, to the guest, with its DMA by `path`.
    fn pass<H: HostFunction + 'static>(
        &self,
        host: H,
        bdf: Bdf,
        lines: &InterruptLines,
        path: &DmaPath,
    ) -> Result<Passed, BusError> {
        let gate = matches!(path, DmaPath::Translate).then(BusMasterGate::closed);
        let exits = self.exits.clone();
        let options = Options {
            bus_master: gate.clone().unwrap_or_else(BusMasterGate::opened),
            interrupt_line: lines.line(),
            bus_windows: self.bus_windows.clone(),
            on_failure: Box::new(move |failure| {
                exits.send(ExitReason::Device(bdf, failure.reason()));
            }),
        };
        let profile = match path {
            DmaPath::Mediate(profile) => profile,
            // Its guest must never have it as it is.
            DmaPath::Guarded(_) => return Err(BusError::Engine("it is no NVMe controller".into())),
            DmaPath::Iommu | DmaPath::Identity | DmaPath::Translate => {
                return Ok(Passed {
                    function: Box::new(PassthroughFunction::new(host, options)?),
                    gate,
                    counters: None,
                });
            }
        };
        let host = self.mediated(host, bdf, profile.as_ref())?;
        let counters = Some((bdf, host.counters()));
        Ok(Passed {
            function: Box::new(PassthroughFunction::new(host, options)?),
            gate,
            counters,
        })
    }

    /// Puts the monitor between `host` and its guest, by `profile`.
    fn mediated<H: HostFunction>(
        &self,
        host: H,
        bdf: Bdf,
        profile: Option<&Profile>,
    ) -> Result<MediatedFunction<H>, BusError> {
        let profile = profile.ok_or_else(|| BusError::Engine("it has no profile".into()))?;
        let table = Arc::clone(self.table);
        let exits = self.exits.clone();
        let options = mediate::Options {
            translate: Box::new(move |gpa, length| table.translate(gpa, length)),
            on_stop: Box::new(move |failure| {
                exits.send(ExitReason::Device(bdf, failure.reason()));
            }),
        };
        Ok(MediatedFunction::new(host, profile.clone(), options)?)
    }
}
