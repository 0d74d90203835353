// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Installs what is missing of the Rust targets that guests are built for.

use std::process::ExitCode;

use rust_target::{AARCH64_BARE_METAL, BARE_METAL, LINUX, ensure};

fn main() -> ExitCode {
    for target in [BARE_METAL, AARCH64_BARE_METAL, LINUX] {
        if let Err(error) = ensure(target, |line| eprintln!("rust-target: {line}")) {
            eprintln!("rust-target: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
