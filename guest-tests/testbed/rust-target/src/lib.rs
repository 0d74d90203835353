// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Makes sure that Rust can build for a target, before a build fails with "can't find crate for `core`".
//!
//! rustup reads the targets in `rust-toolchain.toml` only when it installs a toolchain, and not
//! with `RUSTUP_AUTO_INSTALL=0`.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

/// A program for a guest without an operating system is built for this target.
pub const BARE_METAL: &str = "x86_64-unknown-none";
/// A static program for a Linux guest is built for this target.
pub const LINUX: &str = "x86_64-unknown-linux-musl";

/// A program for an aarch64 guest without an operating system is built for this target. Its code keeps nothing in
/// registers that an interrupt would have to save besides the general ones.
pub const AARCH64_BARE_METAL: &str = "aarch64-unknown-none-softfloat";
/// A static program for Linux on another architecture is built for this target.
pub const AARCH64_LINUX: &str = "aarch64-unknown-linux-musl";

/// Why a target is missing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program could not be started.
    #[error("Cannot start {program}: {source}")]
    Start {
        /// Its name.
        program: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// Rust does not come from rustup, so only the user can install the target.
    #[error(
        "Rust has no standard library for the target {target}, and there is no rustup to install it: install your \
         distribution's package for that target, or Rust from rustup"
    )]
    NoRustup {
        /// The target's triple.
        target: &'static str,
    },
    /// rustup could not install the target.
    #[error("`rustup target add {target}` failed:\n{output}")]
    Rustup {
        /// The target's triple.
        target: &'static str,
        /// What rustup wrote.
        output: String,
    },
}

/// Installs the target's standard library if it is missing. `report` gets one line before that.
///
/// # Errors
/// [`Error`]
pub fn ensure(target: &'static str, report: impl FnOnce(&str)) -> Result<(), Error> {
    if is_installed(target)? {
        return Ok(());
    }
    report(&format!("installing the Rust target {target}"));
    let output = match Command::new("rustup")
        .args(["target", "add", target])
        .stdin(Stdio::null())
        .output()
    {
        Ok(output) => output,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Error::NoRustup { target });
        }
        Err(source) => {
            let program = "rustup";
            return Err(Error::Start { program, source });
        }
    };
    if output.status.success() && is_installed(target)? {
        return Ok(());
    }
    Err(Error::Rustup {
        target,
        output: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

fn is_installed(target: &'static str) -> Result<bool, Error> {
    let output = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", target])
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::Start {
            program: "rustc",
            source,
        })?;
    let folder = String::from_utf8_lossy(&output.stdout);
    Ok(output.status.success() && Path::new(folder.trim()).is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_own_target_is_installed_and_an_unknown_one_is_not() {
        assert!(is_installed("x86_64-unknown-linux-gnu").unwrap());
        assert!(!is_installed("x86_64-unknown-nothing").unwrap());
    }

    #[test]
    fn an_unknown_target_is_an_error_that_names_it() {
        let mut lines = Vec::new();
        let error = ensure("x86_64-unknown-nothing", |line| lines.push(line.to_owned()));
        assert!(
            error
                .unwrap_err()
                .to_string()
                .contains("x86_64-unknown-nothing")
        );
        assert_eq!(lines, ["installing the Rust target x86_64-unknown-nothing"]);
    }
}
