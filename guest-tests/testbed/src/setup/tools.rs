// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The machine's own packages: tools to build a kernel, and QEMU.

use std::process::Command;

use super::apt::{self, Apt};
use crate::error::{Error, Result};
use crate::shell::{self, is_root};

/// The emulator.
pub const QEMU: &str = "qemu-system-x86_64";

/// Before 10, the emulated XSAVE reports empty CPUID leaves, and guests crash on them.
const QEMU_OLDEST: u32 = 10;

const PACKAGES: [&str; 11] = [
    "bc",
    "bison",
    "build-essential",
    "flex",
    "kmod",
    "libelf-dev",
    "libssl-dev",
    "strace",
    "tmux",
    "xz-utils",
    "zstd",
];

/// Installs what is missing, or prints how to.
pub fn install_missing() -> Result<()> {
    let missing: Vec<&str> = PACKAGES
        .into_iter()
        .filter(|package| !is_installed(package))
        .collect();
    let qemu_missing = require_qemu().is_err();
    if missing.is_empty() && !qemu_missing {
        return Ok(());
    }
    if !is_root() {
        return Err(how_to_install(missing, qemu_missing));
    }
    let apt = Apt::of_machine()?;
    if !missing.is_empty() {
        apt.install(&missing, false)?;
    }
    if qemu_missing {
        let in_release = apt::codename()? != "bookworm";
        apt.install(&["qemu-system-x86"], !in_release)?;
    }
    require_qemu()
}

/// Checks that QEMU is there and new enough.
///
/// # Errors
/// [`Error::Missing`].
pub fn require_qemu() -> Result<()> {
    let found = shell::run(Command::new(QEMU).arg("--version"));
    match found.ok().as_deref().and_then(major_version) {
        Some(version) if version >= QEMU_OLDEST => Ok(()),
        _ => Err(how_to_install(Vec::new(), true)),
    }
}

fn is_installed(package: &str) -> bool {
    let query = ["-W", "-f", "${db:Status-Status}", package];
    shell::run(&mut shell::command("dpkg-query", query)).is_ok_and(|status| status == "installed")
}

fn how_to_install(mut packages: Vec<&str>, qemu: bool) -> Error {
    if qemu {
        packages.push("qemu-system-x86");
    }
    let what = packages.iter().map(|package| match *package {
        "qemu-system-x86" => format!("QEMU {QEMU_OLDEST} or later"),
        package => package.to_string(),
    });
    let backports = if qemu {
        " (on Debian 12 add --target-release=bookworm-backports)"
    } else {
        ""
    };
    Error::Missing {
        what: what.collect::<Vec<_>>().join(", "),
        command: format!(
            "as root, `cargo testbed setup`, or `apt install {}`{backports}",
            packages.join(" ")
        ),
    }
}

/// Major version in the first line of `qemu-system-x86_64 --version`.
fn major_version(text: &str) -> Option<u32> {
    text.strip_prefix("QEMU emulator version ")?
        .split('.')
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_read_from_qemus_own_words() {
        assert_eq!(
            major_version("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\n"),
            Some(10)
        );
        assert_eq!(major_version("QEMU emulator version 7.2.19"), Some(7));
        assert_eq!(major_version("something else"), None);
    }

    #[test]
    fn missing_packages_are_named_with_the_command() {
        let text = how_to_install(vec!["bc"], true).to_string();
        for part in [
            "bc",
            "QEMU 10",
            "apt install bc qemu-system-x86",
            "bookworm-backports",
        ] {
            assert!(text.contains(part), "{part} not in {text}");
        }
    }
}
