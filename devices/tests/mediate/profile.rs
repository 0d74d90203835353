// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which profiles are accepted, and the errors for the others.

use devices::mediate::{ON_REQUEST, SHIPPED};

use super::*;

pub(super) fn error(text: &str) -> String {
    let error = Profile::parse("p.toml", text).unwrap_err();
    let source = std::error::Error::source(&error);
    format!(
        "{error}{}",
        source
            .map(|source| format!(": {source}"))
            .unwrap_or_default()
    )
}

#[test]
fn shipped_profiles_are_profiles() {
    for (name, text) in SHIPPED.iter().chain(ON_REQUEST) {
        assert_eq!(Profile::parse(name, text).unwrap().name(), *name);
        assert_eq!(Profile::shipped(name).unwrap().unwrap().name(), *name);
    }
    assert!(Profile::shipped("edu.toml").unwrap().is_none());
}

#[test]
fn the_profiles_for_edu_differ_in_name_and_address_bits_only() {
    let keys = |text: &str| {
        let (_, keys) = text.split_once("version = 1").unwrap();
        keys.to_owned()
    };
    let ([(_, edu)], [(_, edu64)]) = (SHIPPED, ON_REQUEST) else {
        panic!("other profiles");
    };
    let wide = keys(edu).replacen("\"edu\"", "\"edu64\"", 1).replacen(
        "address_bits = 28",
        "address_bits = 64",
        1,
    );
    assert_eq!(wide, keys(edu64));
}

#[test]
fn descriptors_have_to_be_denied() {
    let text = profile(&[(
        "descriptors_in_memory = false",
        "descriptors_in_memory = true",
    )]);
    assert!(error(&text).starts_with("Profile p.toml: descriptors_in_memory: a device that"));
    let text = profile(&[("descriptors_in_memory = false\n", "")]);
    assert!(error(&text).contains("missing field `descriptors_in_memory`"));
}

#[test]
fn keys_that_are_not_known_are_errors() {
    for (before, key) in [
        ("refusal =", "colour = 1\n"),
        ("bar = 0", "colour = 1\n"),
        ("max_length", "colour = 1\n"),
    ] {
        let text = profile(&[(before, &format!("{key}{before}"))]);
        assert!(
            error(&text).contains("unknown field `colour`"),
            "{}",
            error(&text)
        );
    }
    let text = profile(&[(
        "mask = 1, value = 1 }\nbusy",
        "mask = 1, value = 1, x = 1 }\nbusy",
    )]);
    assert!(error(&text).contains("unknown field `x`"));
}

#[test]
fn large_numbers_are_read() {
    let text = profile(&[(
        "start = 0x8000, length = 0x1000",
        "start = 0xffffffffffffff00, length = 0x100",
    )]);
    assert!(Profile::parse("p", &text).is_ok(), "{}", error(&text));
}

