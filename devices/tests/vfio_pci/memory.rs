// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! BARs: what is mapped when, and what is trapped.

use address::Gpa;
use devices::pci::{BarKind, BusWindows, PciFunction, Region, Space};
use devices::vfio_pci::{BusMasterGate, InterruptKind, Options, PassthroughFunction};
use devices_testing::{Call, DeviceImage};

use super::{BUS_MASTER, Bench, INTX_DISABLE, MEMORY, config_write};

const MEM32: BarKind = BarKind::Memory32 {
    prefetchable: false,
};
const MEM64: BarKind = BarKind::Memory64 { prefetchable: true };
const HOME: u64 = 0x38_0000_0000;

/// 64 KiB with the MSI-X table in the third page, pending bits in the fourth.
fn image() -> DeviceImage {
    let mut image = DeviceImage::new("memory", 256)
        .bar(0, MEM64, 0x10000, HOME)
        .capability(0x50, 0x11, &[4, 0, 0, 0x20, 0, 0, 0, 0x30, 0, 0])
        .capability(0x40, 0x01, &[3, 0, 8, 0, 0, 0]);
    image.info.interrupts[InterruptKind::Intx].count = 0;
    image
}

fn map(bar: u8, area: std::ops::Range<u64>, home: u64) -> Call {
    let gpa = Gpa(home + area.start);
    Call::Map { bar, area, gpa }
}

fn unmap(bar: u8, area: std::ops::Range<u64>) -> Call {
    Call::Unmap { bar, area }
}

#[test]
fn nothing_is_on_before_the_guest_asks() {
    let gate = BusMasterGate::opened();
    let mut image = image();
    image.config[4] = 0x07;
    image.config[0x44] = 3;
    let (host, witness) = devices_testing::SimulatedHost::new(image, Some(gate.clone()));
    let options = Options {
        bus_master: gate,
        interrupt_line: 0,
        bus_windows: BusWindows::default(),
        on_failure: Box::new(|_| {}),
    };
    let function = PassthroughFunction::new(host, options).unwrap();
    assert_eq!(
        witness.take_calls(),
        [config_write(4, 0), config_write(0x44, 0)]
    );
    assert_eq!(function.windows().iter().count(), 0);
    assert_eq!(witness.violations(), Vec::<String>::new());
}

#[test]
fn memory_is_mapped_after_decode_goes_on_and_unmapped_before_it_goes_off() {
    let mut bench = Bench::new(image());
    bench.command(MEMORY);
    let (low, high) = (0..0x2000, 0x4000..0x10000);
    let on = [
        config_write(4, MEMORY),
        map(0, low.clone(), HOME),
        map(0, high.clone(), HOME),
    ];
    assert_eq!(bench.calls(), on);
    bench.command(MEMORY | BUS_MASTER);
    assert_eq!(bench.calls(), [config_write(4, MEMORY | BUS_MASTER)]);
    bench.command(INTX_DISABLE);
    let off = [unmap(0, low), unmap(0, high), config_write(4, INTX_DISABLE)];
    assert_eq!(bench.calls(), off);
    assert_eq!(bench.function.windows().find(Space::Memory, HOME), None);
}

#[test]
fn d3hot_takes_the_bars_away() {
    let mut bench = Bench::new(image());
    bench.command(MEMORY);
    let _ = bench.calls();
    bench.write(0x44, &[3, 0]);
    let off = [
        unmap(0, 0..0x2000),
        unmap(0, 0x4000..0x10000),
        config_write(0x44, 3),
    ];
    assert_eq!(bench.calls(), off);
    assert_eq!(bench.read(0x44, 2), 0x000b);
    assert_eq!(bench.function.windows().iter().count(), 0);
    bench.write(0x44, &[0, 0]);
    let on = [
        config_write(0x44, 0),
        map(0, 0..0x2000, HOME),
        map(0, 0x4000..0x10000, HOME),
    ];
    assert_eq!(bench.calls(), on);
    bench.write(0x44, &[1, 0]);
    assert_eq!(bench.read(0x44, 2), 8, "the device has no D1");
    assert_eq!(bench.witness.mapped().len(), 2);
}

