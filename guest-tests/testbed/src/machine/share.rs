// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a test machine finds under `/testbed`: a private copy of programs, script and files, so that a build
//! going on meanwhile changes nothing under it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::{env, iter};

use super::Machine;
use super::place::Placed;
use crate::error::{AtPath, Result};
use crate::paths::{self, GuestTarget};
use crate::setup::Arch;
use crate::shell::quote;

/// Programs, and a library for them, taken from the folder of this one, those that are built.
const PROGRAMS: [&str; 7] = [
    "pinvisor",
    "examples/orchestrator",
    "pinvisor-stress",
    "testbed",
    "pinvisor-control",
    "kernel-check",
    "libfalsify.so",
];

/// Scripts beside them.
const HELPERS: [(&str, &str); 2] = [
    ("testbed-bind", include_str!("../../machine/testbed-bind")),
    ("testbed-mark", include_str!("../../machine/testbed-mark")),
];

/// Fills `folder`.
///
/// # Errors
/// [`Error::File`](crate::Error::File).
pub fn fill(folder: &Path, machine: &Machine, placed: &[Placed], script: &str) -> Result<()> {
    let bin = folder.join("bin");
    paths::create_folder(&bin)?;
    for name in PROGRAMS {
        let program = match machine.arch {
            Arch::X86_64 => paths::sibling_program(name)?,
            Arch::Aarch64 => paths::program_of(GuestTarget::Linux(Arch::Aarch64), name)?,
        };
        if program.exists() {
            let own_name = Path::new(name).file_name().unwrap_or_default();
            fs::copy(&program, bin.join(own_name)).at("copy", &program)?;
        }
    }
    for (name, text) in HELPERS {
        let helper = bin.join(name);
        write(&helper, text)?;
        fs::set_permissions(&helper, fs::Permissions::from_mode(0o755))
            .at("make executable", &helper)?;
    }

    for (name, source) in &machine.files {
        let target = folder.join(name);
        fs::copy(source, &target).at("copy", source)?;
    }
    let lines: String = placed
        .iter()
        .map(|placed| format!("{}\n", placed.line))
        .collect();
    write(&folder.join("devices"), &lines)?;
    write(&folder.join("environment"), &environment())?;
    write(&folder.join("enter"), include_str!("../../machine/enter"))?;
    write(&folder.join("script"), script)
}

/// Variables of the caller's that a script may need.
fn environment() -> String {
    let folder = env::current_dir().unwrap_or_default();
    let terminal = env::var("TERM").unwrap_or_else(|_| "dumb".into());
    let variables = [
        ("TESTBED_FOLDER", folder.to_string_lossy().into_owned()),
        ("TERM", terminal),
    ];
    let lines = variables
        .iter()
        .map(|(name, value)| format!("export {name}={}\n", quote(value)));
    lines
        .chain(iter::once("export LC_ALL=C.UTF-8\n".into()))
        .collect()
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).at("write", path)
}
