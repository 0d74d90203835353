// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Bits that are no part of a transfer: of busy and status registers, and without a field.

use super::*;

const FROM_MEMORY: u32 = 1;

/// A separate register with busy bits.
const STATUS: (&str, &str) = (
    "[[transfer]]",
    "[[register]]\nname = \"status\"\nbar = 0\noffset = 0x30\nwidth = 4\n\n[[transfer]]",
);
const BUSY: (&str, &str) = (
    "busy = { register = \"command\", mask = 1, value = 1 }",
    "busy = { register = \"status\", mask = 1, value = 1 }",
);

#[test]
fn a_guest_cannot_change_whether_the_device_is_busy() {
    let mut device = Device::new(&profile(&[STATUS, BUSY]));
    device.witness.set_register(BAR, 0x30, &[1]);
    for value in [0, 1, u32::MAX] {
        device.write32(0x30, value);
        device.write(0x30, &value.to_le_bytes()[..1]);
        // Nor in a store of what is behind it.
        device.write64(0x30, value.into());
    }
    device.program(0x10_0000, 0x8000, 4, FROM_MEMORY);
    assert_eq!(device.stores(), []);
    assert_eq!((device.counts().busy, device.counts().ignored), (1, 9));
    assert_eq!(device.read32(0x30), 1);
}

#[test]
fn only_named_bits_of_the_status_pass() {
    let writable = STATUS
        .1
        .replace("width = 4", "width = 4\nwritable = 0x10002");
    let text = profile(&[(STATUS.0, &writable), BUSY]);
    let mut device = Device::new(&text);
    device.write32(0x30, u32::MAX);
    device.write(0x32, &[0xff]);
    device.write(0x31, &[0xff]);
    assert_eq!(device.stores(), [store32(0x30, 0x10002), (0x32, vec![1])]);
    assert_eq!(device.counts().ignored, 1);
}

#[test]
fn bits_that_no_field_names_are_zeros() {
    for (keys, expected) in [
        ("", 0x101),
        ("reserved = \"zero\"", 0x101),
        ("writable = 0x8004", 0x8105),
        ("reserved = \"pass\"", 0x4_810d),
    ] {
        let with = format!("offset = 0x24\nwidth = 4\n{keys}");
        let mut device = Device::new(&profile(&[("offset = 0x24\nwidth = 4", &with)]));
        device.program(0x8000, 0x10_0000, 4, 0x4_810d);
        let last = device.stores().pop();
        assert_eq!(last, Some(store32(0x24, expected)), "{keys}");
    }
    let text = profile(&[(
        "{ register = \"length\" }",
        "{ register = \"length\", mask = 0xffff }",
    )]);
    let mut device = Device::new(&text);
    device.program(0x10_0000, 0x8000, 0xabcd_0004, FROM_MEMORY);
    assert_eq!(device.stores()[2], store32(0x20, 4));
}

#[test]
fn busy_bits_of_the_start_register_never_pass() {
    let pass = "offset = 0x24\nwidth = 4\nreserved = \"pass\"";
    let text = profile(&[
        ("offset = 0x24\nwidth = 4", pass),
        (
            BUSY.0,
            "busy = { register = \"command\", mask = 2, value = 2 }",
        ),
    ]);
    let mut device = Device::new(&text);
    device.program(0x10_0000, 0x8000, 4, FROM_MEMORY | 6);
    assert_eq!(device.stores().pop(), Some(store32(0x24, 5)));
}
