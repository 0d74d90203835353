// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The tables and the documentation.

use std::fmt::Write;

use super::*;

fn table(rules: &[Rule], digits: usize) -> String {
    let mut text =
        String::from("| ID | Capability | The guest's view | Why |\n|---|---|---|---|\n");
    for Rule {
        id,
        name,
        access,
        reason,
        ..
    } in rules
    {
        let word = access.word();
        writeln!(text, "| {id:#0digits$x} | {name} | {word} | {reason} |").unwrap();
    }
    text
}

#[test]
fn the_documentation_shows_the_tables() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../docs/reference/config-space.md"
    );
    let documentation = std::fs::read_to_string(path).unwrap();
    for table in [table(&STANDARD, 4), table(&EXTENDED, 6)] {
        assert!(
            documentation.contains(&table),
            "docs/reference/config-space.md lacks:\n{table}"
        );
    }
}

#[test]
fn each_capability_has_one_rule() {
    for rules in [&STANDARD[..], &EXTENDED[..]] {
        assert!(rules.is_sorted_by(|one, next| one.id < next.id));
    }
}
