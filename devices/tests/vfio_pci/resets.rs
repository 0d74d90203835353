// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Resets that the guest asks for, and the restart of the guest.

use devices::pci::{BarKind, PciFunction};
use devices::vfio_pci::InterruptKind;
use devices_testing::{Call, DeviceImage};

use super::{BUS_MASTER, Bench, MEMORY, config_write};

const EXPRESS: u16 = 0x70;
const AF: u16 = 0x60;
const MSIX: u16 = 0x50;
const PM: u16 = 0x40;

fn image(flr: bool, soft_reset: bool) -> DeviceImage {
    let no_soft_reset = if soft_reset { 0 } else { 8 };
    let mut express = [0; 0x2c];
    express[..2].copy_from_slice(&[2, 0]);
    // Device Capabilities: FLR; Device Control: No-Snoop and relaxed ordering.
    express[5] = if flr { 0x10 } else { 0 };
    express[6..8].copy_from_slice(&[0x10, 0x28]);
    let mut image = DeviceImage::new("resets", 256)
        .bar(
            0,
            BarKind::Memory32 {
                prefetchable: false,
            },
            0x4000,
            0xfe00_0000,
        )
        .capability(0x70, 0x10, &express)
        .capability(0x60, 0x13, &[6, if flr { 3 } else { 1 }, 0, 0])
        .capability(0x50, 0x11, &[4, 0, 0, 0x20, 0, 0, 0, 0x30, 0, 0])
        .capability(0x40, 0x01, &[3, 0, no_soft_reset, 0, 0, 0]);
    image.info.interrupts[InterruptKind::Intx].count = 0;
    image
}

/// A device in full use, its BAR moved.
fn busy(image: DeviceImage) -> Bench {
    let mut bench = Bench::new(image);
    bench.command(MEMORY | BUS_MASTER);
    bench.write(MSIX + 2, &[0, 0x80]);
    bench.bar_write(0, 0x2000 + 12, 0);
    bench.write(0x3c, &[77]);
    let _ = bench.calls();
    bench
}

fn assert_reset(bench: &mut Bench) {
    assert_eq!(bench.read(4, 2), 0);
    assert_eq!(bench.witness.command(), 0);
    assert_eq!(bench.read(MSIX + 2, 2), 4);
    assert_eq!(bench.read(0x3c, 1), 10);
    assert_eq!(bench.read(0x10, 4), 0xfe00_0000);
    assert_eq!(bench.witness.interrupts(), None);
    assert_eq!(bench.witness.mapped(), []);
    assert_eq!(bench.function.windows().iter().count(), 0);
    bench.command(MEMORY);
    assert_eq!(bench.bar_read(0, 0x2000 + 12), 1, "vectors are masked");
}

#[test]
fn every_way_to_ask_resets_device_and_guest_state() {
    let ask: [fn(&mut Bench); 3] = [
        |bench| bench.write(EXPRESS + 8, &[0x10, 0x80]),
        |bench| bench.write(AF + 4, &[1]),
        |bench| bench.function.reset(),
    ];
    for ask in ask {
        let mut bench = busy(image(true, false));
        ask(&mut bench);
        let calls = bench.calls();
        let unmap = |area| Call::Unmap { bar: 0, area };
        assert_eq!(
            calls[..4],
            [
                unmap(0..0x2000),
                Call::Disable,
                config_write(4, 0),
                Call::Reset
            ]
        );
        assert_reset(&mut bench);
        assert_eq!(
            bench.read(EXPRESS + 8, 2) & 0x800,
            0,
            "the reset had set No-Snoop Enable"
        );
        assert_eq!(bench.witness.config(0x78..0x7a)[1] & 8, 0);
    }
}

#[test]
fn a_moved_bar_comes_home() {
    let mut bench = busy(image(true, false));
    bench.write(0x10, &0x1000_0000_u32.to_le_bytes());
    bench.function.reset();
    assert_reset(&mut bench);
}

#[test]
fn without_the_capability_nothing_is_reset() {
    let mut bench = busy(image(false, false));
    bench.write(EXPRESS + 8, &[0x10, 0x80]);
    bench.write(AF + 4, &[1]);
    assert!(!bench.calls().contains(&Call::Reset));
    assert_eq!(bench.read(4, 2), u32::from(MEMORY | BUS_MASTER));
}

