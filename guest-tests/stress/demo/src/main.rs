// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo demo`: builds the monitor and the stress guest, and has the guest drive a DMA engine in
//! software over fragmented memory. Arguments go to `pinvisor-stress`.

use std::env;
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

#[cfg(target_arch = "aarch64")]
use rust_target::AARCH64_BARE_METAL as BARE_METAL;
#[cfg(target_arch = "x86_64")]
use rust_target::BARE_METAL;

/// This machine cannot run it: the exit code of `pinvisor` for that.
const HOST: u8 = 2;
/// RAM of the guest.
const MEMORY: &str = "64M";

const INTRODUCTION: &str = "\
A guest drives a DMA engine that no IOMMU isolates. The engine puts the addresses that the guest
programs on the bus unchanged, so guest RAM must be at its physical addresses: in many pieces,
wherever the host had memory. The guest moves data to and from all of them and checks every byte.
";

fn main() -> ExitCode {
    if let Err(text) = look_for_kvm() {
        eprintln!("demo: {text}");
        return HOST.into();
    }
    match build() {
        Ok(target) => show(&target),
        Err(text) => {
            eprintln!("demo: {text}");
            ExitCode::FAILURE
        }
    }
}

/// Whether a guest can be run, before anything is built.
fn look_for_kvm() -> Result<(), String> {
    let opened = OpenOptions::new().read(true).write(true).open("/dev/kvm");
    match opened.map_err(|error| error.kind()) {
        Ok(_) => Ok(()),
        Err(ErrorKind::NotFound) => Err(
            "/dev/kvm does not exist: enable virtualisation in the firmware (or, in a virtual \
             machine, nested virtualisation in its hypervisor), and load the module: modprobe \
             kvm_intel, or modprobe kvm_amd"
                .to_owned(),
        ),
        Err(ErrorKind::PermissionDenied) => Err(
            "no permission for /dev/kvm: sudo usermod -aG kvm $USER, and log in again".to_owned(),
        ),
        Err(kind) => Err(format!("cannot open /dev/kvm: {kind}")),
    }
}

/// Builds both programs and returns where cargo puts them.
fn build() -> Result<PathBuf, String> {
    rust_target::ensure(BARE_METAL, |line| eprintln!("demo: {line}"))
        .map_err(|error| error.to_string())?;
    cargo(&["--package", "pinvisor-stress", "--bin", "pinvisor-stress"])?;
    cargo(&[
        "--package",
        "dma-stress",
        "--bin",
        "dma-stress",
        "--target",
        BARE_METAL,
    ])?;
    let own =
        env::current_exe().map_err(|error| format!("cannot find this program's path: {error}"))?;
    // target/release/demo
    own.ancestors()
        .nth(2)
        .map(Path::to_owned)
        .ok_or_else(|| format!("{} is not in a target directory", own.display()))
}

fn cargo(arguments: &[&str]) -> Result<(), String> {
    let program = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command
        .args(["build", "--quiet", "--release"])
        .args(arguments)
        .arg("--manifest-path")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../Cargo.toml"));
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{command:?} failed: {status}")),
        Err(error) => Err(format!("cannot run {command:?}: {error}")),
    }
}

/// Becomes `pinvisor-stress`.
fn show(target: &Path) -> ExitCode {
    println!("{INTRODUCTION}");
    let mut command = Command::new(target.join("release/pinvisor-stress"));
    command
        .args(["--software", "--memory", MEMORY, "--kernel"])
        .arg(target.join(BARE_METAL).join("release/dma-stress"))
        .arg("--html")
        .arg(target.join("demo.html"))
        .args(env::args_os().skip(1));
    let error = command.exec();
    eprintln!("demo: cannot run {command:?}: {error}");
    ExitCode::FAILURE
}
