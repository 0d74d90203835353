// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which bits of config space pass.

use devices::pci::{BarKind, BusWindows};
use devices::vfio_pci::{BusMasterGate, Options, PassthroughFunction, SetupError};
use devices_testing::{Call, DeviceImage};

use super::Bench;

fn empty() -> DeviceImage {
    DeviceImage::new("config", 4096)
}

fn write_call(offset: u16, data: &[u8]) -> Call {
    Call::ConfigWrite {
        offset,
        data: data.to_vec(),
    }
}

#[test]
fn the_header_is_the_devices_but_for_what_the_monitor_keeps() {
    let mut image = empty();
    image.config[0x04..0x10]
        .copy_from_slice(&[7, 4, 0x18, 0xa0, 3, 2, 1, 6, 0x10, 0x20, 0x80, 0x8f]);
    image.config[0x28..0x30].copy_from_slice(&[5, 6, 7, 8, 1, 2, 3, 4]);
    image.config[0x3c..0x40].copy_from_slice(&[99, 2, 8, 9]);
    let mut bench = Bench::new(image);
    assert_eq!(bench.read(0x00, 4), 0xabcd_1234);
    assert_eq!(
        bench.read(0x04, 4),
        0xa008_0000,
        "COMMAND clear, no capabilities"
    );
    assert_eq!(bench.read(0x08, 4), 0x0601_0203);
    assert_eq!(bench.read(0x0c, 4), 0x0080_2010, "no BIST");
    assert_eq!(bench.read(0x28, 4), 0, "no CardBus CIS");
    assert_eq!(bench.read(0x2c, 4), 0x0403_0201);
    assert_eq!(bench.read(0x3c, 4), 0x0908_010a);
    let _ = bench.calls();
    bench.write(0x04, &[0, 0, 0xff, 0xff]);
    bench.write(0x0c, &[8, 9, 0xff, 0xff]);
    bench.write(0x00, &[0; 4]);
    bench.write(0x2c, &[0; 4]);
    bench.write(0x3c, &[5, 6, 7, 8]);
    assert_eq!(
        bench.calls(),
        [write_call(4, &[0, 0]), write_call(0x0c, &[8, 9])]
    );
    assert_eq!(bench.read(0x3c, 4), 0x0908_0105);
}

#[test]
fn gaps_are_the_devices_own() {
    let mut image = empty().capability(0x40, 0x0d, &[0, 0, 1, 2, 3, 4]);
    image.config[0x90] = 0x5a;
    image.config[0x200] = 0xa5;
    let mut bench = Bench::new(image);
    assert_eq!(bench.read(0x90, 1), 0x5a);
    assert_eq!(bench.read(0x200, 4), 0xa5);
    for offset in (0x40..0x48).step_by(4) {
        bench.write(offset, &[0xff; 4]);
    }
    assert_eq!(bench.calls(), [], "a capability that is read-only");
    // As drivers do it: tg3, be2net, UHCI's, r8169.
    for (offset, data) in [
        (0x68, &[1, 2, 3, 4][..]),
        (0x7c, &[5, 6, 7, 8]),
        (0xfc, &[9; 4]),
        (0xc0, &[0, 0x20]),
        (0x70f, &[0x17]),
    ] {
        bench.write(offset, data);
        assert_eq!(bench.calls(), [write_call(offset, data)]);
        let place = usize::from(offset)..usize::from(offset) + data.len();
        assert_eq!(bench.witness.config(place), data);
    }
}

