// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The troubleshooting page has the name of every error.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use pinvisor_stress::Error;

/// Names that only the monitor of another architecture has.
#[cfg(target_arch = "x86_64")]
const ELSEWHERE: [&str; 4] = ["bridges", "device-tree", "host-bridge", "host-pages"];
#[cfg(target_arch = "aarch64")]
const ELSEWHERE: [&str; 2] = ["acpi", "page-tables"];

#[test]
fn the_page_has_every_name_and_no_other() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guide/troubleshooting.md");
    let page = fs::read_to_string(path).unwrap();
    let on_page: BTreeSet<_> = page
        .split("`error[")
        .skip(1)
        .filter_map(|rest| Some(rest.split_once("]`")?.0))
        // The text to search for.
        .filter(|name| *name != "name")
        .collect();
    let names: BTreeSet<_> = Error::ids().chain(ELSEWHERE).collect();
    let differ: Vec<_> = on_page.symmetric_difference(&names).collect();
    assert!(differ.is_empty(), "on one side only: {differ:?}");
}
