//! From a [`Config`] to a running [`Machine`], one step after the other. Each step takes what the
//! ones before it made, and an error drops all of it again.

mod boot;
mod bus;
mod devices;
mod low_memory;
mod memory;
mod prepared;

use std::sync::Arc;

use kvm_ioctls::VcpuFd;

use crate::acpi::Platform;
use crate::arch::cpuid;
use crate::arch::entry::{self, EntryError};
use crate::boot::command_line;
use crate::bound::BoundDevice;
use crate::config::Config;
use crate::console::Console;
use crate::description::{Description, in_guest};
use crate::error::{Error, process};
use crate::event_loop::Signals;
use crate::exit;
use crate::host_map::HostMap;
use crate::kvm::irq::Interrupts;
use crate::kvm::vcpu::install_kick_handler;
use crate::kvm::vm::Vm;
use crate::machine::Machine;
use crate::memory::layout::Layout;
use crate::phases::Phases;
use crate::power_button::{self, PowerButton};
use crate::watch::DeviceWatch;
use boot::Start;
use bus::Wiring;

pub(crate) use boot::memory_map;
pub(crate) use devices::{Devices, Reach, profile};
pub(crate) use memory::SLOTS_PER_DEVICE;
pub(crate) use prepared::Prepared;

/// Sets everything up and starts the guest. `identity` is the layout for devices that use
/// physical addresses.
pub(crate) fn build(
    config: &Config,
    identity: &dyn Layout,
    console: &mut Console,
    phases: &mut Phases,
) -> Result<Machine, Error> {
    let Prepared {
        files,
        mut devices,
        vm,
        host_map,
        memory,
        placement,
        pieces,
        low,
        is_linux,
    } = prepare(config, identity, phases)?;
    pieces?;
    let vcpus = create_vcpus(&vm, config.cpus.get())?;
    let command_line =
        command_line::with_tsc_frequency(&config.command_line, vcpus.tsc_khz.filter(|_| is_linux));
    let start = files.load(
        (&command_line, low),
        placement?,
        (&memory.plan, &host_map),
        (&platform(config, &host_map), memory.ram.memory()),
    )?;
    phases.done("load");

    // Threads inherit what is blocked.
    let signals = Signals::take()?;
    let (exit_sender, exits) = exit::channel().map_err(process("make an eventfd"))?;
    let interrupts = Interrupts::new(Arc::clone(&vm))?;
    let table = memory.table;
    let wiring = Wiring {
        vm: &vm,
        table: &table,
        window: memory.window,
        interrupts: &interrupts,
        exits: &exit_sender,
    };
    let bars = devices.bars();
    let plugged = wiring.plug(&host_map, &mut devices)?;
    let pci = Arc::new(plugged.root);
    let serial = Arc::new(console.serial_port(bus::serial_interrupt(&interrupts)?)?);
    let bus = Arc::new(bus::connect(&pci, &host_map, &serial, &exit_sender)?);
    let watches = watch(&devices.held.devices)?;
    let vcpus = vcpus.set_up(&vm, &start)?;

    let mut machine = Machine {
        description: Description {
            backend: devices.backend(),
            ram: table,
            bars: in_guest(bars),
            kernel: start.image,
        },
        vcpus: Vec::new(),
        serial,
        signals,
        power_button: PowerButton::new(interrupts),
        exit_sender: exit_sender.clone(),
        exits,
        watches,
        bus: Some(bus),
        pci: Some(pci),
        held: devices.held,
        software: devices.software,
        engine: plugged.engine,
        mediated: plugged.mediated,
        ram_slots: memory.slots.into_iter().chain(plugged.window).collect(),
        ram: Some(memory.ram),
    };
    machine.check_pages()?;
    console.start()?;
    install_kick_handler().map_err(process("install a signal handler"))?;
    machine.start(vcpus)?;
    phases.done("start");
    Ok(machine)
}

/// Prepares the guest, and warns of what may go wrong in it.
fn prepare(config: &Config, identity: &dyn Layout, phases: &mut Phases) -> Result<Prepared, Error> {
    let prepared = Prepared::new(config, identity, phases)?;
    for warning in prepared.warnings(&config.command_line)? {
        log::warn!("{warning}");
    }
    Ok(prepared)
}

fn platform(config: &Config, host_map: &HostMap) -> Platform {
    Platform {
        cpus: config.cpus.get(),
        ecam: host_map.ecam.clone(),
        windows: host_map.windows.clone(),
        ports: bus::BAR_PORTS,
        power: bus::POWER_PORT,
        power_button: power_button::GSI,
        intx: bus::INTX_GSIS,
    }
}

fn watch(devices: &[BoundDevice]) -> Result<Vec<DeviceWatch>, Error> {
    let mut watches = Vec::new();
    for bound in devices {
        watches.extend(DeviceWatch::all(&bound.device)?);
    }
    Ok(watches)
}

/// A guest's CPUs, which know nothing yet.
struct Vcpus {
    all: Vec<VcpuFd>,
    /// How fast their TSC runs, where KVM knows it.
    tsc_khz: Option<u32>,
}

fn create_vcpus(vm: &Vm, count: u8) -> Result<Vcpus, Error> {
    let all = (0..count)
        .map(|index| vm.create_vcpu(index))
        .collect::<Result<Vec<_>, _>>()?;
    let frequencies: Vec<_> = all.iter().map(entry::set_tsc_frequency).collect();
    Ok(Vcpus {
        all,
        tsc_khz: frequencies.first().copied().flatten(),
    })
}

impl Vcpus {
    /// Makes them ready to run. The first one begins at `start`; KVM keeps the others waiting for the
    /// INIT and start-up interrupts of the first.
    fn set_up(self, vm: &Vm, start: &Start) -> Result<Vec<VcpuFd>, Error> {
        let count = u8::try_from(self.all.len()).unwrap_or(u8::MAX);
        let cpuid = match self.tsc_khz {
            Some(khz) => cpuid::with_tsc_frequency(vm.cpuid(), khz).map_err(EntryError::from)?,
            None => vm.cpuid().clone(),
        };
        for (index, vcpu) in (0..count).zip(&self.all) {
            let leaves = cpuid::for_vcpu(&cpuid, index, count).map_err(EntryError::from)?;
            vcpu.set_cpuid2(&leaves).map_err(|source| EntryError::Kvm {
                what: "CPUID",
                source,
            })?;
            entry::set_reset_state(vcpu)?;
            if index == 0 {
                entry::set_registers(vcpu, &start.entry)?;
            }
        }
        Ok(self.all)
    }
}
