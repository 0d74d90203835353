// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use proptest::prelude::*;

use super::*;

fn with_low_memory(line: &str) -> Cow<'_, str> {
    with_option(line, "reservelow", "640K")
}

#[test]
fn options_are_read_as_linux_reads_them() {
    let read = |line| {
        let options = options(line);
        options
            .map(|option| (option.name, option.value))
            .collect::<Vec<_>>()
    };
    let pair = |name: &str, value| (name.to_owned(), value);
    assert_eq!(
        read("quiet  root=/dev/sda1=x no-kvmclock=\t -- noapic"),
        [
            pair("quiet", None),
            pair("root", Some("/dev/sda1=x")),
            pair("no_kvmclock", Some("")),
        ]
    );
    assert_eq!(
        read("a=\"b -- c\" \"d=e f\" \"--\" noapic"),
        [pair("a", Some("b -- c")), pair("d", Some("e f"))]
    );
    assert_eq!(read("a=\"b noapic"), [pair("a", Some("b noapic"))]);
    assert_eq!(read(""), []);
}

#[test]
fn the_option_is_the_last_of_the_kernels() {
    for (line, expected) in [
        ("", "reservelow=640K"),
        ("quiet", "quiet reservelow=640K"),
        ("reservelow=640K quiet", "reservelow=640K quiet"),
        (
            "reservelow=640K reservelow=64K",
            "reservelow=640K reservelow=64K reservelow=640K",
        ),
        ("quiet -- a", "quiet reservelow=640K -- a"),
        ("-- reservelow=640K", "reservelow=640K -- reservelow=640K"),
        (
            "a=\"b -- c\" \"--\" d",
            "a=\"b -- c\" reservelow=640K \"--\" d",
        ),
        ("quiet a=\"b -- c", "quiet reservelow=640K a=\"b -- c"),
        ("quiet\x0b--\x0ba", "quiet\x0breservelow=640K --\x0ba"),
    ] {
        assert_eq!(with_low_memory(line), expected, "{line}");
    }
}

proptest! {
    /// What was there stays, in its order, and the option comes before `--`.
    #[test]
    fn nothing_else_changes(line in "([a-z]{0,3}|--|\"|=| |é|reservelow=(4K|640K)){0,12}") {
        let found = with_low_memory(&line).into_owned();
        let own: Vec<_> = words(&line).iter().map(|word| word.text).collect();
        let mut more: Vec<_> = words(&found).iter().map(|word| word.text).collect();
        if let Some(at) = (found != line).then(|| {
            let is_new = |at: &usize| own.get(*at) != more.get(*at);
            (0..more.len()).find(is_new)
        }).flatten() {
            prop_assert_eq!(more.remove(at), "reservelow=640K");
        }
        prop_assert_eq!(more, own);
    }
}
