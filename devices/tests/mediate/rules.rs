// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a profile must not contain, or a device would do what was not checked.

use super::profile::{are_refused, error};
use super::*;

#[test]
fn a_start_register_starts_with_its_last_store() {
    const NAME: &str = "name = \"command\"\nbar = 0\noffset = 0x24\nwidth = 4";
    let two = format!("{NAME}\nstore = 2");
    let quarters = format!("{NAME}\nstore = 1");
    let apart = format!("{NAME}\nhigh_offset = 0x40");
    let turned = format!("{apart}\nhigh_first = true");
    let start = |mask: u64, more: &str| {
        format!("start = {{ register = \"command\", mask = {mask}, value = {mask}{more} }}")
    };
    let pass = ", otherwise = \"pass\"";
    let plain = start(1, "");
    let read = |register: &str, start: &str| {
        let text = profile(&[(NAME, register), (&plain, start)]);
        Profile::parse("p", &text)
            .map(|_| ())
            .map_err(|e| e.to_string())
    };
    for (register, start) in [
        (NAME, start(1, pass)),
        (NAME, start(0, "")),
        (NAME, start(0x8000_0001, "")),
        (&two, start(0x8001_0000, "")),
        (&apart, start(0x10000, "")),
        (&turned, start(1, "")),
    ] {
        assert_eq!(read(register, &start), Ok(()), "{register} {start}");
    }
    let command = "Profile p: transfer \"dma\": start: register \"command\" is written in";
    for (register, start, stores, rule) in [
        (&two, start(1, ""), 2, "all bits of the start mask"),
        (&two, start(0x1_0001, ""), 2, "all bits of the start mask"),
        (&apart, start(1, ""), 2, "all bits of the start mask"),
        (&turned, start(0x10000, ""), 2, "all bits of the start mask"),
        (
            &quarters,
            start(0x10000, ""),
            4,
            "all bits of the start mask",
        ),
        (&two, start(0x10000, pass), 2, "otherwise = \"pass\" needs"),
        (&apart, start(0, ""), 2, "mask = 0 starts with each store"),
    ] {
        let expected = Err(format!("{command} {stores} stores: {rule}"));
        let found = read(register, &start);
        let cut = found.map_err(|e| {
            e.chars()
                .take(expected.as_ref().unwrap_err().len())
                .collect()
        });
        assert_eq!(cut, expected, "{register} {start}");
    }
}

#[test]
fn bits_without_a_field_have_rules() {
    are_refused(&[
        ("offset = 0x24", "offset = 0x24\nreserved = \"x\"", ""),
        (
            "offset = 0x24",
            "offset = 0x24\nwritable = 0x100000000",
            "register \"command\": writable: 0x100000000",
        ),
        (
            "offset = 0x24",
            "offset = 0x24\nwritable = 0x3",
            "register \"command\": writable: 0x3 (expected bits of the register that busy",
        ),
        (
            "offset = 0x10",
            "offset = 0x10\nwritable = 0",
            "register \"source\": writable: not for an address",
        ),
        (
            "offset = 0x10",
            "offset = 0x10\nreserved = \"pass\"",
            "register \"source\": reserved: not for an address",
        ),
        ("refusal =", "open_bars = [6]\nrefusal =", "open_bars: 0x6"),
        (
            "width = 8",
            "width = 8\nstore = 4\npartial = \"replace\"",
            "register \"source\": store: partial = \"replace\"",
        ),
        (
            "width = 8",
            "width = 8\naccesses = [1, 4]",
            "register \"source\": accesses: 0x8 (expected widths that include",
        ),
    ]);
    let text = profile(&[
        (
            "[[transfer]]",
            "[[register]]\nname = \"x\"\nbar = 0\noffset = 0\nwidth = 1\n\
             reserved = \"zero\"\n[[transfer]]",
        ),
        (
            "busy = { register = \"command\"",
            "busy = { register = \"x\"",
        ),
    ]);
    let expected = "Profile p.toml: register \"x\": reserved: not for a register of busy";
    assert!(error(&text).starts_with(expected), "{}", error(&text));
}
