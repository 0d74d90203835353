// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a transfer must be to be started.

use super::*;

fn refused(
    changes: &[(&str, &str)],
    source: u64,
    destination: u64,
    length: u32,
    command: u32,
) -> Option<Reason> {
    let mut device = Device::new(&profile(changes));
    device.program(source, destination, length, command);
    let counts = device.counts();
    assert_eq!(counts.started + counts.refused, 1);
    assert_eq!(device.stores().is_empty(), counts.refused == 1);
    let name = counts.last_refusal.map(|refusal| refusal.reason.name());
    assert!(
        counts
            .refused_for
            .into_iter()
            .eq(name.map(|name| (name, 1)))
    );
    device.refusal()
}

#[test]
fn lengths_and_addresses_have_limits() {
    let window = |address| Some(Reason::Window { address });
    let length = Some(Reason::Length { limit: 0x1000 });
    let end = RAM.end - 0x10;
    let short = Some(Reason::NotContiguous {
        gpa: Gpa(end),
        contiguous: 0x10,
    });
    for ((source, destination, length, command), expected) in [
        ((0x10_0000, 0x8000, 1, 1), None),
        ((0x10_0000, 0x8000, 0x1000, 1), None),
        ((0x10_0000, 0x8fff, 1, 1), None),
        ((0x10_0000, 0x8000, 0, 1), length),
        ((0x10_0000, 0x8000, 0x1001, 1), length),
        ((0x10_0000, 0x8000, u32::MAX, 1), length),
        ((0x10_0000, 0x7fff, 1, 1), window(0x7fff)),
        ((0x10_0000, 0x9000, 1, 1), window(0x9000)),
        ((0x10_0000, 0x8fff, 2, 1), window(0x8fff)),
        ((0x10_0000, u64::MAX, 2, 1), window(u64::MAX)),
        ((0x10_0000, 0x8001, 0x1000, 1), window(0x8001)),
        // The other direction makes the other register the device's.
        ((0x10_0000, 0x8000, 1, 0x101), window(0x10_0000)),
        ((0x8000, 0x10_0000, 1, 0x101), None),
        (
            (0x8000, 0x8000, 1, 1),
            Some(Reason::NotMemory { gpa: Gpa(0x8000) }),
        ),
        (
            (RAM.end, 0x8000, 1, 1),
            Some(Reason::NotMemory { gpa: Gpa(RAM.end) }),
        ),
        ((end, 0x8000, 0x10, 1), None),
        ((end, 0x8000, 0x11, 1), short),
        (
            (u64::MAX, 0x8000, 2, 1),
            Some(Reason::WrapAround { gpa: Gpa(u64::MAX) }),
        ),
        (
            (u64::MAX, 0x8000, 1, 1),
            Some(Reason::NotMemory { gpa: Gpa(u64::MAX) }),
        ),
    ] {
        let refusal = refused(&[], source, destination, length, command);
        let registers = (source, destination, length, command);
        assert_eq!(refusal, expected, "{registers:x?}");
    }
}

#[test]
fn the_device_has_to_reach_the_address() {
    let last = (1 << 31) - 1;
    let bits = [("address_bits = 40", "address_bits = 31")];
    let edge = last + 1 - SHIFT;
    assert!(RAM.contains(&0x10_0000) && edge > RAM.end);
    assert_eq!(refused(&bits, 0x10_0000, 0x8000, 4, 1), None);
    let bits = [("address_bits = 40", "address_bits = 30")];
    let expected = Reason::Unreachable {
        hpa: Hpa(0x7010_0000),
        last: (1 << 30) - 1,
    };
    assert_eq!(refused(&bits, 0x10_0000, 0x8000, 4, 1), Some(expected));
}

#[test]
fn the_last_byte_counts() {
    // All of the guest's memory is below the limit but its last page.
    let translate = |gpa: Gpa, len| {
        Some(Run {
            hpa: Hpa(gpa.0),
            len,
        })
    };
    let (host, _) = SimulatedHost::new(image(), None);
    let options = Options {
        translate: Box::new(translate),
        on_stop: Box::new(|_| {}),
    };
    let text = profile(&[("address_bits = 40", "address_bits = 20")]);
    let profile = Profile::parse("test", &text).unwrap();
    let mut function = MediatedFunction::new(host, profile, options).unwrap();
    let mut start = |address: u64, length: u32| {
        function.region_write(BAR, 0x24, &[0; 4]).unwrap();
        function
            .region_write(BAR, 0x10, &address.to_le_bytes())
            .unwrap();
        function
            .region_write(BAR, 0x18, &0x8000_u64.to_le_bytes())
            .unwrap();
        function
            .region_write(BAR, 0x20, &length.to_le_bytes())
            .unwrap();
        function.region_write(BAR, 0x24, &[1, 0, 0, 0]).unwrap();
        function.counters().read()
    };
    let crossing = start(0xf_fff0, 0x11);
    assert_eq!((crossing.refused, crossing.started), (1, 0));
    assert_eq!(start(0xf_fff0, 0x10).started, 1);
}

