// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a refusal looks like.

use super::*;

#[test]
fn a_dropped_start_is_not_seen() {
    let mut device = Device::new(PROFILE);
    device.program(0, 0x8000, 4, 1);
    assert_eq!(device.read32(0x24), 0);
    assert_eq!(device.counts().refused, 1);
}

#[test]
fn all_ones_show_until_the_next_start_or_reset() {
    let text = profile(&[("refusal = \"drop\"", "refusal = \"all-ones\"")]);
    let mut device = Device::new(&text);
    device.program(0, 0x8000, 4, 1);
    assert_eq!(device.read32(0x24), u32::MAX);
    assert_eq!(device.read64(0x20), 0xffff_ffff_0000_0004);
    device.program(0x10_0000, 0x8000, 4, 1);
    assert_eq!(device.read32(0x24), 1);
    device.program(0, 0x8000, 4, 1);
    device.function.reset().unwrap();
    assert_eq!(device.read32(0x24), 0);
}

#[test]
fn a_register_of_its_own_can_show_it() {
    let text = profile(&[
        ("refusal = \"drop\"", "refusal = \"all-ones\""),
        (
            "[[transfer]]",
            "[[register]]\nname = \"status\"\nbar = 0\noffset = 0x30\nwidth = 4\n\n[[transfer]]",
        ),
        ("max_length", "status = \"status\"\nmax_length"),
    ]);
    let mut device = Device::new(&text);
    device.witness.set_register(BAR, 0x30, &[7]);
    device.program(0, 0x8000, 4, 1);
    assert_eq!(device.read32(0x30), u32::MAX);
    assert_eq!(device.read32(0x24), 0);
    device.program(0x10_0000, 0x8000, 4, 1);
    assert_eq!(device.read32(0x30), 7);
}

#[test]
fn stopping_is_asked_for_once_and_nothing_starts_after_it() {
    let text = profile(&[("refusal = \"drop\"", "refusal = \"stop\"")]);
    let mut device = Device::new(&text);
    device.program(0, 0x8000, 4, 1);
    device.program(0x10_0000, 0x8000, 4, 1);
    device.program(0, 0x8000, 4, 1);
    let expected = "test: mediated DMA: DMA of 0x4 bytes refused: GPA 0x0 is not guest memory";
    assert_eq!(*device.stops.lock().unwrap(), [expected]);
    assert_eq!(device.refusal(), Some(Reason::Stopped));
    assert_eq!(device.counts().refused, 3);
    assert_eq!(device.stores(), []);
    device.function.reset().unwrap();
    drop(device.witness.take_calls());
    device.program(0x10_0000, 0x8000, 4, 1);
    assert_eq!(device.counts().started, 1);
}
