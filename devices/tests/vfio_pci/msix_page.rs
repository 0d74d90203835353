// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Registers in the pages of the MSI-X table and the pending bits, through the guest's bus.

use address::Gpa;
use devices::pci::{BarKind, BusWindows, PciRoot, Region};
use devices::vfio_pci::{BusMasterGate, Options, PassthroughFunction};
use devices_testing::{Call, DeviceImage, SimulatedHost, Witness};
use vm_device::DeviceMmio;
use vm_device::bus::MmioAddress;

use super::{Bench, MEMORY};

const ECAM: u64 = 0xe000_0000;
const HOME: u64 = 0x38_0000_0000;

/// A device on a bus, with memory decode on: BAR 2 of `size` bytes with `vectors` MSI-X vectors
/// whose table and pending bits are at the given places.
struct Bus {
    root: PciRoot,
    witness: Witness,
}

impl Bus {
    fn new(size: u64, vectors: u16, table: u32, pending: u32) -> Self {
        let mut capability = (vectors - 1).to_le_bytes().to_vec();
        capability.extend((table | 2).to_le_bytes());
        capability.extend((pending | 2).to_le_bytes());
        let image = DeviceImage::new("MSI-X page", 256)
            .bar(2, BarKind::Memory64 { prefetchable: true }, size, HOME)
            .capability(0x50, 0x11, &capability);
        let gate = BusMasterGate::opened();
        let (host, witness) = SimulatedHost::new(image, Some(gate.clone()));
        let options = Options {
            bus_master: gate,
            interrupt_line: 10,
            bus_windows: BusWindows::default(),
            on_failure: Box::new(|_| {}),
        };
        let function = PassthroughFunction::new(host, options).unwrap();
        let mut root = PciRoot::new(Gpa(ECAM)).unwrap();
        root.add(1, 0, Box::new(function)).unwrap();
        root.mmio_write(MmioAddress(ECAM), 0x8004, &MEMORY.to_le_bytes());
        drop(witness.take_all_calls());
        Self { root, witness }
    }

    /// Lengths and offsets of the device's reads and writes since the last time.
    fn reached(&self) -> Vec<(u64, usize)> {
        let calls = self.witness.take_all_calls().into_iter();
        let places = calls.filter_map(|call| match call {
            Call::RegionRead { offset, length, .. } => Some((offset, length)),
            Call::RegionWrite { offset, data, .. } => Some((offset, data.len())),
            _ => None,
        });
        places.collect()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Vec<(u64, usize)> {
        self.root.mmio_write(MmioAddress(HOME), offset, data);
        self.reached()
    }

    fn read(&self, offset: u64, data: &mut [u8]) -> Vec<(u64, usize)> {
        self.root.mmio_read(MmioAddress(HOME), offset, data);
        self.reached()
    }

    /// The device's registers at `offset` are reached in accesses as wide as the guest's.
    fn reaches_the_device(&self, offset: u64) {
        for length in [4, 8] {
            let sent: Vec<u8> = (1..=8).take(length).collect();
            assert_eq!(self.write(offset, &sent), [(offset, length)], "{offset:#x}");
            let mut got = vec![0; length];
            assert_eq!(
                self.read(offset, &mut got),
                [(offset, length)],
                "{offset:#x}"
            );
            assert_eq!(got, sent, "{offset:#x}");
        }
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.witness.violations(), Vec::<String>::new());
        }
    }
}

