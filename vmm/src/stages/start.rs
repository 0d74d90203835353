// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The last stage: the guest's devices are on its bus, and its CPUs run.

use std::sync::Arc;

use devices::pci::BusWindows;

use super::load::Loaded;
use crate::arch;
use crate::bus::Wiring;
use crate::confine::{Confinement, ThreadKind};
use crate::error::Error;
use crate::error::explain::process;
use crate::kvm::irq::Interrupts;
use crate::kvm::vcpu::{VcpuConfinement, VcpuThread, install_kick_handler};
use crate::run::console::Console;
use crate::run::device_notices::DeviceWatch;
use crate::run::event_loop::Signals;
use crate::run::exit;
use crate::run::machine_info::{MachineInfo, in_guest};
use crate::run::power_button::PowerButton;
use crate::run::threads::ThreadError;
use crate::run::vmm::Vmm;

impl Loaded<'_> {
    /// Connects the guest to its devices and starts it, with `console` at its serial port and all threads confined.
    pub fn start(self, console: &mut Console, confinement: &Confinement) -> Result<Vmm, Error> {
        let Self {
            mut guest,
            vm,
            mut resources,
            layout,
            vcpus,
            start,
        } = self;
        // Threads inherit what is blocked.
        let signals = Signals::take()?;
        let (exit_sender, exits) = exit::channel().map_err(process("create an eventfd"))?;
        let interrupts = Interrupts::new(Arc::clone(&vm))?;
        let wiring = Wiring {
            vm: &vm,
            table: &layout.table,
            interrupts: &interrupts,
            exits: &exit_sender,
            confinement,
            bus_windows: match &guest.bus.map {
                Some(map) => map.bus_windows.clone(),
                None => BusWindows::default(),
            },
            cpus: guest.config.cpus.get(),
            forwards_unchecked: guest.layouts.forward_unchecked(),
        };
        let root = wiring.plug(&mut guest.bus, guest.functions, &mut resources)?;
        resources.pci = root.map(Arc::new);
        let serial = Arc::new(console.serial_port(arch::serial_interrupt(&interrupts)?)?);
        let pci = resources.pci.as_ref().zip(guest.bus.map.as_ref());
        let bus = arch::connect(pci, &serial, &exit_sender, &interrupts)?;
        let bus = Arc::clone(resources.bus.insert(Arc::new(bus)));
        for assigned in &resources.assigned.devices {
            let notices = DeviceWatch::all(&assigned.device)?;
            resources.watches.extend(notices);
        }
        let vcpus = vcpus.set_up(&vm, &start)?;
        resources.check_pages()?;
        install_kick_handler().map_err(process("install a signal handler"))?;
        if let Some(directory) = resources.assigned.published() {
            confinement.may_publish_in(directory);
        }
        confinement.enclose()?;
        console.start()?;
        let vcpu_confinement = VcpuConfinement {
            confinement,
            kind: ThreadKind::vcpu(resources.pci.is_some()),
        };
        for (index, vcpu) in (0..).zip(vcpus) {
            let (bus, exits) = (Arc::clone(&bus), exit_sender.clone());
            let thread = VcpuThread::spawn(index, vcpu, bus, exits, vcpu_confinement);
            let thread = thread.map_err(ThreadError::of("start a vCPU"))?;
            resources.vcpus.push(thread);
        }
        confinement.enter(ThreadKind::Main)?;
        resources.vcpus.iter().for_each(VcpuThread::begin);
        Ok(Vmm {
            info: MachineInfo {
                backend: resources.assigned.spaces.name(),
                ram: layout.table,
                bars: in_guest(guest.bars),
                kernel: start.image,
            },
            serial,
            signals,
            power_button: Arc::new(PowerButton::new(interrupts)),
            exit_sender,
            exits,
            resources,
        })
    }
}