#[test]
fn what_a_hidden_capability_has_is_not_written() {
    let image = empty()
        // HyperTransport, an unknown one, and a second of a kind; gaps behind them.
        .capability(0x40, 0x08, &[0, 0, 1, 2, 3, 4])
        .capability(0x60, 0x30, &[0, 0])
        .capability(0x70, 0x01, &[3, 0, 0, 0, 0, 0])
        .capability(0x80, 0x01, &[3, 0, 0, 0, 0, 0])
        // SR-IOV, ATS, and an unknown one.
        .extended(0x100, 0x10, 0x140, &[0; 0x3c])
        .extended(0x140, 0x0f, 0x180, &[0; 4])
        .extended(0x180, 0x7f, 0x200, &[0; 4])
        .extended(0x200, 0x03, 0, &[0; 8]);
    let mut bench = Bench::new(image);
    let hidden = [
        (0x40..0x5c),
        (0x60..0x70),
        (0x70..0x78),
        (0x80..0x88),
        (0x100..0x148),
        (0x180..0x20c),
    ];
    for offset in (0x40..0x1000_u16).step_by(4) {
        bench.write(offset, &[0xf0; 4]);
        let is_hidden = hidden.iter().any(|range| range.contains(&offset));
        assert_eq!(bench.calls().is_empty(), is_hidden, "{offset:#x}");
    }
}

#[test]
fn hidden_capabilities_leave_no_trace_in_the_lists() {
    let image = empty()
        .capability(0x40, 0x08, &[0, 0])
        .capability(0x50, 0x0d, &[0, 0])
        .capability(0x60, 0x14, &[0, 0])
        .extended(0x100, 0x10, 0x140, &[1; 8])
        .extended(0x140, 0x03, 0x180, &[2; 8])
        .extended(0x180, 0x0f, 0x1c0, &[3; 4])
        .extended(0x1c0, 0x04, 0, &[0; 12]);
    let mut bench = Bench::new(image);
    assert_eq!(bench.capabilities(), [(0x0d, 0x50)]);
    assert_eq!(bench.extended(), [(0x03, 0x140), (0x04, 0x1c0)]);
    assert_eq!(bench.read(0x100, 4), 0x140 << 20, "an anchor");
    assert_eq!(bench.read(0x60, 2), 0);
    assert_eq!(bench.read(0x180, 4), 0);

    let mut none = Bench::new(empty().extended(0x100, 0x10, 0, &[]));
    assert_eq!(none.read(0x100, 4), 0);
    let mut conventional = Bench::new(DeviceImage::new("conventional", 256));
    assert_eq!(conventional.read(0x100, 4), u32::MAX);
    conventional.write(0x100, &[0; 4]);
}

#[test]
fn writes_are_cut_to_what_may_pass() {
    let mut express = [0; 0x3a];
    express[0] = 2;
    let image = empty()
        .capability(0x40, 0x10, &express)
        .capability(0x80, 0x09, &[0x0c, 1, 2, 3])
        .capability(0x90, 0x03, &[0; 6])
        .capability(0xa0, 0x01, &[3, 0xfe, 8, 0, 0, 0])
        .extended(0x100, 0x01, 0x140, &[0; 0x28])
        .extended(0x140, 0x04, 0, &[0; 12]);
    for (offset, data, calls) in [
        // Device Control without FLR, phantom functions, No-Snoop and extended tags; not Status.
        (0x48, &[0xff; 4][..], vec![write_call(0x48, &[0xff, 0x70])]),
        (0x49, &[0xff], vec![write_call(0x49, &[0x70])]),
        (0x4a, &[0xff, 0xff], vec![]),
        (0x50, &[0xff; 4], vec![]),
        (0x68, &[0xff; 4], vec![write_call(0x68, &[0x5f, 0x03])]),
        // A vendor's bytes, not the header before them.
        (0x80, &[0xff; 4], vec![write_call(0x82, &[0xff, 0xff])]),
        (0x88, &[1, 2, 3, 4], vec![write_call(0x88, &[1, 2, 3, 4])]),
        (0x90, &[0, 0, 4, 0x80], vec![write_call(0x92, &[4, 0x80])]),
        (0x94, &[1, 2, 3, 4], vec![write_call(0x94, &[1, 2, 3, 4])]),
        // The power state does not change, the rest is not the guest's.
        (0xa4, &[0, 0xff, 0xff, 0xff], vec![]),
        (0x104, &[0xff; 4], vec![write_call(0x104, &[0xff; 4])]),
        (0x118, &[0xff; 4], vec![]),
        (0x144, &[5, 6, 7, 8], vec![write_call(0x144, &[5])]),
    ] {
        let mut bench = Bench::new(image.clone());
        bench.write(offset, data);
        assert_eq!(bench.calls(), calls, "{offset:#x}");
    }
    let mut bench = Bench::new(image);
    assert_eq!(bench.read(0xa0, 4) >> 16, 0x0603, "no PME#");
    let reads = |bench: &mut Bench, offset, length| {
        let _ = bench.witness.take_all_calls();
        bench.read(offset, length);
        bench.witness.take_all_calls()
    };
    let read = |offset, length| vec![Call::ConfigRead { offset, length }];
    assert_eq!(
        reads(&mut bench, 0x84, 4),
        read(0x84, 4),
        "as wide as the guest's"
    );
    assert_eq!(reads(&mut bench, 0x85, 1), read(0x85, 1));
    assert_eq!(reads(&mut bench, 0x00, 4), vec![]);
}

