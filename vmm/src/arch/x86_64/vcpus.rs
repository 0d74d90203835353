// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest's CPUs before they run.

use std::borrow::Cow;

use devices::pci::CONFIG_PORT;
use kvm_ioctls::VcpuFd;

use super::boot::handover::Start;
use super::boot::linux_options;
use super::cpuid;
use super::entry::{self, EntryError};
use crate::kvm::vm::{Vm, VmError};

/// Ports where nothing is, and where Linux looks by writing: Super I/O chips, each with four keys
/// (drivers/tty/serial/8250/8250_fintek.c probe_setup_port), and the serial ports COM2 to COM4
/// (arch/x86/include/asm/serial.h). First port, and how many.
const PROBED_PORTS: [(u16, u32); 5] = [(0x2e, 2), (0x4e, 2), (0x2f8, 8), (0x3e8, 8), (0x2e8, 8)];

/// A guest's CPUs, before any state is set.
#[derive(Debug)]
pub struct Vcpus {
    all: Vec<VcpuFd>,
    /// The frequency of their TSC, if KVM reports it.
    tsc_khz: Option<u32>,
}

impl Vcpus {
    /// Creates `count` CPUs.
    ///
    /// # Errors
    /// [`VmError`]
    pub fn create(vm: &Vm, count: u8) -> Result<Self, VmError> {
        // CONFIG_ADDRESS of PCI, a dword, which selects what the next access to CONFIG_DATA is about. Linux looks for
        // functions before it knows whether there is a bus (arch/x86/kernel/early-quirks.c, early_pci_scan_bus).
        vm.keep_writes(CONFIG_PORT, 4)?;
        for (port, len) in PROBED_PORTS {
            vm.keep_writes(port, len)?;
        }
        let all = (0..count)
            .map(|index| vm.create_vcpu(index))
            .collect::<Result<Vec<_>, _>>()?;
        let frequencies: Vec<_> = all.iter().map(entry::set_tsc_frequency).collect();
        Ok(Self {
            all,
            tsc_khz: frequencies.first().copied().flatten(),
        })
    }

    /// `line`, a command line for Linux, with what it needs to know about these CPUs.
    #[must_use]
    pub fn command_line<'a>(&self, line: &'a str) -> Cow<'a, str> {
        linux_options::with_tsc_frequency(line, self.tsc_khz)
    }

    /// Makes them ready to run. The first one begins at `start`; KVM keeps the others waiting for the
    /// INIT and start-up interrupts of the first.
    pub fn set_up(self, vm: &Vm, start: &Start) -> Result<Vec<VcpuFd>, EntryError> {
        let count = u8::try_from(self.all.len()).unwrap_or(u8::MAX);
        let cpuid = match self.tsc_khz {
            Some(khz) => cpuid::with_tsc_frequency(&vm.cpu().0, khz)?,
            None => vm.cpu().0.clone(),
        };
        for (index, vcpu) in (0..count).zip(&self.all) {
            let leaves = cpuid::for_vcpu(&cpuid, index, count)?;
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
