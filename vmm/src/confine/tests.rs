// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The document of the table, and options that exclude each other.

use strum::IntoEnumIterator;

use super::calls::{CALLS, When};
use super::*;

/// The rows of the document for `page`, as the source has them on this architecture.
fn rows() -> Vec<String> {
    let rows = CALLS.iter().map(|call| {
        let arguments = match call.when {
            When::Any => "any".to_owned(),
            When::Is(_, _, name) => format!("`{name}`"),
            When::Has(_, _, name) => format!("with `{name}`"),
            When::HasNot(_, _, name) => format!("without `{name}`"),
            When::Own(_) => "this process".to_owned(),
        };
        let kinds: Vec<_> = ThreadKind::iter()
            .filter(|kind| call.threads.contains(*kind))
            .map(ThreadKind::name)
            .collect();
        let threads = match kinds.len() == ThreadKind::iter().count() {
            true => "all".to_owned(),
            false => kinds.join(", "),
        };
        format!(
            "| `{}` | {arguments} | {threads} | {} |",
            call.name, call.why
        )
    });
    rows.collect()
}

#[test]
fn the_document_shows_the_table() {
    let page = include_str!("../../../docs/reference/confinement.md");
    let (_, table) = page.split_once("| system call |").unwrap();
    let shown: Vec<_> = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(str::to_owned)
        .collect();
    let rows = rows();
    // The page has the rows of all architectures.
    let elsewhere: Vec<_> = shown.iter().filter(|row| !rows.contains(row)).collect();
    let here: Vec<_> = shown
        .iter()
        .filter(|row| rows.contains(row))
        .cloned()
        .collect();
    assert_eq!(here, rows, "the table should be:\n{}", rows.join("\n"));
    let others = match cfg!(target_arch = "x86_64") {
        true => vec!["KVM_GET_DEVICE_ATTR"],
        false => vec!["KVM_GET_IRQCHIP", "`poll`", "`epoll_wait`", "`getpgrp`"],
    };
    assert_eq!(elsewhere.len(), others.len(), "{elsewhere:?}");
    for (row, other) in elsewhere.iter().zip(others) {
        assert!(row.contains(other), "{row}");
    }
    for kind in ThreadKind::iter() {
        let heading = format!("| `{}` |", kind.name());
        assert!(page.contains(&heading), "{heading}");
    }
}

#[test]
fn a_jail_and_a_restart_exclude_each_other() {
    let user = ConfineConfig {
        user: Some("0:0".parse().unwrap()),
        ..ConfineConfig::default()
    };
    let root = ConfineConfig {
        root: Some("/".into()),
        ..ConfineConfig::default()
    };
    for (config, option) in [(&user, "--jail-user"), (&root, "--jail-root")] {
        let error = Confinement::new(config, OnReset::Restart).unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with(&format!("{option} and --on-reset")),
            "{text}"
        );
        let confinement = Confinement::new(config, OnReset::Exit).unwrap();
        assert!(confinement.includes_main());
    }
    let free = Confinement::of_guest_threads().unwrap();
    assert!(!free.includes_main() && !Confinement::default().includes_main());
}

#[test]
fn a_root_that_is_no_directory_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for path in [file.path(), std::path::Path::new("/does/not/exist")] {
        let config = ConfineConfig {
            root: Some(path.to_owned()),
            ..ConfineConfig::default()
        };
        let error = Confinement::new(&config, OnReset::Exit).unwrap_err();
        assert!(matches!(error, ConfineError::JailRoot { .. }), "{error}");
    }
}