#[test]
fn an_endpoint_becomes_an_integrated_endpoint_without_a_link() {
    for (flags, shown) in [
        (0x0002, 0x0092),
        (0x0012, 0x0092),
        (0x0192, 0x0092),
        (0x3e91_u16, 0x3e91),
    ] {
        let mut express = [0xff; 0x3a];
        express[..2].copy_from_slice(&flags.to_le_bytes());
        express[6..8].fill(0);
        let mut bench = Bench::new(empty().capability(0x40, 0x10, &express));
        assert_eq!(bench.read(0x42, 2), shown);
        // An integrated endpoint of version 1 ends before.
        let link = if flags & 0xff == 0x91 { u32::MAX } else { 0 };
        assert_eq!(bench.read(0x4c, 4), link, "link capabilities");
        assert_eq!(bench.read(0x50, 4), link, "link control and status");
        if flags & 0xf == 2 {
            assert_eq!(bench.read(0x64, 4) & 0xc_0800, 0, "no LTR, no OBFF");
            // An integrated endpoint ends before.
            let link = if flags >> 4 & 0xf == 9 { u32::MAX } else { 0 };
            assert_eq!(bench.read(0x6c, 4), link, "link capabilities 2");
        } else {
            assert_eq!(bench.read(0x64, 4), u32::MAX, "version 1 ends before");
        }
    }
}

/// Version 1 ends before the link registers there, version 2 before those of the slot.
#[test]
fn the_express_capability_of_an_integrated_endpoint_is_shorter() {
    for (flags, length) in [(0x91, 0x0c_u8), (0x01, 0x14), (0x92, 0x2c), (0x02, 0x34)] {
        let mut express = [0; 8];
        (express[0], express[7]) = (flags, 0x28);
        // MSI where it ends, once just behind and once a dword too early.
        for (at, shown) in [(0x60 + length, true), (0x60 + length - 4, false)] {
            let image = empty()
                .capability(0x60, 0x10, &express)
                .capability(at, 0x05, &[0x80, 0]);
            let mut bench = Bench::new(image);
            let ids = bench.capabilities();
            let is_shown = ids.contains(&(0x10, 0x60));
            assert_eq!(is_shown, shown, "{flags:#x} and MSI at {at:#x}");
            // No-Snoop, set by the host, goes whether the guest sees the register or not.
            assert_eq!(bench.witness.config(0x69..0x6a)[0] & 8, 0);
        }
    }
}