#[test]
fn a_moved_bar_answers_where_the_guest_put_it() {
    let mut bench = Bench::new(image());
    bench.command(MEMORY);
    let _ = bench.calls();
    let find = |bench: &Bench, at| bench.function.windows().find(Space::Memory, at);
    let moved = HOME | 0x1234_0000;
    bench.write(0x10, &0x1234_0000_u32.to_le_bytes());
    assert_eq!(
        bench.calls(),
        [
            unmap(0, 0..0x2000),
            unmap(0, 0x4000..0x10000),
            map(0, 0..0x2000, moved),
            map(0, 0x4000..0x10000, moved)
        ]
    );
    assert_eq!(bench.read(0x10, 4), 0x1234_000c);
    assert_eq!(find(&bench, HOME), None);
    assert_eq!(find(&bench, moved + 0x2000), Some((Region::Bar(0), 0x2000)));
    bench.write(0x10, &0_u32.to_le_bytes());
    assert_eq!(bench.witness.mapped().len(), 2);
    assert!(find(&bench, HOME).is_some());
    // What sizing writes with decode on is no address, and the way back is complete.
    let _ = bench.calls();
    for offset in [0x10, 0x14] {
        let old = bench.read(offset, 4);
        bench.write(offset, &[0xff; 4]);
        assert_eq!(bench.witness.mapped().len(), 0);
        assert_eq!(bench.function.windows().iter().count(), 0);
        bench.write(offset, &old.to_le_bytes());
    }
    assert_eq!(bench.witness.mapped().len(), 2);
}

#[test]
fn io_bars_move_and_are_trapped_at_every_width() {
    let image = DeviceImage::new("ports", 256).bar(2, BarKind::Io, 0x20, 0xc040);
    let mut bench = Bench::new(image);
    assert_eq!(bench.read(0x18, 4), 0xc041);
    bench.command(1);
    let find = |bench: &Bench, port| bench.function.windows().find(Space::Io, port);
    assert_eq!(find(&bench, 0xc044), Some((Region::Bar(2), 4)));
    bench.write(0x18, &0xd000_u32.to_le_bytes());
    assert_eq!(find(&bench, 0xc044), None);
    assert_eq!(find(&bench, 0xd004), Some((Region::Bar(2), 4)));
    let _ = bench.calls();
    for (offset, data) in [(0, &[1_u8][..]), (2, &[2, 3]), (4, &[4, 5, 6, 7])] {
        bench.function.bar_write(Region::Bar(2), offset, data);
        let mut back = vec![0; data.len()];
        bench.function.bar_read(Region::Bar(2), offset, &mut back);
        assert_eq!(back, data);
    }
    assert_eq!(bench.calls().len(), 3);
}

#[test]
fn registers_beside_the_table_work_at_every_width() {
    let image = DeviceImage::new("shared page", 256)
        .bar(0, MEM32, 0x1000, 0xfe00_0000)
        .capability(0x50, 0x11, &[1, 0, 0, 8, 0, 0, 0, 9, 0, 0]);
    let mut bench = Bench::new(image);
    bench.command(MEMORY);
    assert_eq!(bench.witness.mapped(), [], "the page holds the table");
    for offset in [0x7f8, 0x820, 0x908, 0xff8] {
        for width in [1, 2, 4, 8] {
            let data: Vec<u8> = (1..=width).collect();
            bench.function.bar_write(Region::Bar(0), offset, &data);
            let mut back = vec![0; width.into()];
            bench.function.bar_read(Region::Bar(0), offset, &mut back);
            assert_eq!(back, data);
            let write = Call::RegionWrite {
                region: Region::Bar(0),
                offset,
                data,
            };
            assert_eq!(
                bench.calls().last(),
                Some(&write),
                "one access of the same width"
            );
        }
    }
}

#[test]
fn parts_that_cannot_be_mapped_are_trapped() {
    for (ranges, mapped) in [
        (vec![], vec![]),
        (
            vec![0x1000..0x2000, 0x3000..0x4000],
            vec![(0, 0x1000..0x2000), (0, 0x3000..0x4000)],
        ),
    ] {
        let image = DeviceImage::new("sparse", 256)
            .bar(0, MEM32, 0x4000, 0xfe00_0000)
            .mappable(0, &ranges);
        let mut bench = Bench::new(image);
        bench.command(MEMORY);
        assert_eq!(bench.witness.mapped(), mapped);
        bench.bar_write(0, 8, 0x1234);
        assert_eq!(bench.bar_read(0, 8), 0x1234);
    }
}

#[test]
fn small_and_huge_bars_are_mapped_where_they_can_be() {
    let image = DeviceImage::new("sizes", 256)
        .bar(0, MEM32, 0x100, 0xfe00_1100)
        .bar(1, MEM32, 0x100, 0xfe00_2000)
        .bar(2, MEM64, 1 << 33, 0x40_0000_0000);
    let mut bench = Bench::new(image);
    bench.command(MEMORY);
    assert_eq!(bench.witness.mapped(), [(1, 0..0x1000), (2, 0..1 << 33)]);
    assert_eq!(
        bench.function.windows().find(Space::Memory, 0xfe00_1104),
        Some((Region::Bar(0), 4))
    );
    assert_eq!(
        bench.function.windows().find(Space::Memory, 0xfe00_2104),
        None
    );
}

