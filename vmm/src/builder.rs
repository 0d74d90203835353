//! From a [`Config`] to a running [`Machine`], one step after the other. Each step takes what the
//! one before it made, and an error drops all of it again.

use std::fs::File;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use address::{Gpa, Hpa};
use devices::i8042::I8042;
use devices::pci::{self, PciRoot};
use devices::power::{self, Power, PowerEvent};
use devices::serial;
use devices::vfio_pci::{BusMasterGate, HostInfo, Options, PassthroughFunction};
use iommufd_backend::{Cdev, CdevKind, IoMem, Iommufd, NoiommuSpace, PciSysfs, VfioDevice};
use kvm_ioctls::VcpuFd;
use vm_device::bus::{BusRange, MmioAddress, PioAddress};
use vm_device::device_manager::{IoManager, MmioManager, PioManager};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;

use crate::acpi::{IO_APIC, LOCAL_APIC, Platform};
use crate::arch::page_tables::IdentityTables;
use crate::arch::{cpuid, entry};
use crate::boot::bzimage::Kernel;
use crate::boot::params::BootInfo;
use crate::boot::place::Placement;
use crate::config::{Config, DeviceConfig};
use crate::console::{Console, GuestSerial};
use crate::error::Error;
use crate::event_loop::Signals;
use crate::exit::{self, ExitReason, ExitSender};
use crate::host_map::HostMap;
use crate::kvm::irq::Interrupts;
use crate::kvm::vcpu::{VcpuThread, install_kick_handler};
use crate::kvm::vm::{Memslot, Vm};
use crate::machine::Machine;
use crate::memory::e820::{ENTRIES_WITHOUT_NUMA, Entry, Kind, MemoryMap};
use crate::memory::guest::GuestRam;
use crate::memory::low;
use crate::memory::plan::{self, Constraints, Layout, MemoryPlan};
use crate::passthrough::{self, VfioFunction};
use crate::pinned::{COOKIE, PinnedRam};
use crate::watch::DeviceWatch;

/// vCPUs of a guest.
const CPUS: u8 = 1;
/// Ports of the power device.
const POWER_PORT: u16 = 0x600;
/// I/O ports that BARs may have.
const BAR_PORTS: Range<u16> = 0x1000..0xfff0;
/// GSIs of the four INTx lines: pins of the I/O APIC above those of ISA interrupts.
const INTX_GSIS: [u32; 4] = [16, 17, 18, 19];
/// Memslots kept for mapped BARs: six to a function, two parts each.
const SLOTS_PER_DEVICE: usize = 12;
/// Slots of bus 0 that a device can have; the first is the host bridge's.
const FIRST_SLOT: u8 = 1;
const MOST_DEVICES: usize = 31;

/// Sets everything up and starts the guest.
pub(crate) fn build(
    config: &Config,
    layout: &dyn Layout,
    console: &mut Console,
) -> Result<Machine, Error> {
    let files = BootFiles::open(config)?;
    let (devices, mut space) = bind_devices(config)?;
    let vm = Vm::new()?;
    let infos = describe(&devices)?;
    let host_map = HostMap::new(&IoMem::read("/proc/iomem".as_ref())?, &bars(&infos))?;

    let pinned = PinnedRam::new(&config.memory, &mut space)?;
    let plan = lay_out(&pinned, layout, &vm, &host_map, devices.len())?;
    let ram = map_ram(&pinned, &plan)?;
    let ram_slots = add_ram(&vm, &ram)?;
    let boot = load(files, &config.command_line, &plan, &host_map, ram.memory())?;
    log::info!(
        "{} bytes of guest RAM in {} extents",
        plan.size(),
        plan.slots().len()
    );

    let (exit_sender, exits) = exit::channel().map_err(process("make an eventfd"))?;
    let interrupts = Interrupts::new(Arc::clone(&vm))?;
    let functions = Functions {
        vm: &vm,
        interrupts: &interrupts,
        exits: &exit_sender,
    };
    let pci = Arc::new(functions.plug(&host_map, &devices, infos)?);
    let serial = Arc::new(console.serial_port(serial_interrupt(&interrupts)?)?);
    let bus = Arc::new(connect(&pci, &host_map, &serial, &exit_sender)?);
    let watches = watch(&devices)?;
    let vcpu = first_vcpu(&vm, &boot)?;

    let mut machine = Machine {
        vcpus: Vec::new(),
        serial,
        signals: Signals::take()?,
        exit_sender: exit_sender.clone(),
        exits,
        watches,
        bus: Some(Arc::clone(&bus)),
        pci: Some(pci),
        devices,
        space: Some(space),
        ram_slots,
        ram: Some(ram),
    };
    console.start()?;
    install_kick_handler().map_err(process("install a signal handler"))?;
    let thread = VcpuThread::spawn(0, vcpu, bus, exit_sender);
    machine.vcpus.push(thread.map_err(process("start a vCPU"))?);
    Ok(machine)
}