#[test]
fn each_wrong_value_is_named() {
    let cases: &[(&str, &str, &str)] = &[
        (
            "version = 1",
            "version = 2",
            "version: 2 (expected version 1)",
        ),
        (
            "name = \"test\"",
            "name = \"a b\"",
            "name: \"a b\" (expected",
        ),
        (
            "[{ vendor = 0x1234, device = 0xabcd }]",
            "[]",
            "devices: 0 entries (expected 1 to 64)",
        ),
        (
            "name = \"destination\"",
            "name = \"source\"",
            "register \"source\": name: the name is already in use",
        ),
        (
            "bar = 0",
            "bar = 6",
            "register \"source\": bar: 0x6 (expected 0 to 5)",
        ),
        (
            "offset = 0x10\n",
            "offset = 0x10000000000000\n",
            "register \"source\": offset: 0x10000000000000 (exp",
        ),
        (
            "offset = 0x10\n",
            "offset = 0x12\n",
            "register \"source\": offset: 0x12 (expected a multiple of the",
        ),
        (
            "offset = 0x18\n",
            "offset = 0x10\n",
            "register \"destination\": overlaps register \"source\"",
        ),
        (
            "width = 4",
            "width = 3",
            "register \"length\": width: 0x3 (expected 1, 2, 4 or 8)",
        ),
        (
            "width = 8",
            "width = 8\nstore = 3",
            "register \"source\": store: 0x3",
        ),
        (
            "width = 8",
            "width = 8\nstore = 0",
            "register \"source\": store: 0x0",
        ),
        (
            "width = 8",
            "width = 8\naccesses = [3]",
            "register \"source\": accesses: 0x3",
        ),
        (
            "width = 8",
            "width = 8\nhigh_first = true",
            "register \"source\": high_first: only for",
        ),
        (
            "width = 8",
            "width = 8\nhigh_offset = 0x24",
            "register \"command\": overlaps register \"source\"",
        ),
        (
            "width = 8",
            "width = 8\nhigh_offset = 0x40\npartial = \"replace\"",
            "register \"source\": partial: ",
        ),
        (
            "width = 4",
            "width = 1\nhigh_offset = 0x40",
            "register \"length\": width: 0x1 (expected 2, 4",
        ),
        (
            "source = \"source\"",
            "source = \"sauce\"",
            "transfer \"dma\": source: no register is named \"sauce\"",
        ),
        (
            "source = \"source\"",
            "source = \"destination\"",
            "transfer \"dma\": destination: register \"destination\" has",
        ),
        (
            "source = \"source\"",
            "source = \"command\"",
            "transfer \"dma\": source: register \"command\" has",
        ),
        (
            "source = \"source\"\n",
            "",
            "transfer \"dma\": source: either source and destination",
        ),
        (
            "source = \"source\"",
            "source = \"source\"\ndevice = \"length\"",
            "transfer \"dma\": source: either",
        ),
        (
            "[[transfer]]",
            "[[register]]\nname = \"x\"\nbar = 1\noffset = 0\nwidth = 1\n[[transfer]]",
            "register \"x\": no transfer uses it",
        ),
        (
            "{ register = \"length\" }",
            "{ fixed = 4 }",
            "register \"length\": no transfer uses it",
        ),
        (
            "{ register = \"length\" }",
            "{ fixed = 0 }",
            "transfer \"dma\": length: 0x0 (expected at least 1)",
        ),
        (
            "{ register = \"length\" }",
            "{}",
            "transfer \"dma\": length: either fixed alone",
        ),
        (
            "{ register = \"length\" }",
            "{ register = \"length\", mask = 0 }",
            "transfer \"dma\": length: 0x0",
        ),
        (
            "{ register = \"length\" }",
            "{ register = \"length\", unit = 0 }",
            "transfer \"dma\": length: 0x0",
        ),
        (
            "{ register = \"length\" }",
            "{ register = \"length\", mask = 0x100000000 }",
            "transfer \"dma\": length: 0x100000000",
        ),
        (
            "{ register = \"length\" }",
            "{ register = \"source\" }",
            "transfer \"dma\": length: register \"source\" has",
        ),
        (
            "to_memory = 0x100",
            "to_memory = 0x200",
            "transfer \"dma\": direction: 0x200 (expected a value within",
        ),
        (
            "to_memory = 0x100",
            "to_memory = 0",
            "transfer \"dma\": direction: 0x0 (expected different",
        ),
        (
            ", from_memory = 0",
            "",
            "transfer \"dma\": direction: either fixed",
        ),
        (
            "mask = 1, value = 1 }\nbusy",
            "mask = 1, value = 2 }\nbusy",
            "transfer \"dma\": start: 0x2",
        ),
        (
            "busy = { register = \"command\", mask = 1, value = 1 }",
            "",
            "transfer \"dma\": busy: a device that reads",
        ),
        (
            "max_length",
            "latched_at_start = true\nmax_length",
            "transfer \"dma\": busy: a device that reads",
        ),
        (
            "busy = { register = \"command\", mask = 1, value = 1 }",
            "busy = { register = \"length\", mask = 1, value = 1 }",
            "transfer \"dma\": busy: register \"length\" has",
        ),
        (
            "busy = { register = \"command\", mask = 1, value = 1 }",
            "busy = { register = \"command\", mask = 0, value = 0 }",
            "transfer \"dma\": busy: 0x0",
        ),
        (
            "max_length",
            "status = \"command\"\nmax_length",
            "transfer \"dma\": status: only with",
        ),
        (
            "max_length = 0x1000",
            "max_length = 0",
            "transfer \"dma\": max_length: 0x0",
        ),
        (
            "max_length",
            "alignment = 3\nmax_length",
            "transfer \"dma\": alignment: 0x3",
        ),
        (
            "max_length",
            "alignment = 0x2000\nmax_length",
            "transfer \"dma\": alignment: 0x2000",
        ),
        (
            "max_length",
            "boundary = 0x3000\nmax_length",
            "transfer \"dma\": boundary: 0x3000",
        ),
        (
            "address_bits = 40",
            "address_bits = 65",
            "transfer \"dma\": address_bits: 0x41",
        ),
        (
            "address_bits = 40",
            "address_bits = 0",
            "transfer \"dma\": address_bits: 0x0",
        ),
        (
            "width = 8",
            "width = 4",
            "transfer \"dma\": address_bits: 0x28 (expected 1 to the bits",
        ),
        (
            "window = { start = 0x8000, length = 0x1000 }",
            "",
            "transfer \"dma\": window: required if",
        ),
        (
            "length = 0x1000 }",
            "length = 0 }",
            "transfer \"dma\": window: 0x0",
        ),
        (
            "start = 0x8000, length = 0x1000",
            "start = 0xffffffffffffff00, length = 0x101",
            "transfer \"dma\": window: 0x101",
        ),
        (
            "offset = 0x24",
            "offset = 0x24\nread_back = true",
            "register \"command\": read_back: only for",
        ),
    ];
    are_refused(cases);
}