#[test]
fn alignment_is_of_addresses_and_length() {
    let four = [("max_length = 0x1000", "max_length = 0x1000\nalignment = 4")];
    for ((source, destination, length), value) in [
        ((0x10_0004, 0x8004, 8), None),
        ((0x10_0002, 0x8004, 8), Some(0x10_0002)),
        ((0x10_0004, 0x8001, 8), Some(0x8001)),
        ((0x10_0004, 0x8004, 6), Some(6)),
    ] {
        let expected = value.map(|value| Reason::Alignment {
            value,
            alignment: 4,
        });
        assert_eq!(refused(&four, source, destination, length, 1), expected);
    }
}

#[test]
fn a_boundary_is_not_crossed_in_host_memory() {
    let boundary = [(
        "max_length = 0x1000",
        "max_length = 0x1000\nboundary = 0x10000",
    )];
    assert_eq!(refused(&boundary, 0x10_fff0, 0x8000, 0x10, 1), None);
    let expected = Reason::Boundary {
        hpa: Hpa(0x10_fff0 + SHIFT),
        boundary: 0x10000,
    };
    assert_eq!(
        refused(&boundary, 0x10_fff0, 0x8000, 0x11, 1),
        Some(expected)
    );
}

#[test]
fn direction_bits_have_two_values() {
    let bits = [(
        "mask = 0x100, to_memory = 0x100",
        "mask = 0x300, to_memory = 0x100",
    )];
    assert_eq!(
        refused(&bits, 0x10_0000, 0x8000, 4, 0x301),
        Some(Reason::Direction)
    );
    assert_eq!(refused(&bits, 0x10_0000, 0x8000, 4, 0x001), None);
}

#[test]
fn lengths_have_units() {
    let scaled = [(
        "length = { register = \"length\" }",
        "length = { register = \"length\", mask = 0xff0, unit = 4, bias = 1 }",
    )];
    let mut device = Device::new(&profile(&scaled));
    device.program(0x10_0000, 0x8000, 0xf00f, 1);
    assert_eq!(device.counts().started, 1, "one word");
    let mut device = Device::new(&profile(&scaled));
    device.program(RAM.end - 4, 0x8000, 0x10, 1);
    let gpa = Gpa(RAM.end - 4);
    assert_eq!(
        device.refusal(),
        Some(Reason::NotContiguous { gpa, contiguous: 4 })
    );
    let huge = [(
        "length = { register = \"length\" }",
        "length = { register = \"length\", unit = 0x7fffffffffffffff, bias = 1 }",
    )];
    let expected = Some(Reason::Length { limit: 0x1000 });
    assert_eq!(refused(&huge, 0x10_0000, 0x8000, u32::MAX, 1), expected);
}

#[test]
fn both_sides_of_a_copy_are_the_guests() {
    let copy = [
        (
            "direction = { register = \"command\", mask = 0x100, to_memory = 0x100, from_memory = 0 }",
            "direction = { fixed = \"memory-to-memory\" }",
        ),
        ("window = { start = 0x8000, length = 0x1000 }", ""),
    ];
    assert_eq!(refused(&copy, 0x10_0000, 0x10_8000, 4, 1), None);
    for (source, destination) in [(0x10_0000, 0x8000), (0x8000, 0x10_0000)] {
        let expected = Some(Reason::NotMemory { gpa: Gpa(0x8000) });
        assert_eq!(refused(&copy, source, destination, 4, 1), expected);
    }
}

#[test]
fn one_side_may_be_memory_always() {
    let sides = [
        ("source = \"source\"", "memory = \"source\""),
        ("destination = \"destination\"", "device = \"destination\""),
    ];
    for command in [1, 0x101] {
        assert_eq!(refused(&sides, 0x10_0000, 0x8000, 4, command), None);
        let expected = Some(Reason::NotMemory { gpa: Gpa(0x8000) });
        assert_eq!(
            refused(&sides, 0x8000, 0x10_0000, 4, command).is_some(),
            expected.is_some()
        );
    }
}

#[test]
fn an_empty_run_is_not_memory() {
    let (host, witness) = SimulatedHost::new(image(), None);
    let options = Options {
        translate: Box::new(|_, _| {
            Some(Run {
                hpa: Hpa(0),
                len: 0,
            })
        }),
        on_stop: Box::new(|_| {}),
    };
    let profile = Profile::parse("test", PROFILE).unwrap();
    let mut function = MediatedFunction::new(host, profile, options).unwrap();
    function
        .region_write(BAR, 0x18, &0x8000_u64.to_le_bytes())
        .unwrap();
    function
        .region_write(BAR, 0x20, &[4, 0, 0, 0, 1, 0, 0, 0])
        .unwrap();
    assert_eq!(function.counters().read().refused, 1);
    assert_eq!(witness.take_calls(), []);
}
