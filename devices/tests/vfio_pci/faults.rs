// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The host fails a call: the guest's view and the device stay in step, and the monitor hears of
//! what the guest cannot live with.

use devices::pci::{BarKind, PciFunction, Region, Space};
use devices_testing::{Call, DeviceImage};

use super::{BUS_MASTER, Bench, MEMORY};

const MSIX: u16 = 0x50;
const HOME: u64 = 0xfe00_0000;

fn image() -> DeviceImage {
    DeviceImage::new("faulty", 256)
        .bar(
            0,
            BarKind::Memory32 {
                prefetchable: false,
            },
            0x4000,
            HOME,
        )
        .capability(0x50, 0x11, &[4, 0, 0, 0x20, 0, 0, 0, 0x30, 0, 0])
        .capability(0x40, 0x01, &[3, 0, 8, 0, 0, 0])
}

fn is_command(call: &Call) -> bool {
    matches!(call, Call::ConfigWrite { offset: 4, .. })
}

#[test]
fn a_bar_that_cannot_be_mapped_is_trapped() {
    let mut bench = Bench::new(image());
    bench
        .witness
        .inject(|call| matches!(call, Call::Map { .. }));
    bench.command(MEMORY);
    assert!(bench.function.windows().find(Space::Memory, HOME).is_some());
    bench.bar_write(0, 0, 5);
    assert_eq!(bench.bar_read(0, 0), 5);
    assert_eq!(bench.failures(), Vec::<String>::new(), "slow, not broken");
    bench.command(0);
}

#[test]
fn a_bar_that_cannot_be_unmapped_keeps_decode_on() {
    let mut bench = Bench::new(image());
    bench.command(MEMORY | BUS_MASTER);
    bench
        .witness
        .inject(|call| matches!(call, Call::Unmap { .. }));
    bench.command(0);
    assert_eq!(
        bench.witness.command(),
        MEMORY,
        "bus mastering is off all the same"
    );
    assert_eq!(bench.read(4, 2), 0);
    assert_eq!(bench.failures().len(), 1);
    bench.function.reset();
    assert!(!bench.calls().contains(&Call::Reset));
    bench.witness.heal();
    bench.function.reset();
    assert!(bench.calls().contains(&Call::Reset));
    assert_eq!(bench.witness.command(), 0);
}

#[test]
fn a_command_that_cannot_be_written_decodes_nothing() {
    let mut bench = Bench::new(image());
    bench.witness.inject(is_command);
    bench.command(MEMORY | BUS_MASTER);
    assert_eq!(bench.witness.mapped(), []);
    assert_eq!(bench.function.windows().iter().count(), 0);
    let failures = bench.failures();
    assert!(
        failures[0].starts_with("faulty: cannot write COMMAND: fault"),
        "{failures:?}"
    );
    bench.command(MEMORY);
    assert_eq!(bench.failures(), Vec::<String>::new(), "told once");
    bench.witness.heal();
    bench.command(MEMORY);
    assert_eq!(bench.witness.mapped().len(), 1);
}

#[test]
fn interrupts_that_fail_are_tried_again_and_reported() {
    let mut bench = Bench::new(image());
    bench.command(MEMORY | super::INTX_DISABLE);
    bench
        .witness
        .inject(|call| matches!(call, Call::Enable { .. }));
    bench.write(MSIX + 2, &[0, 0x80]);
    assert_eq!(bench.failures().len(), 1);
    bench.witness.heal();
    bench.bar_write(0, 0x2000 + 12, 0);
    assert_eq!(bench.witness.interrupts().unwrap().1.len(), 1);

    bench.function.reset();
    bench.command(MEMORY | super::INTX_DISABLE);
    bench.write(MSIX + 2, &[0, 0x80]);
    bench
        .witness
        .inject(|call| matches!(call, Call::Connect { .. } | Call::Disable));
    bench.bar_write(0, 0x2000 + 12, 0);
    assert_eq!(bench.failures().len(), 1);
    bench.write(MSIX + 2, &[0, 0]);
    assert!(bench.witness.interrupts().is_some());
    bench.witness.heal();
    bench.command(MEMORY);
    assert_eq!(
        bench.witness.interrupts().unwrap().0,
        devices::vfio_pci::InterruptKind::Intx
    );
}

#[test]
fn a_line_that_the_host_refuses_is_no_failure() {
    let mut bench = Bench::new(image());
    bench
        .witness
        .inject(|call| matches!(call, Call::Enable { .. }));
    bench.command(MEMORY);
    bench.command(MEMORY | BUS_MASTER);
    assert_eq!(bench.failures(), Vec::<String>::new());
    let asked = bench
        .calls()
        .iter()
        .filter(|call| matches!(call, Call::Enable { .. }))
        .count();
    assert_eq!(asked, 1);
    bench.witness.heal();
    bench.function.reset();
    bench.command(MEMORY);
    assert!(
        bench.witness.interrupts().is_some(),
        "asked again after a reset"
    );
}

#[test]
fn failed_accesses_read_as_all_ones() {
    let mut bench = Bench::new(image());
    bench.command(MEMORY);
    bench.witness.inject(|call| !is_command(call));
    assert_eq!(bench.bar_read(0, 0), u32::MAX);
    assert_eq!(bench.bar_read(0, 0x3000), u32::MAX);
    assert_eq!(bench.read(0x90, 4), u32::MAX);
    assert_eq!(bench.read(0, 4), 0xabcd_1234, "from the shadow");
    bench.bar_write(0, 0, 1);
    bench.write(0x0c, &[1]);
    bench.function.bar_write(Region::Bar(0), 8, &[0; 8]);
    bench.write(0x44, &[3, 0]);
    bench.witness.heal();
    assert_eq!(bench.read(0x44, 1), 8, "still in D0");
}

#[test]
fn a_reset_that_fails_still_clears_the_guests_state() {
    let mut bench = Bench::new(image());
    bench.command(MEMORY | BUS_MASTER);
    bench.witness.inject(|call| matches!(call, Call::Reset));
    bench.function.reset();
    assert_eq!(bench.witness.command(), 0);
    assert_eq!(bench.witness.mapped(), []);
    assert_eq!(bench.failures(), Vec::<String>::new());
}
