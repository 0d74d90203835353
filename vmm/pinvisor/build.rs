// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Passes the program the commit that it was built from, if known, and packs its relocations.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let folder = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let checkout = Path::new(&folder)
        .ancestors()
        .nth(2)
        .unwrap_or(Path::new("/"));
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    // Debug builds need not be rebuilt for every commit.
    let version = if env::var("PROFILE").is_ok_and(|profile| profile == "debug") {
        format!("{version} (debug build)")
    } else {
        match commit(checkout) {
            Some(commit) => format!("{version} ({commit})"),
            None => version,
        }
    };
    println!("cargo::rustc-env=PINVISOR_VERSION={version}");
    // A static program relocates itself by this table: 1 KiB instead of 78, all of it read at each start. The C library
    // of this target can read it (musl 1.2.4, glibc 2.36); those of old systems cannot.
    if env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|environment| environment == "musl") {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// The commit that `checkout` is at, if it is a checkout of this project, and not of one that a
/// copy of the sources lies in. Whether files were changed since is not looked at: this is not
/// run again when they are.
fn commit(checkout: &Path) -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .args(arguments)
            .current_dir(checkout)
            .output()
            .ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let top = git(&["rev-parse", "--show-toplevel"])?;
    if Path::new(&top).canonicalize().ok()? != checkout.canonicalize().ok()? {
        return None;
    }
    // The log of HEAD grows with every commit and checkout; without one, HEAD changes with some.
    for name in ["logs/HEAD", "HEAD"] {
        let path = checkout.join(git(&["rev-parse", "--git-path", name])?);
        if path.exists() {
            println!("cargo::rerun-if-changed={}", path.display());
            break;
        }
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}
