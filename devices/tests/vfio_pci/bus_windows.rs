// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! BARs on a bus whose host bridge translates addresses.

use address::{BusAddr, Gpa};
use devices::pci::{BarKind, BusWindow, BusWindows, PciRoot};
use devices::vfio_pci::{BusMasterGate, Options, PassthroughFunction};
use devices_testing::{Call, DeviceImage, SimulatedHost, Witness};
use vm_device::DeviceMmio;
use vm_device::bus::MmioAddress;

use super::MEMORY;

const ECAM: u64 = 0xe000_0000;
/// Where the CPUs have the window of 1 GiB, as on Raspberry Pi 4, and where the bus has it.
const WINDOW: Gpa = Gpa(0x6_0000_0000);
const ON_BUS: u32 = 0xc000_0000;
const OFFSET: u32 = 0x10_0000;
/// BAR 0 of the function in the guest, in ECAM.
const BAR0: u64 = 0x8010;

/// A device with a 32-bit BAR of 16 KiB, of which the first half can be mapped.
struct Bus {
    root: PciRoot,
    witness: Witness,
}

impl Bus {
    fn new() -> Self {
        let kind = BarKind::Memory32 {
            prefetchable: false,
        };
        let cpu = WINDOW.0 + u64::from(OFFSET);
        let image = DeviceImage::new("bus windows", 256)
            .bar(0, kind, 0x4000, cpu)
            .rom(0x1000, WINDOW.0)
            .mappable(0, std::slice::from_ref(&(0..0x2000)));
        let bus_windows: BusWindows = [BusWindow {
            cpu: WINDOW..WINDOW + (1 << 30),
            bus: BusAddr(ON_BUS.into()),
        }]
        .into_iter()
        .collect();
        let gate = BusMasterGate::opened();
        let (host, witness) = SimulatedHost::new(image, Some(gate.clone()));
        let options = Options {
            bus_master: gate,
            interrupt_line: 10,
            bus_windows: bus_windows.clone(),
            on_failure: Box::new(|_| {}),
        };
        let function = PassthroughFunction::new(host, options).unwrap();
        let mut root = PciRoot::new(Gpa(ECAM)).unwrap().with_windows(bus_windows);
        root.add(1, 0, Box::new(function)).unwrap();
        Self { root, witness }
    }

    fn config_read(&self, at: u64) -> u32 {
        let mut data = [0; 4];
        self.root.mmio_read(MmioAddress(ECAM), at, &mut data);
        u32::from_le_bytes(data)
    }

    fn config_write(&self, at: u64, data: &[u8]) {
        self.root.mmio_write(MmioAddress(ECAM), at, data);
    }

    /// Where BAR 0 was mapped since the last time.
    fn mapped(&self) -> Vec<Gpa> {
        let calls = self.witness.take_calls().into_iter();
        let places = calls.filter_map(|call| match call {
            Call::Map { gpa, .. } => Some(gpa),
            _ => None,
        });
        places.collect()
    }

    /// Offsets of the device's reads after a CPU reads at `cpu`.
    fn read(&self, cpu: Gpa) -> Vec<u64> {
        drop(self.witness.take_all_calls());
        let mut data = [0; 4];
        self.root.mmio_read(MmioAddress(cpu.0), 0, &mut data);
        let calls = self.witness.take_all_calls().into_iter();
        let places = calls.filter_map(|call| match call {
            Call::RegionRead { offset, .. } => Some(offset),
            _ => None,
        });
        places.collect()
    }
}

#[test]
fn registers_have_the_address_on_the_bus_and_cpus_their_own() {
    let bus = Bus::new();
    assert_eq!(bus.config_read(BAR0), ON_BUS + OFFSET);
    assert_eq!(bus.config_read(0x8030), ON_BUS, "the ROM");
    bus.config_write(0x8004, &MEMORY.to_le_bytes());
    let cpu = WINDOW + u64::from(OFFSET);
    assert_eq!(bus.mapped(), [cpu]);
    assert_eq!(bus.read(cpu + 0x3000), [0x3000]);
    for other in [Gpa((ON_BUS + OFFSET + 0x3000).into()), cpu + 0x4000] {
        assert_eq!(bus.read(other), [0; 0], "{other}");
    }
}

#[test]
fn a_bar_that_moves_on_the_bus_moves_for_the_cpus() {
    let bus = Bus::new();
    bus.config_write(0x8004, &MEMORY.to_le_bytes());
    let _ = bus.mapped();
    bus.config_write(BAR0, &(ON_BUS + 0x20_0000).to_le_bytes());
    assert_eq!(bus.mapped(), [WINDOW + 0x20_0000]);
    assert_eq!(bus.read(WINDOW + 0x20_3000), [0x3000]);
    // No window forwards to it there.
    bus.config_write(BAR0, &0x2000_0000_u32.to_le_bytes());
    assert_eq!(bus.mapped(), []);
    assert_eq!(bus.read(Gpa(0x2000_3000)), [0; 0]);
}
