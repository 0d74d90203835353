// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! That every test and every case that the threat model names is one.

use std::collections::BTreeSet;
use std::fs;

use super::ALL;
use super::provoked::has_test;
use crate::paths;

/// The text between backquotes, and what follows each up to the next.
fn quoted(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut parts = text.split('`').skip(1);
    std::iter::from_fn(move || Some((parts.next()?, parts.next()?)))
}

/// The tests that a row names, each with its file: "`a`, `b` (`file.rs`)".
fn tests(row: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    let mut open = Vec::new();
    for (word, after) in quoted(row) {
        if word.ends_with(".rs") {
            found.extend(open.drain(..).map(|test| (test, word)));
            continue;
        }
        open.push(word);
        if !matches!(after, ", " | " (") {
            open.clear();
        }
    }
    found
}

/// The cases that a row names: "case `a`", "cases `a`, `b`".
fn cases(row: &str) -> Vec<&str> {
    let lists = row.split("case").skip(1);
    lists
        .map(|list| list.strip_prefix('s').unwrap_or(list))
        .filter(|list| list.starts_with(" `"))
        .flat_map(|list| {
            let mut is_in_list = true;
            quoted(list)
                .take_while(move |(_, after)| std::mem::replace(&mut is_in_list, *after == ", "))
        })
        .map(|(case, _)| case)
        .collect()
}

#[test]
fn tests_and_cases_of_the_threat_model_exist() {
    let text = fs::read_to_string(paths::checkout().join("docs/design/threat-model.md")).unwrap();
    let rows: Vec<_> = text.lines().filter(|line| line.starts_with('|')).collect();
    let tests: Vec<_> = rows.iter().flat_map(|row| tests(row)).collect();
    let cases: Vec<_> = text.lines().flat_map(cases).collect();
    assert!(tests.len() > 40 && cases.len() > 15, "{tests:?} {cases:?}");
    for (test, file) in tests {
        let source = fs::read_to_string(paths::checkout().join(file));
        let source = source.unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(has_test(&source, test), "no test {test} in {file}");
    }
    let all: BTreeSet<_> = ALL.iter().map(|case| case.name).collect();
    // `compat` is the name that all cases of a compatibility table begin with.
    for case in cases.into_iter().filter(|&case| case != "compat") {
        assert!(all.contains(case), "no case {case}");
    }
}

#[test]
fn names_are_found_in_a_row() {
    let row = "| a `mode` | `one`, `two` (`x/y.rs`), `three` (`z.rs`); cases `c`, `d`; case `e` |";
    let found = [("one", "x/y.rs"), ("two", "x/y.rs"), ("three", "z.rs")];
    assert_eq!(tests(row), found);
    assert_eq!(cases(row), ["c", "d", "e"]);
}
