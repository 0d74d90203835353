// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A guest's way to a mediated engine: the bus, the function, the mediator, the engine.

use address::Gpa;
use devices::mediate::{Counters, MediatedFunction, ON_REQUEST, Options, Profile};
use devices::pci::{BusWindows, PciRoot};
use devices::vfio_pci::{self, BusMasterGate, PassthroughFunction};
use software_edu::EduWorker;
use vm_device::DeviceMmio;
use vm_device::bus::MmioAddress;

use crate::edu::{Events, Ram, TestMemory};

use super::host::{BAR, EduHost, Violations};
use super::memory::GuestMemory;

const ECAM: u64 = 0xe000_0000;
/// The engine is `00:01.0`.
const FUNCTION: u64 = 8 << 12;

/// The bus, as vCPUs use it.
#[derive(Debug)]
pub struct Bus(PciRoot);

/// A mediated engine on a bus.
#[derive(Debug)]
pub struct Rig {
    /// The bus.
    pub bus: Bus,
    /// The engine's work.
    pub worker: EduWorker,
    /// The guest's memory and the host's.
    pub memory: TestMemory,
    /// What the mediator counts.
    pub counters: Counters,
    /// What the device should not have received.
    pub violations: Violations,
}

impl Bus {
    /// Writes config space.
    pub fn config_write(&self, offset: u64, data: &[u8]) {
        let base = MmioAddress(ECAM);
        self.0.mmio_write(base, FUNCTION + offset, data);
    }

    /// Writes the `width` low bytes of `value` to BAR 0.
    pub fn write(&self, offset: u64, width: usize, value: u64) {
        let bytes = value.to_le_bytes();
        self.0.mmio_write(MmioAddress(BAR), offset, &bytes[..width]);
    }

    /// Reads `width` bytes of BAR 0.
    #[must_use]
    pub fn read(&self, offset: u64, width: usize) -> u64 {
        let mut bytes = [0; 8];
        self.0
            .mmio_read(MmioAddress(BAR), offset, &mut bytes[..width]);
        u64::from_le_bytes(bytes)
    }

    /// Programs and starts a transfer as drivers of the engine do.
    pub fn start(&self, [source, destination, count, command]: [u64; 4]) {
        self.write(0x80, 8, source);
        self.write(0x88, 8, destination);
        self.write(0x90, 8, count);
        self.write(0x98, 8, command);
    }

    /// Resets the machine.
    pub fn reset(&self) {
        self.0.reset();
    }
}

impl Rig {
    /// An engine with the shipped profile for 64 address bits, with memory decode and bus mastering on.
    ///
    /// # Panics
    ///
    /// If it cannot be made.
    #[must_use]
    pub fn new(guest: &GuestMemory) -> Self {
        let (_, text) = ON_REQUEST[0];
        Self::with(guest, text)
    }

    /// The same with another profile.
    ///
    /// # Panics
    ///
    /// If it cannot be made.
    #[expect(clippy::panic, reason = "a test without its subject has failed")]
    #[must_use]
    pub fn with(guest: &GuestMemory, profile: &str) -> Self {
        match Self::try_new(guest, profile) {
            Ok(rig) => rig,
            Err(error) => panic!("{error}"),
        }
    }

    fn try_new(guest: &GuestMemory, profile: &str) -> Result<Self, Box<dyn std::error::Error>> {
        let memory = TestMemory::new(guest.ram());
        let (edu, worker) = software_edu::new(software_edu::Options {
            bar: Gpa(BAR),
            interrupt_line: 17,
            buffer: software_edu::QEMU_BUFFER_SIZE,
            memory: Box::new(memory.clone()),
            interrupts: Box::new(Events::default()),
        })?;
        let (host, violations) = EduHost::new(edu, guest.clone());
        let options = Options {
            translate: Box::new(guest.translate()),
            on_stop: Box::new(|_| {}),
        };
        let mediated = MediatedFunction::new(host, Profile::parse("rig", profile)?, options)?;
        let counters = mediated.counters();
        let function = PassthroughFunction::new(
            mediated,
            vfio_pci::Options {
                bus_master: BusMasterGate::opened(),
                interrupt_line: 17,
                bus_windows: BusWindows::default(),
                on_failure: Box::new(|_| {}),
            },
        )?;
        let mut root = PciRoot::new(Gpa(ECAM))?;
        root.add(1, 0, Box::new(function))?;
        let rig = Self {
            bus: Bus(root),
            worker,
            memory,
            counters,
            violations,
        };
        rig.bus.config_write(4, &[6, 0]);
        Ok(rig)
    }

    /// Checks that the device has received nothing that it should not, and that of all memory only
    /// the guest's differs from `ram`, what it was at the start.
    ///
    /// # Panics
    ///
    /// If not.
    pub fn check_host(&self, guest: &GuestMemory, mut ram: Ram) {
        assert_eq!(self.violations.list(), Vec::<String>::new());
        let mut memory = self.memory.ram();
        for gpa in guest.gpas() {
            for at in gpa..gpa + 4096 {
                let hpa = guest.byte(at).unwrap_or_default();
                if let (Some(to), Some(from)) = (ram.byte(hpa), memory.byte(hpa)) {
                    *to = *from;
                }
            }
        }
        assert!(*memory == ram, "the host's memory has changed");
    }
}