/// Coral's TPU: the driver polls registers around the pending bits, 8 bytes at a time.
#[test]
fn registers_around_the_pending_bits_are_the_devices() {
    let bus = Bus::new(1 << 20, 128, 0x46800, 0x46068);
    let mapped = bus.witness.mapped();
    assert_eq!(mapped, [(2, 0..0x46000), (2, 0x47000..0x10_0000)]);
    for offset in [0x46000, 0x46060, 0x46078, 0x467f8] {
        bus.reaches_the_device(offset);
    }
    // Just before the table, and 8 bytes of which the upper half is in it.
    assert_eq!(bus.write(0x467fc, &[1; 4]), [(0x467fc, 4)]);
    assert_eq!(bus.write(0x467fc, &[2; 8]), [(0x467fc, 4)]);
    let mut entry = [0; 4];
    assert_eq!(bus.read(0x46800, &mut entry), []);
    assert_eq!(entry, [0, 2, 2, 2], "bits 1:0 are 0");
    // One byte before the pending bits and seven in them, which cannot be written.
    assert_eq!(bus.write(0x46067, &[3; 8]), [(0x46067, 1)]);
    assert_eq!(bus.write(0x46067, &[3; 4]), [(0x46067, 1)]);
    bus.witness
        .set_register(Region::Bar(2), 0x46068, &[0x81, 0, 0, 0x40]);
    let mut bytes = [0; 8];
    bus.read(0x46067, &mut bytes);
    assert_eq!(bytes, [3, 0x81, 0, 0, 0x40, 0, 0, 0]);
    // The table, in accesses of both widths.
    for vector in [0, 1, 127] {
        let at = 0x46800 + 16 * vector;
        assert_eq!(bus.write(at, &0xfee0_1000_u64.to_le_bytes()), []);
        assert_eq!(bus.write(at + 8, &[0x21, 0x40, 0, 0]), []);
        let (mut address, mut data) = ([0; 8], [0; 4]);
        assert_eq!(bus.read(at, &mut address), []);
        assert_eq!(bus.read(at + 8, &mut data), []);
        assert_eq!(u64::from_le_bytes(address), 0xfee0_1000);
        assert_eq!(u32::from_le_bytes(data), 0x4021);
    }
}

/// KIOXIA's CD8P: neither starts a page.
#[test]
fn a_table_in_the_middle_of_a_page_leaves_the_rest_to_the_device() {
    let bus = Bus::new(0x10000, 129, 0x5200, 0xd600);
    let mapped = bus.witness.mapped();
    let free = [(2, 0..0x5000), (2, 0x6000..0xd000), (2, 0xe000..0x10000)];
    assert_eq!(mapped, free);
    for offset in [
        0x5000, 0x51f8, 0x5a10, 0x5ff8, 0xd000, 0xd5f8, 0xd618, 0xdff8,
    ] {
        bus.reaches_the_device(offset);
    }
    assert_eq!(bus.write(0x5a08, &[0; 8]), [], "the last entry");
    assert_eq!(bus.write(0xd610, &[0; 8]), [], "the last pending bits");
}

/// Chelsio's T5 VFs and Baidu's Kunlun VF report that.
#[test]
fn pending_bits_outside_of_the_bar_are_no_reason_to_leave_msix_out() {
    let image = DeviceImage::new("pending bits nowhere", 256)
        .bar(0, BarKind::Memory64 { prefetchable: true }, 0x2000, HOME)
        .capability(0x50, 0x11, &[4, 0, 0, 0, 0, 0, 0, 0x80, 0, 0]);
    let mut bench = Bench::new(image);
    assert_eq!(bench.capabilities(), [(0x11, 0x50)]);
    bench.command(MEMORY);
    assert_eq!(bench.witness.mapped(), [(0, 0x1000..0x2000)]);
    bench.write(0x52, &[0, 0x80]);
    bench.bar_write(0, 12, 0);
    assert!(bench.witness.interrupts().unwrap().1[0].is_some());
    // A table there is valid nevertheless.
    let image = DeviceImage::new("table nowhere", 256)
        .bar(0, BarKind::Memory64 { prefetchable: true }, 0x2000, HOME)
        .capability(0x50, 0x11, &[4, 0, 0, 0x80, 0, 0, 0, 0, 0, 0]);
    assert_eq!(Bench::new(image).capabilities(), []);
}
