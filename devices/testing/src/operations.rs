// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Sequences of operations of a guest, decoded from bytes: what the fuzzer runs, and what the
//! tests replay.

use address::Gpa;
use devices::pci::{BarKind, BusWindows, MsiMessage, PciRoot};
use devices::vfio_pci::{BusMasterGate, InterruptKind, Options, PassthroughFunction};
use vm_device::bus::{MmioAddress, PioAddress};
use vm_device::{DeviceMmio, DevicePio};

use super::device::DeviceImage;
use super::host::{SimulatedHost, Witness};
use super::input::Input;

const ECAM: u64 = 0xe000_0000;
/// The function under test is `00:01.0`.
const FUNCTION: u64 = ECAM + (8 << 12);
const COMMAND: u16 = 4;
const MEMORY: u32 = 2;
const BUS_MASTER: u32 = 4;

/// Runs the operations that `bytes` encode on a simulated device, which they choose too.
///
/// # Panics
///
/// If the function breaks a rule of VFIO or loses track of its guest.
pub fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    let image = choose_image(&mut input);
    let closed = input.byte() & 1 == 1;
    run_on(image, closed, &mut input);
}

/// As [`run`], on a given device with the gate open.
///
/// # Panics
///
/// As [`run`].
pub fn run_with(image: DeviceImage, bytes: &[u8]) {
    run_on(image, false, &mut Input(bytes));
}

fn run_on(image: DeviceImage, closed: bool, input: &mut Input<'_>) {
    let gate = if closed {
        BusMasterGate::closed()
    } else {
        BusMasterGate::opened()
    };
    let Some(mut machine) = Machine::new(image, gate) else {
        return;
    };
    while !input.0.is_empty() {
        machine.step(input);
        machine.check();
    }
    machine.finish();
}

/// The devices that sequences run on; each has something the others lack.
fn choose_image(input: &mut Input<'_>) -> DeviceImage {
    const MEM32: BarKind = BarKind::Memory32 {
        prefetchable: false,
    };
    const MEM64: BarKind = BarKind::Memory64 { prefetchable: true };
    let choice = input.byte();
    match choice % 5 {
        0 => DeviceImage::new("plain", 4096)
            .bar(0, MEM64, 0x4000, 0x38_0000_0000)
            .capability(0x40, 0x01, &[3, 0, 8, 0, 0, 0])
            .capability(0x80, 0x11, &[0x40, 0, 0, 0x20, 0, 0, 0, 0x30, 0, 0])
            .capability(0x60, 0x10, &[2, 0, 0, 0, 0, 0x10, 0x10, 0x28])
            .extended(0x100, 1, 0x150, &[0; 40])
            .extended(0x150, 0x10, 0x200, &[0; 60])
            .extended(0x200, 0x0b, 0, &[1, 0, 0, 2, 0, 0, 0, 0]),
        1 => DeviceImage::new("odd places", 256)
            .bar(0, BarKind::Io, 0x20, 0xc000)
            .bar(1, MEM32, 0x100, 0xfe00_0100)
            .bar(2, MEM32, 0x2000, 0xfe00_2000)
            .bar(4, MEM64, 1 << 31, 0x40_8000_0000)
            .rom(0x10000, 0xfd00_0000)
            .capability(0x50, 0x11, &[3, 0, 2, 8, 0, 0, 4, 0, 0, 0])
            .capability(0x60, 0x13, &[6, 3, 0, 0])
            .capability(0x70, 0x09, &[0x10, 1, 2, 3]),
        2 => {
            let mut image = DeviceImage::new("many MSI", 256)
                .bar(0, MEM32, 0x1000, 0xfe00_0000)
                .capability(0x50, 0x05, &[0x8a, 0x01])
                .capability(0x70, 0x03, &[0, 0, 0, 0, 0, 0])
                .capability(0x40, 0x01, &[0x03, 0, 0, 0]);
            image.info.interrupts[InterruptKind::Msi].count = 4 + u16::from(choice >> 7) * 28;
            image
        }
        3 => DeviceImage::new("old", 256)
            .bar(0, BarKind::Io, 0x100, 0xc000)
            .bar(1, MEM32, 0x100, 0xfe00_0000)
            .capability(0x50, 0x05, &[0, 0]),
        _ => random_image(input),
    }
}

/// A device whose config space is whatever the input has.
fn random_image(input: &mut Input<'_>) -> DeviceImage {
    let mut image = DeviceImage::new("random", 4096)
        .bar(
            0,
            BarKind::Memory64 {
                prefetchable: false,
            },
            0x8000,
            0x38_0000_0000,
        )
        .bar(2, BarKind::Io, 0x40, 0xc040);
    image.config[0x06] = 0x10;
    for _ in 0..input.byte() {
        let at = match usize::from(input.word16() & 0xfff) {
            at @ 0x10..0x28 => at + 0x30,
            at => at,
        };
        image.config[at] = input.byte();
    }
    image
}