#[test]
fn the_rom_is_read_by_trap_and_never_written() {
    let image = DeviceImage::new("rom", 256).rom(0x10000, 0xfd00_0000);
    let mut bench = Bench::new(image);
    bench.witness.set_register(Region::Rom, 0, &[0x55, 0xaa]);
    bench.command(MEMORY);
    assert_eq!(bench.function.windows().iter().count(), 0, "not enabled");
    bench.write(0x30, &0xfd00_0001_u32.to_le_bytes());
    let window = bench.function.windows().find(Space::Memory, 0xfd00_0000);
    assert_eq!(window, Some((Region::Rom, 0)));
    let mut bytes = [0; 2];
    bench.function.bar_read(Region::Rom, 0, &mut bytes);
    assert_eq!(bytes, [0x55, 0xaa]);
    let _ = bench.calls();
    bench.function.bar_write(Region::Rom, 0, &[0]);
    assert_eq!(bench.calls(), []);
    bench.write(0x30, &[0xff; 4]);
    assert_eq!(bench.read(0x30, 4), 0xffff_0001);
}

#[test]
fn without_a_rom_its_register_sizes_to_nothing() {
    let mut image = DeviceImage::new("no rom", 256);
    image.info.interrupts[InterruptKind::Intx].count = 0;
    let mut bench = Bench::new(image);
    bench.write(0x30, &[0xff; 4]);
    assert_eq!(bench.read(0x30, 4), 0);
    bench.command(MEMORY);
    assert_eq!(bench.function.windows().iter().count(), 0);
    assert_eq!(bench.calls(), [config_write(4, MEMORY)]);
}

/// In hardware its IDs read as 0xffff, which VFIO replaces, and its BARs always answer.
#[test]
fn a_virtual_functions_memory_is_always_on() {
    let mut image = image();
    image.config[..4].copy_from_slice(&[0x86, 0x80, 0xca, 0x10]);
    let mut bench = Bench::new(image);
    bench.witness.hardwire_memory();
    assert_eq!(bench.read(0, 4), 0x10ca_8086);
    assert_eq!(bench.function.windows().iter().count(), 0);
    for _ in 0..2 {
        bench.command(MEMORY | BUS_MASTER);
        assert_eq!(bench.read(4, 2), u32::from(MEMORY | BUS_MASTER));
        assert_eq!(bench.witness.command(), BUS_MASTER);
        assert_eq!(bench.witness.mapped().len(), 2);
        bench.bar_write(0, 0x2800, 7);
        assert_eq!(bench.bar_read(0, 0x2800), 7, "beside the table");
        bench.command(0);
        assert_eq!(bench.witness.mapped(), []);
        bench.command(MEMORY | BUS_MASTER);
        bench.function.reset();
        assert_eq!(bench.witness.command(), 0);
        assert_eq!(bench.read(4, 2), 0);
        assert_eq!(bench.witness.mapped(), []);
        assert_eq!(bench.failures(), Vec::<String>::new());
    }
}

#[test]
fn bars_that_the_host_has_not_placed_are_left_out() {
    let mut image = DeviceImage::new("unplaced", 256)
        .bar(0, MEM32, 0x1000, 0xfe00_0000)
        .bar(1, MEM32, 0x1000, 0xfe00_1000)
        .bar(2, MEM32, 0x1800, 0xfe00_2000);
    image.info.bars[0].host_address = None;
    let mut bench = Bench::new(image);
    for (offset, mask) in [(0x10, 0), (0x14, 0xffff_f000), (0x18, 0)] {
        bench.write(offset, &[0xff; 4]);
        assert_eq!(bench.read(offset, 4), mask);
    }
}

#[test]
fn bus_mastering_waits_for_the_gate() {
    let mut bench = Bench::with_gate(image(), BusMasterGate::closed());
    bench.command(MEMORY | BUS_MASTER);
    assert_eq!(
        bench.read(4, 2),
        u32::from(MEMORY | BUS_MASTER),
        "the guest sees what it wrote"
    );
    assert_eq!(bench.witness.command(), MEMORY);
    bench.gate.open();
    assert_eq!(bench.witness.command(), MEMORY);
    let _ = bench.read(0, 4);
    assert_eq!(bench.witness.command(), MEMORY | BUS_MASTER);
    bench.gate.close();
    bench.write(0x3c, &[1]);
    assert_eq!(bench.witness.command(), MEMORY);
}
