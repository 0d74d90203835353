//! From a [`Config`] to a running [`Machine`], one step after the other. Each step takes what the
//! ones before it made, and an error drops all of it again.

mod boot;
mod bus;
mod devices;
mod memory;

use std::sync::Arc;

use iommufd_backend::IoMem;
use kvm_ioctls::VcpuFd;

use crate::acpi::Platform;
use crate::arch::{cpuid, entry};
use crate::bound::BoundDevice;
use crate::config::Config;
use crate::console::Console;
use crate::error::{Error, process};
use crate::event_loop::Signals;
use crate::exit;
use crate::host_map::HostMap;
use crate::kvm::irq::Interrupts;
use crate::kvm::vcpu::{VcpuThread, install_kick_handler};
use crate::kvm::vm::Vm;
use crate::machine::Machine;
use crate::memory::layout::Layout;
use crate::watch::DeviceWatch;
use boot::{BootFiles, Start};
use bus::Wiring;
use devices::Devices;
use memory::Memory;

/// vCPUs of a guest.
const CPUS: u8 = 1;
/// The host's physical address map.
const IOMEM: &str = "/proc/iomem";

/// Sets everything up and starts the guest. `identity` is the layout for devices that use
/// physical addresses.
pub(crate) fn build(
    config: &Config,
    identity: &dyn Layout,
    console: &mut Console,
) -> Result<Machine, Error> {
    let files = BootFiles::open(config)?;
    let mut devices = Devices::bind(config)?;
    let vm = Vm::new()?;
    let host_map = HostMap::new(&IoMem::read(IOMEM.as_ref())?, &devices.bars())?;
    let memory = Memory::prepare(&config.memory, identity, &mut devices, (&vm, &host_map))?;
    let start = files.load(
        &config.command_line,
        (&memory.plan, &host_map),
        &platform(&host_map),
        memory.ram.memory(),
    )?;

    let (exit_sender, exits) = exit::channel().map_err(process("make an eventfd"))?;
    let interrupts = Interrupts::new(Arc::clone(&vm))?;
    let wiring = Wiring {
        vm: &vm,
        interrupts: &interrupts,
        exits: &exit_sender,
    };
    let pci = Arc::new(wiring.plug(&host_map, &mut devices)?);
    let serial = Arc::new(console.serial_port(bus::serial_interrupt(&interrupts)?)?);
    let bus = Arc::new(bus::connect(&pci, &host_map, &serial, &exit_sender)?);
    let watches = watch(&devices.bound)?;
    let vcpu = first_vcpu(&vm, start)?;

    let mut machine = Machine {
        vcpus: Vec::new(),
        serial,
        signals: Signals::take()?,
        exit_sender: exit_sender.clone(),
        exits,
        watches,
        bus: Some(Arc::clone(&bus)),
        pci: Some(pci),
        devices: devices.bound,
        noiommu: devices.noiommu,
        iommu: devices.iommu,
        ram_slots: memory.slots,
        ram: Some(memory.ram),
    };
    console.start()?;
    install_kick_handler().map_err(process("install a signal handler"))?;
    let thread = VcpuThread::spawn(0, vcpu, bus, exit_sender);
    machine.vcpus.push(thread.map_err(process("start a vCPU"))?);
    Ok(machine)
}

fn platform(host_map: &HostMap) -> Platform {
    Platform {
        cpus: CPUS,
        ecam: host_map.ecam.clone(),
        windows: host_map.windows.clone(),
        ports: bus::BAR_PORTS,
        power: bus::POWER_PORT,
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

fn first_vcpu(vm: &Vm, start: Start) -> Result<VcpuFd, Error> {
    let vcpu = vm.create_vcpu(0)?;
    vcpu.set_cpuid2(&cpuid::for_vcpu(vm.cpuid(), 0, CPUS))
        .map_err(|source| entry::EntryError::Kvm {
            what: "CPUID",
            source,
        })?;
    entry::set_tsc_frequency(&vcpu);
    entry::set_reset_state(&vcpu)?;
    entry::set_registers(&vcpu, start.entry, start.page_tables)?;
    Ok(vcpu)
}