/// Each piece of [`PROFILE`], its replacement, and the error for it.
pub(super) fn are_refused(cases: &[(&str, &str, &str)]) {
    for (from, to, expected) in cases {
        let text = error(&profile(&[(from, to)]));
        let expected = format!("Profile p.toml: {expected}");
        assert!(
            text.starts_with(&expected),
            "{text}\ninstead of\n{expected}"
        );
    }
}

#[test]
fn each_wrong_alias_and_port_is_named() {
    let alias = "[[alias]]\nbar = 1\noffset = 0x100\nlength = 0x40\nto_bar = 0\nto_offset = 0\n";
    let port = "[[port]]\nindex = { bar = 1, offset = 0, width = 4 }\n\
                data = { bar = 1, offset = 4, width = 4 }\nto_bar = 0\nstride = 1\n";
    for (base, from, to, expected) in [
        (alias, "bar = 1", "bar = 9", "alias 1: bar: 0x9"),
        (alias, "to_bar = 0", "to_bar = 9", "alias 1: to_bar: 0x9"),
        (alias, "0x100", "0x102", "alias 1: offset: 0x102"),
        (alias, "length = 0x40", "length = 0", "alias 1: length: 0x0"),
        (
            alias,
            "bar = 1\noffset = 0x100",
            "bar = 0\noffset = 0",
            "alias 1: overlaps register \"source\"",
        ),
        (
            alias,
            "to_bar = 0\nto_offset = 0",
            "to_bar = 1\nto_offset = 0x120",
            "alias 1: to_offset: overlaps alias 1",
        ),
        (
            port,
            "width = 4 }\nto_bar",
            "width = 5 }\nto_bar",
            "port 1: width: 0x5",
        ),
        (port, "offset = 4", "offset = 2", "port 1: offset: 0x2"),
        (
            port,
            "offset = 4",
            "offset = 0",
            "port 1: data: overlaps port 1: index",
        ),
        (port, "to_bar = 0", "to_bar = 6", "port 1: to_bar: 0x6"),
        (port, "stride = 1", "stride = 0", "port 1: stride: 0x0"),
    ] {
        assert!(base.contains(from));
        let text = error(&format!("{PROFILE}{}", base.replacen(from, to, 1)));
        assert!(
            text.starts_with(&format!("Profile p.toml: {expected}")),
            "{text}\n{expected}"
        );
    }
}

#[test]
fn a_register_belongs_to_one_transfer() {
    let (_, transfer) = PROFILE.split_once("[[transfer]]").unwrap();
    let second = transfer.replacen("\"dma\"", "\"other\"", 1);
    let text = error(&format!("{PROFILE}[[transfer]]{second}"));
    let expected =
        "Profile p.toml: transfer \"other\": start: register \"command\" has another role";
    assert!(text.starts_with(expected), "{text}");
    let text = error(&format!("{PROFILE}[[transfer]]{transfer}"));
    assert!(
        text.starts_with("Profile p.toml: transfer \"dma\": name: the name is already in use"),
        "{text}"
    );
}

#[test]
fn a_file_that_is_too_large_is_not_parsed() {
    let text = error(&"#".repeat((64 << 10) + 1));
    assert_eq!(
        text,
        "Profile p.toml: the file has 65537 bytes (at most 65536)"
    );
}

#[test]
fn syntax_errors_have_a_place() {
    let text = error("version = \n");
    assert!(text.contains("line 1"), "{text}");
}
