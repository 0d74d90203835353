//! The seventh stage: kernel and initramfs, and all that they are given, are in guest memory.

use std::sync::Arc;

use kvm_ioctls::VcpuFd;

use super::inspect::Guest;
use super::map::Mapped;
use super::plan::GuestLayout;
use crate::acpi::Platform;
use crate::arch::cpuid;
use crate::arch::entry::{self, EntryError};
use crate::boot::command_line;
use crate::boot::files::{Destination, Start};
use crate::bus;
use crate::error::Error;
use crate::kvm::vm::Vm;
use crate::power_button;
use crate::teardown::Resources;

/// A guest whose memory is as its kernel expects it, and CPUs that are not set up yet.
#[derive(Debug)]
pub(crate) struct Loaded<'a> {
    pub(super) guest: Guest<'a>,
    pub(super) vm: Arc<Vm>,
    pub(super) resources: Resources,
    pub(super) layout: GuestLayout,
    pub(super) vcpus: Vcpus,
    pub(super) start: Start,
}

impl<'a> Mapped<'a> {
    /// Creates vCPUs and loads the kernel. It is given the frequency of their TSC, so they come first.
    pub fn load(self) -> Result<Loaded<'a>, Error> {
        let Self {
            mut guest,
            vm,
            resources,
            layout,
            placement,
        } = self;
        let vcpus = Vcpus::create(&vm, guest.config.cpus.get())?;
        let khz = vcpus.tsc_khz.filter(|_| guest.release.is_some());
        let command_line = command_line::with_tsc_frequency(&guest.config.command_line, khz);
        let platform = platform(&guest);
        let destination = Destination {
            memory: resources.ram.memory(),
            plan: &layout.memory,
            low: layout.low,
            platform: &platform,
        };
        let start = guest.files.load(placement, &command_line, &destination)?;
        Ok(Loaded {
            guest,
            vm,
            resources,
            layout,
            vcpus,
            start,
        })
    }
}

fn platform(guest: &Guest<'_>) -> Platform {
    Platform {
        cpus: guest.config.cpus.get(),
        ecam: guest.address_map.ecam.clone(),
        windows: guest.address_map.windows.clone(),
        ports: bus::BAR_PORTS,
        power: bus::POWER_PORT,
        power_button: power_button::GSI,
        intx: bus::INTX_GSIS,
    }
}

/// A guest's CPUs, which know nothing yet.
#[derive(Debug)]
pub(super) struct Vcpus {
    all: Vec<VcpuFd>,
    /// How fast their TSC runs, where KVM knows it.
    tsc_khz: Option<u32>,
}

impl Vcpus {
    fn create(vm: &Vm, count: u8) -> Result<Self, Error> {
        let all = (0..count)
            .map(|index| vm.create_vcpu(index))
            .collect::<Result<Vec<_>, _>>()?;
        let frequencies: Vec<_> = all.iter().map(entry::set_tsc_frequency).collect();
        Ok(Self {
            all,
            tsc_khz: frequencies.first().copied().flatten(),
        })
    }

    /// Makes them ready to run. The first one begins at `start`; KVM keeps the others waiting for the
    /// INIT and start-up interrupts of the first.
    pub fn set_up(self, vm: &Vm, start: &Start) -> Result<Vec<VcpuFd>, Error> {
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