/// The files that the guest boots from, opened before any device is touched.
struct BootFiles {
    kernel: Kernel,
    initramfs: Option<(PathBuf, File, u64)>,
}

impl BootFiles {
    fn open(config: &Config) -> Result<Self, Error> {
        let kernel = Kernel::open(&config.kernel)?;
        let open = |path: &PathBuf| {
            File::open(path)
                .and_then(|file| Ok((path.clone(), file.metadata()?.len(), file)))
                .map(|(path, length, file)| (path, file, length))
                .map_err(|source| Error::File {
                    what: "initramfs",
                    path: path.clone(),
                    source,
                })
        };
        let initramfs = config.initramfs.as_ref().map(open).transpose()?;
        Ok(Self { kernel, initramfs })
    }
}

/// Binds the devices to `/dev/iommu`. They are reset and quiet afterwards.
fn bind_devices(config: &Config) -> Result<(Vec<Arc<VfioDevice>>, NoiommuSpace), Error> {
    let sysfs = PciSysfs::default();
    if config.devices.len() > MOST_DEVICES {
        return Err(Error::TooManyDevices {
            count: config.devices.len(),
            most: MOST_DEVICES,
        });
    }
    for (index, DeviceConfig { bdf, .. }) in config.devices.iter().enumerate() {
        if config.devices[..index]
            .iter()
            .any(|other| other.bdf == *bdf)
        {
            return Err(Error::DeviceTwice { bdf: *bdf });
        }
    }
    let iommufd = Arc::new(Iommufd::open()?);
    for DeviceConfig { bdf, .. } in &config.devices {
        match Cdev::find(&sysfs, *bdf)?.1 {
            CdevKind::Noiommu if !config.noiommu => {
                return Err(Error::NoiommuNotAccepted { bdf: *bdf });
            }
            CdevKind::Noiommu => {}
            CdevKind::Iommu => return Err(Error::BehindIommu { bdf: *bdf }),
        }
    }
    let mut space = NoiommuSpace::new(Arc::clone(&iommufd))?;
    let mut devices = Vec::new();
    for device in &config.devices {
        let bound = VfioDevice::bind(Cdev::open(&sysfs, device.bdf)?, Arc::clone(&iommufd))?;
        if !bound.is_resettable() && !device.allow_no_reset {
            return Err(Error::NoReset { bdf: device.bdf });
        }
        space.attach(&bound)?;
        log::info!("{}: bound, in noiommu mode", device.bdf);
        devices.push(Arc::new(bound));
    }
    Ok((devices, space))
}

fn describe(devices: &[Arc<VfioDevice>]) -> Result<Vec<HostInfo>, Error> {
    let sysfs = PciSysfs::default();
    devices
        .iter()
        .map(|device| Ok(passthrough::host_info(device, &sysfs)?))
        .collect()
}

/// Where the host has the devices' memory BARs.
fn bars(infos: &[HostInfo]) -> Vec<Range<Hpa>> {
    infos
        .iter()
        .flat_map(|info| &info.bars)
        .filter_map(|bar| bar.host_address?.span(bar.size))
        .filter(|range| !range.is_empty())
        .collect()
}