#[test]
fn wrong_lengths_cannot_reach_other_capabilities() {
    // A vendor's capability that claims to contain MSI and MSI-X.
    let image = empty()
        .bar(
            0,
            BarKind::Memory32 {
                prefetchable: false,
            },
            0x4000,
            0xfe00_0000,
        )
        .capability(0x60, 0x11, &[1, 0, 0, 0x20, 0, 0, 0, 0x30, 0, 0])
        .capability(0x50, 0x05, &[0x80, 0])
        // HyperTransport, whose bytes are the host's alone.
        .capability(0xa0, 0x08, &[0, 0])
        .capability(0x40, 0x09, &[0xff])
        .extended(0x100, 0x0b, 0x120, &[0, 0, 0xf0, 0xff])
        .extended(0x120, 0x10, 0, &[0; 8]);
    let mut bench = Bench::new(image);
    assert_eq!(bench.capabilities(), [(9, 0x40), (5, 0x50), (0x11, 0x60)]);
    for offset in (0x40..0x70).step_by(4) {
        bench.write(offset, &[0xfe; 4]);
    }
    assert_eq!(bench.read(0x60, 4), 0xc001_0011, "MSI-X works");
    let _ = bench.calls();
    for offset in (0xa0..0xbc).step_by(4).chain((0x120..0x160).step_by(4)) {
        bench.write(offset, &[0xff; 4]);
    }
    assert_eq!(bench.calls(), []);
}

#[test]
fn capabilities_that_run_past_the_end_are_hidden() {
    for (offset, id) in [
        (0xf8, 0x05),
        (0xfc, 0x01),
        (0xf8, 0x11),
        (0xf0, 0x10),
        (0xfc, 0x03),
    ] {
        let image = empty()
            .capability(offset, id, &[0x80, 0])
            .extended(0x100, 0x03, 0, &[0; 8]);
        let mut bench = Bench::new(image);
        assert_eq!(bench.capabilities(), [], "{id:#x}");
        bench.write(0x100, &[0xff; 4]);
        assert_eq!(bench.calls(), []);
        assert_eq!(bench.extended(), [(0x03, 0x100)]);
    }
    let image = empty()
        .extended(0xff8, 0, 0, &[])
        .extended(0x100, 0x0b, 0xffc, &[0; 4]);
    let mut last = Bench::new(image.extended(0xffc, 0x0b, 0, &[]));
    assert_eq!(last.extended(), [(0x0b, 0x100), (0x0b, 0xffc)]);
}

#[test]
fn a_second_of_a_kind_is_hidden() {
    let image = empty()
        .capability(0x40, 0x01, &[3, 0, 0, 0, 0, 0])
        .capability(0x50, 0x01, &[3, 0, 0, 0, 0, 0])
        .capability(0x60, 0x05, &[0, 0])
        .capability(0x70, 0x05, &[0, 0])
        .capability(0x80, 0x09, &[4])
        .capability(0x88, 0x09, &[4]);
    let mut bench = Bench::new(image);
    assert_eq!(
        bench.capabilities(),
        [(9, 0x88), (9, 0x80), (5, 0x70), (1, 0x50)]
    );
}

#[test]
fn devices_that_are_no_endpoints_are_refused() {
    let setup = |image: DeviceImage| {
        let (host, witness) = devices_testing::SimulatedHost::new(image, None);
        witness.inject(|call| matches!(call, Call::ConfigRead { offset: 0x80, .. }));
        let options = Options {
            bus_master: BusMasterGate::opened(),
            interrupt_line: 0,
            bus_windows: BusWindows::default(),
            on_failure: Box::new(|_| {}),
        };
        PassthroughFunction::new(host, options)
            .map(|_| ())
            .unwrap_err()
    };
    assert!(matches!(
        setup(empty()),
        SetupError::Config { offset: 0, .. }
    ));
    let mut image = DeviceImage::new("odd size", 256);
    image.info.config_size = 64;
    assert!(matches!(
        setup(image),
        SetupError::ConfigSize { size: 64, .. }
    ));

    let refuse = |at: usize, value| {
        let mut image = empty();
        image.config[at..at + 2].fill(value);
        let (host, _) = devices_testing::SimulatedHost::new(image, None);
        let options = Options {
            bus_master: BusMasterGate::opened(),
            interrupt_line: 0,
            bus_windows: BusWindows::default(),
            on_failure: Box::new(|_| {}),
        };
        PassthroughFunction::new(host, options)
            .map(|_| ())
            .unwrap_err()
    };
    assert!(matches!(refuse(0, 0xff), SetupError::Silent { .. }));
    assert!(matches!(
        refuse(0x0e, 0x81),
        SetupError::NotEndpoint { header_type: 1, .. }
    ));
}