struct Machine {
    root: PciRoot,
    witness: Witness,
    gate: BusMasterGate,
    image: DeviceImage,
    faulty: bool,
}

impl Machine {
    fn new(image: DeviceImage, gate: BusMasterGate) -> Option<Self> {
        let (host, witness) = SimulatedHost::new(image.clone(), Some(gate.clone()));
        let options = Options {
            bus_master: gate.clone(),
            interrupt_line: 10,
            bus_windows: BusWindows::default(),
            on_failure: Box::new(|_| {}),
        };
        let function = PassthroughFunction::new(host, options).ok()?;
        let mut root = PciRoot::new(Gpa(ECAM)).ok()?;
        root.add(1, 0, Box::new(function)).ok()?;
        let machine = Self {
            root,
            witness,
            gate,
            image,
            faulty: false,
        };
        assert_eq!(
            machine.witness.command() & 7,
            0,
            "COMMAND after construction"
        );
        Some(machine)
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() % 16 {
            0..=3 => self.config_access(input),
            4 => self.config_ports(input),
            5..=6 => self.write_config(COMMAND, &input.data(2)),
            7 => self.write_capability(input),
            8..=11 => self.bar_access(input),
            12 => self.witness.raise(input.word16() % 64),
            13 => self.move_gate(input.byte()),
            14 => self.fault(input.byte()),
            _ => self.reset(),
        }
    }

    fn config_access(&mut self, input: &mut Input<'_>) {
        let (kind, offset) = (input.byte(), input.word16() & 0xfff);
        let length = 1 << (kind & 3);
        if kind & 4 == 0 {
            self.write_config(offset, &input.data(length));
        } else {
            let mut data = vec![0; length];
            self.root.mmio_read(
                MmioAddress(ECAM),
                FUNCTION - ECAM + u64::from(offset),
                &mut data,
            );
        }
    }

    fn config_ports(&mut self, input: &mut Input<'_>) {
        let (port, length) = (input.word16() & 7, 1 << (input.byte() % 3));
        let mut data = input.data(length);
        self.root.pio_write(PioAddress(0xcf8), port, &data);
        self.root.pio_read(PioAddress(0xcf8), port, &mut data);
    }

    /// Writes near the start of one of the capabilities that the guest sees.
    fn write_capability(&mut self, input: &mut Input<'_>) {
        let mut offset = self.read_config(0x34, 1);
        for _ in 0..input.byte() % 8 {
            offset = self.read_config(u16::from(offset.to_le_bytes()[0]) | 1, 1);
        }
        let at = u16::from(offset.to_le_bytes()[0]) + 2 * u16::from(input.byte() & 7);
        let length = if at.is_multiple_of(4) && input.byte() & 1 == 1 {
            4
        } else {
            2
        };
        self.write_config(at, &input.data(length));
    }

    fn bar_access(&mut self, input: &mut Input<'_>) {
        let (choice, offset) = (input.byte(), u64::from(input.word16()));
        let length = 1 << (choice >> 3 & 3);
        let bar = self.image.info.bars.get(usize::from(choice & 7));
        let home = bar.and_then(|bar| bar.host_address);
        let mut data = input.data(length);
        let port = u16::from(offset.to_le_bytes()[0]);
        match (home, choice & 0x20) {
            (Some(home), 0) => self.root.mmio_write(MmioAddress(home.0), offset, &data),
            (Some(home), _) => self.root.mmio_read(MmioAddress(home.0), offset, &mut data),
            (None, 0) => self.root.pio_write(PioAddress(0xc000), port, &data),
            (None, _) => self.root.pio_read(PioAddress(0xc000), port, &mut data),
        }
    }

    fn move_gate(&mut self, choice: u8) {
        if choice & 1 == 1 {
            self.gate.open();
        } else {
            self.gate.close();
        }
        // It takes effect with the next config access.
        self.read_config(0, 4);
    }

    fn fault(&mut self, period: u8) {
        if period & 3 == 0 {
            self.witness.heal();
            return;
        }
        self.faulty = true;
        let mut left = period;
        self.witness.inject(move |_| {
            left = left.wrapping_sub(1);
            left.is_multiple_of(8)
        });
    }

    fn write_config(&self, offset: u16, data: &[u8]) {
        self.root
            .mmio_write(MmioAddress(ECAM), FUNCTION - ECAM + u64::from(offset), data);
    }

    fn read_config(&self, offset: u16, length: usize) -> u32 {
        let mut bytes = [0; 4];
        let at = FUNCTION - ECAM + u64::from(offset);
        self.root
            .mmio_read(MmioAddress(ECAM), at, &mut bytes[..length]);
        u32::from_le_bytes(bytes)
    }