/// Decides where guest RAM stands.
fn lay_out(
    pinned: &PinnedRam,
    layout: &dyn Layout,
    vm: &Vm,
    host_map: &HostMap,
    devices: usize,
) -> Result<MemoryPlan, Error> {
    let mut taken = vec![
        ("low memory", Gpa(0)..Gpa(low::SIZE)),
        ("PCI config space", host_map.ecam.clone()),
        ("the I/O APIC", IO_APIC),
        ("the local APICs", LOCAL_APIC),
        ("KVM's own pages", Vm::reserved()),
    ];
    taken.extend(
        host_map
            .windows
            .iter()
            .map(|window| ("a PCI window", window.clone())),
    );
    let constraints = Constraints {
        taken,
        address_bits: cpuid::address_bits(vm.cpuid()),
        slots: vm
            .most_slots()
            .saturating_sub(1 + devices * SLOTS_PER_DEVICE),
    };
    let plan = MemoryPlan::new(plan::runs(&pinned.extents, COOKIE), layout, &constraints)?;
    for slot in plan.slots() {
        let run = &slot.run;
        log::info!(
            "extent gpa={} hpa={} len={:#x}",
            slot.gpa,
            run.hpa,
            run.length
        );
    }
    Ok(plan)
}

fn map_ram(pinned: &PinnedRam, plan: &MemoryPlan) -> Result<GuestRam, Error> {
    let low = low::allocate().map_err(process("make low guest memory"))?;
    Ok(GuestRam::map((&low, low::SIZE), &pinned.file, plan)?)
}

fn add_ram(vm: &Arc<Vm>, ram: &GuestRam) -> Result<Vec<Memslot>, Error> {
    ram.slots()
        .iter()
        .map(|slot| Ok(vm.map(slot.gpa(), slot.mapping())?))
        .collect()
}

/// What a CPU needs to know to start the kernel.
struct Boot {
    entry: Gpa,
    page_tables: Gpa,
}

/// Puts the kernel and everything that it is told into guest memory.
fn load(
    mut files: BootFiles,
    command_line: &str,
    plan: &MemoryPlan,
    host_map: &HostMap,
    memory: &GuestMemoryMmap,
) -> Result<Boot, Error> {
    let length = files.initramfs.as_ref().map(|(_, _, length)| *length);
    let placement = Placement::find(plan, &files.kernel.demand(), length)?;
    let start = placement.kernel.start;
    log::info!("kernel gpa={start} initramfs={:x?}", placement.initramfs);
    let entry = files.kernel.load(memory, start)?;
    if let (Some((path, mut file, length)), Some(range)) = (files.initramfs, &placement.initramfs) {
        let count = usize::try_from(length).unwrap_or(usize::MAX);
        memory
            .read_exact_volatile_from(GuestAddress(range.start.0), &mut file, count)
            .map_err(|source| Error::Load {
                what: "initramfs",
                source: format!("{}: {source}", path.display()).into(),
            })?;
    }
    let rsdp = Platform {
        cpus: CPUS,
        ecam: host_map.ecam.clone(),
        windows: host_map.windows.clone(),
        ports: BAR_PORTS,
        power: POWER_PORT,
        intx: INTX_GSIS,
    }
    .write(memory)?;
    let memory_map = memory_map(plan, host_map, start)?;
    BootInfo {
        header: files.kernel.header(),
        memory_map: &memory_map,
        initramfs: placement.initramfs,
        command_line,
        rsdp,
    }
    .write(memory)?;
    entry::write_gdt(memory)?;
    let mut tables = IdentityTables::new(low::PAGE_TABLES);
    tables.map(&(Gpa(0)..Gpa(low::SIZE)))?;
    tables.map(&placement.kernel)?;
    memory
        .write_slice(&tables.bytes(), GuestAddress(tables.root().0))
        .map_err(|source| Error::Load {
            what: "page tables",
            source: source.into(),
        })?;
    Ok(Boot {
        entry,
        page_tables: tables.root(),
    })
}

fn memory_map(plan: &MemoryPlan, host_map: &HostMap, kernel: Gpa) -> Result<MemoryMap, Error> {
    let mut fixed = low::memory_map().to_vec();
    fixed.push(Entry {
        range: host_map.ecam.clone(),
        kind: Kind::Reserved,
    });
    let map = MemoryMap::new(plan, fixed, kernel)?;
    if map.len() > ENTRIES_WITHOUT_NUMA {
        log::warn!(
            "The guest's memory map has {} entries; a kernel built without NUMA keeps {} of them",
            map.len(),
            ENTRIES_WITHOUT_NUMA
        );
    }
    Ok(map)
}