/// The kernel may override the device's claim of a function reset (quirk_no_flr).
#[test]
fn a_reset_that_the_host_cannot_do_is_not_offered() {
    let mut image = image(true, false);
    image.info.resettable = false;
    let mut bench = busy(image);
    assert_eq!(
        bench.read(EXPRESS + 4, 4) & 1 << 28,
        0,
        "Device Capabilities"
    );
    assert_eq!(bench.read(AF + 3, 1), 1, "AF Capabilities");
    bench.write(EXPRESS + 8, &[0x10, 0x80]);
    bench.write(AF + 4, &[1]);
    assert_eq!(bench.calls(), [config_write(EXPRESS + 8, 0x10)]);
    assert_eq!(bench.read(4, 2), u32::from(MEMORY | BUS_MASTER));
}

/// Without the monitor: No-Snoop Enable is 1 after it, and the guest restores its own value.
#[test]
fn no_snoop_goes_again_after_a_reset_of_the_devices_own() {
    let mut bench = busy(image(true, false));
    bench.witness.set_config(usize::from(EXPRESS) + 9, 0x28);
    bench.write(EXPRESS + 8, &[0x1f, 0x20]);
    let [low, high] = [0, 1].map(|at| bench.witness.config(0x78..0x7a)[at]);
    assert_eq!((low, high & 0x0f), (0x1f, 0));
}

#[test]
fn a_reset_that_fails_leaves_the_power_state_to_the_device() {
    let mut bench = busy(image(true, false));
    bench.write(PM + 4, &[3, 0]);
    bench
        .witness
        .inject(|call| *call == Call::Reset || *call == config_write(PM + 4, 0));
    bench.function.reset();
    bench.witness.heal();
    bench.command(MEMORY);
    assert_eq!(bench.witness.mapped(), [], "it sleeps");
    assert_eq!(bench.function.windows().iter().count(), 0);
    bench.write(PM + 4, &[0, 0]);
    assert_eq!(bench.witness.mapped().len(), 1, "the guest can wake it");
}

#[test]
fn leaving_d3hot_is_a_reset_if_the_device_reports_it() {
    for soft_reset in [false, true] {
        let mut bench = busy(image(true, soft_reset));
        bench.write(PM + 4, &[3, 0]);
        bench.write(PM + 4, &[0, 0]);
        assert!(
            !bench.calls().contains(&Call::Reset),
            "the device does it by itself"
        );
        if soft_reset {
            assert_reset(&mut bench);
        } else {
            assert_eq!(bench.witness.command(), MEMORY | BUS_MASTER);
            assert_eq!(bench.witness.mapped().len(), 1);
            assert!(bench.witness.interrupts().is_some());
        }
    }
}

/// VFIO gives a device that loses its state in D3hot the COMMAND back that it had on the way there.
#[test]
fn bus_mastering_of_before_d3hot_does_not_come_back_with_a_reset() {
    let mut bench = busy(image(true, true));
    bench.write(PM + 4, &[3, 0]);
    bench.command(0);
    bench.function.reset();
    assert_eq!(bench.witness.command(), 0);
    let calls = bench.calls();
    let at = |wanted: Call| calls.iter().position(|call| *call == wanted);
    let woken = at(config_write(PM + 4, 0)).unwrap();
    assert!(woken < at(Call::Reset).unwrap(), "{calls:?}");
    assert_eq!(bench.failures(), Vec::<String>::new());
}

#[test]
fn a_device_that_is_bus_master_after_its_reset_is_reported() {
    let mut bench = busy(image(true, false));
    let mut resets = 0;
    bench.witness.inject(move |call| {
        resets += u32::from(*call == Call::Reset);
        resets > 0 && *call == config_write(4, 0)
    });
    bench.function.reset();
    assert_eq!(bench.failures().len(), 1);
}

#[test]
fn a_reset_ends_d3hot() {
    let mut bench = busy(image(true, false));
    bench.write(PM + 4, &[3, 0]);
    bench.function.reset();
    assert_reset(&mut bench);
    assert_eq!(bench.witness.mapped().len(), 1);
}