    /// What must hold after every operation.
    fn check(&self) {
        let violations = self.witness.violations();
        assert!(violations.is_empty(), "{violations:#?}");
        if self.faulty {
            return;
        }
        let wanted = self.read_config(COMMAND, 2);
        let actual = u32::from(self.witness.command());
        let mastering = wanted & BUS_MASTER != 0 && self.gate.is_open();
        assert_eq!(actual & BUS_MASTER != 0, mastering, "bus master");
        assert_eq!(actual & !BUS_MASTER, wanted & !BUS_MASTER, "COMMAND");
        if wanted & MEMORY == 0 {
            assert_eq!(self.witness.mapped(), [], "BARs mapped without decode");
        }
        for (bar, place) in self.witness.placed() {
            let at = 0x10 + 4 * u16::from(bar);
            let low = self.read_config(at, 4);
            let wide = low & 7 == 4;
            let high = if wide { self.read_config(at + 4, 4) } else { 0 };
            let register = u64::from(high) << 32 | u64::from(low & !0xf);
            assert_eq!(place, register, "BAR {bar} is mapped elsewhere");
        }
        self.check_vectors(wanted);
    }

    /// The host's vectors follow the table that the guest reads back.
    fn check_vectors(&self, command: u32) {
        let Some(capability) = self.msix_capability() else {
            return;
        };
        if !self.witness.is_awake() {
            return; // They follow when it is back in D0.
        }
        let control = self.read_config(capability + 2, 2);
        let on = self.witness.interrupts();
        let is_msix = on
            .as_ref()
            .is_some_and(|(kind, _)| *kind == InterruptKind::Msix);
        assert_eq!(is_msix, control & 0x8000 != 0, "MSI-X enable");
        let table = self.read_config(capability + 4, 4);
        let bar = table & 7;
        let home = self
            .image
            .info
            .bars
            .get(bar as usize)
            .and_then(|bar| bar.host_address);
        let (Some(home), Some((_, vectors)), true) = (home, on, is_msix) else {
            return;
        };
        let at = 0x10 + 4 * u16::from(bar.to_le_bytes()[0]);
        let stands_home = self.read_config(at, 4) & !0xf == (home.0 & 0xffff_ffff) as u32;
        if command & MEMORY == 0 || !stands_home || !self.answers(home.0) {
            return;
        }
        let entries = home.0 + u64::from(table & !7);
        let masked = control & 0x4000 != 0;
        let mut connected = vectors.into_iter().chain(std::iter::repeat(None));
        for entry in (entries..).step_by(16).take((control & 0x7ff) as usize + 1) {
            let message = self.read_entry(entry).filter(|_| !masked);
            assert_eq!(connected.next().flatten(), message, "entry at {entry:#x}");
        }
    }

    /// Where the guest sees the MSI-X capability.
    fn msix_capability(&self) -> Option<u16> {
        let mut at = self.read_config(0x34, 1);
        for _ in 0..48 {
            let offset = u16::try_from(at).ok().filter(|at| *at >= 0x40)?;
            if self.read_config(offset, 1) == 0x11 {
                return Some(offset);
            }
            at = self.read_config(offset + 1, 1);
        }
        None
    }

    /// Whether the function decodes `address`: it is in D0 and the BAR is whole at home.
    fn answers(&self, address: u64) -> bool {
        let placed = self.witness.placed();
        placed.iter().any(|(_, place)| *place == address)
    }

    /// The message in a table entry, unless that is masked.
    fn read_entry(&self, address: u64) -> Option<MsiMessage> {
        let (mut target, mut data, mut control) = ([0; 8], [0; 4], [0; 4]);
        self.root.mmio_read(MmioAddress(address), 0, &mut target);
        self.root.mmio_read(MmioAddress(address), 8, &mut data);
        self.root.mmio_read(MmioAddress(address), 12, &mut control);
        (control[0] & 1 == 0).then_some(MsiMessage {
            address: u64::from_le_bytes(target),
            data: u32::from_le_bytes(data),
        })
    }

    /// A reset by a host without faults leaves no trace of those before.
    fn reset(&mut self) {
        self.witness.heal();
        self.root.reset();
        self.faulty = false;
    }

    /// A reset puts everything back; after the stop nothing reaches the device.
    fn finish(mut self) {
        self.reset();
        self.check();
        assert_eq!(self.witness.command(), 0, "COMMAND after reset");
        assert_eq!(self.witness.mapped(), [], "BARs mapped after reset");
        assert_eq!(self.witness.interrupts(), None, "interrupts on after reset");
        self.root.stop();
        drop(self.witness.take_all_calls());
        self.write_config(COMMAND, &[7, 0]);
        assert_eq!(self.read_config(0, 4), u32::MAX);
        assert_eq!(self.witness.take_all_calls(), [], "calls after the stop");
    }
}
