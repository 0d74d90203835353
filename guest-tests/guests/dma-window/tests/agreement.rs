// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The guest's side against the device: what the walk finds in the BAR, what the registers answer,
//! and the monitor's data are the same for any memory and any address.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::cell::RefCell;

use address::{Bdf, Gpa, Hpa, Iova};
use devices::dma_window::Options;
use devices::guest_table::Piece;
use devices::pci::PciRoot;
use devices::vfio_pci::BusMasterGate;
use devices_testing::dma_window as testing;
use dma_window::{Bars, DmaWindow, EnableError, TranslateError, locate};
use iommufd_backend::extent::Extent;
use proptest::prelude::*;
use software_memory::PinnedMap;
use vm_device::DeviceMmio;
use vm_device::bus::MmioAddress;

const ECAM: u64 = 0xe000_0000;
/// The window is `00:05.0`.
const DEVICE: u8 = 5;
const REGISTERS: u64 = 0xfe00_0000;
const TABLE: u64 = 1 << 48;

/// The guest's accesses to memory, as far as the bus goes.
struct Bus<'a> {
    root: &'a PciRoot,
    base: (Gpa, Gpa),
    /// Reads of the table.
    reads: RefCell<u64>,
}

impl Bus<'_> {
    fn read<const N: usize>(&self, base: u64, offset: u64) -> [u8; N] {
        let mut data = [0; N];
        self.root.mmio_read(MmioAddress(base), offset, &mut data);
        data
    }
}

impl Bars for Bus<'_> {
    fn read_register(&self, offset: u64) -> u32 {
        u32::from_le_bytes(self.read(self.base.0.0, offset))
    }

    fn write_register(&self, offset: u64, value: u32) {
        let base = MmioAddress(self.base.0.0);
        self.root.mmio_write(base, offset, &value.to_le_bytes());
    }

    fn read64(&self, offset: u64) -> u64 {
        *self.reads.borrow_mut() += 1;
        u64::from_le_bytes(self.read(self.base.1.0, offset))
    }
}

fn machine(pieces: &[Piece], gates: &[(Bdf, BusMasterGate)]) -> PciRoot {
    let window = devices::dma_window::DmaWindow::new(Options {
        registers: Gpa(REGISTERS),
        table: testing::table(pieces.iter().copied(), Gpa(TABLE)).unwrap(),
        functions: gates.to_vec(),
    });
    let mut root = PciRoot::new(Gpa(ECAM)).unwrap();
    root.add(DEVICE, 0, Box::new(window.unwrap())).unwrap();
    root
}

/// Finds the window and opens it, as a guest does.
fn open(root: &PciRoot) -> DmaWindow<Bus<'_>> {
    let function = u64::from(DEVICE) << 15;
    let config = |offset: u16| {
        let mut data = [0; 4];
        let offset = function + u64::from(offset);
        root.mmio_read(MmioAddress(ECAM), offset, &mut data);
        u32::from_le_bytes(data)
    };
    let place = locate(config).unwrap();
    root.mmio_write(MmioAddress(ECAM), function + 4, &[2, 0]);
    let bus = Bus {
        root,
        base: (place.registers, place.table),
        reads: RefCell::new(0),
    };
    DmaWindow::open(bus, place.table).unwrap()
}

#[test]
fn functions_become_bus_masters_and_stop() {
    let (known, unknown) = (Bdf::new(0, 0, 6, 2).unwrap(), Bdf::new(0, 0, 6, 3).unwrap());
    let gate = BusMasterGate::closed();
    let root = machine(&[], &[(known, gate.clone())]);
    let mut window = open(&root);
    assert_eq!(
        window.enable(unknown),
        Err(EnableError {
            function: unknown,
            status: 3
        })
    );
    assert!(!gate.is_open());
    assert_eq!(window.enable(known), Ok(()));
    assert!(gate.is_open());
    assert_eq!(window.disable(known), Ok(()));
    assert!(!gate.is_open());
}

#[test]
fn a_walk_reads_no_more_than_it_needs() {
    let piece = |gpa, hpa, len| Piece {
        gpa: Gpa(gpa),
        hpa: Hpa(hpa),
        len,
    };
    let gib = 1 << 30;
    let root = machine(
        &[piece(gib, 8 * gib, gib), piece(0x10_0000, 0x7000, 0x1000)],
        &[],
    );
    let window = open(&root);
    for (gpa, len, reads) in [(gib + 5, 4096, 1), (2 * gib - 1, 2, 2), (0x10_0000, 1, 3)] {
        *window.bars().reads.borrow_mut() = 0;
        window.translate(Gpa(gpa), len).unwrap();
        assert_eq!(*window.bars().reads.borrow(), reads, "{gpa:#x}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn walk_query_and_monitor_agree(
        bytes in proptest::collection::vec(any::<u8>(), 0..120),
        asked in proptest::collection::vec((any::<prop::sample::Index>(), any::<u64>(), 0_u32..64, any::<bool>()), 1..40),
    ) {
        let pieces = testing::pieces(&bytes);
        let extent = |piece: &Piece| Extent::new(Iova(piece.gpa.0), piece.hpa, piece.len).unwrap();
        let mut pinned = PinnedMap::new();
        for piece in &pieces {
            pinned.insert(&[extent(piece)]).unwrap();
        }
        let root = machine(&pieces, &[]);
        let mut window = open(&root);
        for (index, number, shift, is_near) in asked {
            let piece = index.get(&pieces);
            let gpa = if is_near {
                // In the piece and a page to either side.
                (piece.gpa.0 - 0x1000).wrapping_add(number % (piece.len + 0x2000))
            } else {
                number >> shift
            };
            let (gpa, len) = (Gpa(gpa), number >> shift);
            let expected = pinned.translate(Iova(gpa.0), len).ok();
            let expected = expected.ok_or(TranslateError::NotMemory { gpa, len });
            prop_assert_eq!(window.translate(gpa, len), expected, "walk of {:#x} at {}", len, gpa);
            prop_assert_eq!(window.query(gpa, len), expected, "query of {:#x} at {}", len, gpa);
        }
    }
}