/// What every passed-through function is connected to.
struct Functions<'a> {
    vm: &'a Arc<Vm>,
    interrupts: &'a Arc<Interrupts>,
    exits: &'a ExitSender,
}

impl Functions<'_> {
    /// Puts each device into a slot of its own.
    fn plug(
        &self,
        host_map: &HostMap,
        devices: &[Arc<VfioDevice>],
        infos: Vec<HostInfo>,
    ) -> Result<PciRoot, Error> {
        let mut root = PciRoot::new(host_map.ecam.start)?;
        for (slot, (device, info)) in (FIRST_SLOT..).zip(devices.iter().zip(infos)) {
            // A function alone in its slot has INTA#.
            let gsi = INTX_GSIS[usize::from(pci::Pin::A.line(slot))];
            let host = VfioFunction::new(
                Arc::clone(device),
                info,
                Arc::clone(self.vm),
                Arc::clone(self.interrupts),
                gsi,
            );
            let bdf = device.bdf();
            let exits = self.exits.clone();
            let function = PassthroughFunction::new(
                host,
                Options {
                    bus_master: BusMasterGate::opened(),
                    interrupt_line: u8::try_from(gsi).unwrap_or(u8::MAX),
                    on_failure: Box::new(move |failure| {
                        exits.send(ExitReason::Device(bdf, failure.to_string()));
                    }),
                },
            )?;
            let guest = root.add(slot, 0, Box::new(function))?;
            log::info!("{bdf}: is {guest} in the guest");
        }
        Ok(root)
    }
}

fn serial_interrupt(interrupts: &Interrupts) -> Result<EventFd, Error> {
    let event =
        EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC).map_err(process("make an eventfd"))?;
    interrupts.attach(&event, serial::IRQ)?;
    Ok(event)
}

/// Connects the emulated devices to the addresses that they answer.
fn connect(
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
    let power_exits = exits.clone();
    let power = Power::new(move |event| {
        power_exits.send(match event {
            PowerEvent::PowerOff => ExitReason::PowerOff,
            PowerEvent::Reset => ExitReason::Reset,
        });
    });
    let keyboard = I8042::new(ResetLine(exits.clone()));
    let ports: [(u16, u16, Arc<dyn vm_device::DevicePio + Send + Sync>); 5] = [
        (pci::CONFIG_PORT, pci::CONFIG_PORTS, Arc::clone(pci) as _),
        (
            BAR_PORTS.start,
            BAR_PORTS.end - BAR_PORTS.start,
            Arc::clone(pci) as _,
        ),
        (serial::BASE_PORT, serial::PORTS, Arc::clone(serial) as _),
        (POWER_PORT, power::PORTS, Arc::new(power)),
        (
            devices::i8042::BASE_PORT,
            devices::i8042::PORTS,
            Arc::new(keyboard),
        ),
    ];
    for (start, count, device) in ports {
        let range = BusRange::new(PioAddress(start), count).map_err(failed)?;
        bus.register_pio(range, device).map_err(failed)?;
    }
    Ok(bus)
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

fn watch(devices: &[Arc<VfioDevice>]) -> Result<Vec<DeviceWatch>, Error> {
    let mut watches = Vec::new();
    for device in devices {
        watches.extend(DeviceWatch::all(device)?);
    }
    Ok(watches)
}

fn first_vcpu(vm: &Vm, boot: &Boot) -> Result<VcpuFd, Error> {
    let vcpu = vm.create_vcpu(0)?;
    vcpu.set_cpuid2(&cpuid::for_vcpu(vm.cpuid(), 0, CPUS))
        .map_err(|source| entry::EntryError::Kvm {
            what: "CPUID",
            source,
        })?;
    entry::set_tsc_frequency(&vcpu)?;
    entry::set_reset_state(&vcpu)?;
    entry::set_registers(&vcpu, boot.entry, boot.page_tables)?;
    Ok(vcpu)
}

fn process(operation: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Process {
        operation,
        source: source.into(),
    }
}
