// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The machine's own packages: tools to build a kernel, and QEMU.

use std::process::Command;

use super::apt::{self, Apt};
use super::arch::Arch;
use crate::error::{Error, Result};
use crate::shell::{self, is_root};

/// Before 10, the emulated XSAVE reports empty CPUID leaves, and guests crash on them.
const QEMU_OLDEST: u32 = 10;

const PACKAGES: [&str; 13] = [
    "bc",
    "bison",
    "build-essential",
    "flex",
    "kmod",
    "libelf-dev",
    "libssl-dev",
    "runc",
    "strace",
    "systemd",
    "tmux",
    "xz-utils",
    "zstd",
];

/// Installs what is missing, or prints how to.
pub fn install_missing(arch: Arch) -> Result<()> {
    let (_, cross) = arch.cross_compiler().unwrap_or_default();
    let missing = missing(PACKAGES.iter().chain(cross));
    let qemu_missing = require_qemu(arch).is_err();
    if missing.is_empty() && !qemu_missing {
        return Ok(());
    }
    if !is_root() {
        return Err(how_to_install(arch, missing, qemu_missing));
    }
    // For this machine, whatever is tested on it.
    let apt = Apt::of_machine(Arch::default())?;
    if !missing.is_empty() {
        apt.install(&missing, false)?;
    }
    if qemu_missing {
        let in_release = apt::codename()? != "bookworm";
        apt.install(&[arch.qemu_package()], !in_release)?;
    }
    require_qemu(arch)
}

/// Installs those of `packages` that are missing, which few cases need, or prints how to.
pub fn install(packages: &[&'static str]) -> Result<()> {
    let missing = missing(packages);
    if missing.is_empty() {
        return Ok(());
    }
    if !is_root() {
        return Err(Error::Missing {
            what: missing.join(", "),
            command: format!("as root, `apt install {}`", missing.join(" ")),
        });
    }
    Apt::of_machine(Arch::default())?.install(&missing, false)
}

/// The same of packages that are too old in Debian 12: from its backports there.
pub fn install_new(packages: &[&'static str]) -> Result<()> {
    let is_old = apt::codename()? == "bookworm";
    let from = if is_old {
        " --target-release=bookworm-backports"
    } else {
        ""
    };
    if !is_root() {
        return Err(Error::Missing {
            what: packages.join(", "),
            command: format!("as root, `apt install{from} {}`", packages.join(" ")),
        });
    }
    Apt::of_machine(Arch::default())?.install(packages, is_old)
}

/// Checks that QEMU is there and new enough.
///
/// # Errors
/// [`Error::Missing`].
pub fn require_qemu(arch: Arch) -> Result<()> {
    let found = shell::run(Command::new(arch.qemu()).arg("--version"));
    match found.ok().as_deref().and_then(major_version) {
        Some(version) if version >= QEMU_OLDEST => Ok(()),
        _ => Err(how_to_install(arch, Vec::new(), true)),
    }
}

fn missing<'a>(packages: impl IntoIterator<Item = &'a &'static str>) -> Vec<&'static str> {
    let packages = packages.into_iter().copied();
    packages.filter(|package| !is_installed(package)).collect()
}

fn is_installed(package: &str) -> bool {
    let query = ["-W", "-f", "${db:Status-Status}", package];
    shell::run(&mut shell::command("dpkg-query", query)).is_ok_and(|status| status == "installed")
}

fn how_to_install(arch: Arch, mut packages: Vec<&str>, qemu: bool) -> Error {
    if qemu {
        packages.push(arch.qemu_package());
    }
    let what = packages.iter().map(|package| match *package {
        name if name == arch.qemu_package() => format!("QEMU {QEMU_OLDEST} or later"),
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
            "as root, `cargo testbed setup --arch {}`, or `apt install {}`{backports}",
            arch.name(),
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
        let text = how_to_install(Arch::X86_64, vec!["bc"], true).to_string();
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
