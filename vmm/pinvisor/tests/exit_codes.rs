// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The program's help and the page on errors list exactly the exit codes that exist.

use std::fs;
use std::path::Path;

use clap::CommandFactory;
use pinvisor::cli::Cli;
use strum::IntoEnumIterator;
use vmm::ExitCode;

/// The numbers at the starts of those lines of `text` that begin with `before`, a number, and `after`.
fn numbers(text: &str, before: &str, after: &str) -> Vec<u8> {
    let lines = text.lines().filter_map(|line| line.strip_prefix(before));
    let numbers = lines.filter_map(|line| line.split_once(after)?.0.parse().ok());
    numbers.collect()
}

#[test]
fn help_and_page_list_every_exit_code() {
    let codes: Vec<u8> = ExitCode::iter().map(u8::from).collect();
    let help = Cli::command().get_after_help().unwrap().to_string();
    // 0 is not an error.
    let with_success = [&[0], codes.as_slice()].concat();
    assert_eq!(numbers(&help, "  ", "  "), with_success);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guide/troubleshooting.md");
    let page = fs::read_to_string(path).unwrap();
    assert_eq!(numbers(&page, "| ", " | "), codes);
}
