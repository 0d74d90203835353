// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo testbed bench`: what a start of a guest costs, beside what a user would run instead.
//!
//! One boot of the test machine counts instructions (`-icount shift=0`: the machine's clock advances by a nanosecond
//! for each), the other measures time, one monitor after the other in each round. Every figure is a ratio of two
//! that come from the same boot.

mod monitor;
mod rows;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use crate::error::{AtPath, Error, Result};
use crate::initramfs::Initramfs;
use crate::inside::boot::FACTS;
use crate::machine::{Machine, Status};
use crate::paths::GuestTarget;
use crate::{image, paths, setup, shell};

use monitor::{Boots, FOLDER, Monitor, Peer};

/// Prints what is waited for, and ends as its monitor expects it.
const GUEST: &str = r#"#!/bin/busybox sh
/bin/busybox echo "guest: init"
/bin/busybox mkdir -p /proc
/bin/busybox mount -t proc proc /proc
/bin/busybox grep -qw end=reboot /proc/cmdline && /bin/busybox reboot -f
/bin/busybox poweroff -f
"#;

/// Rounds of times: enough for a median, and those of the short form.
const ROUNDS: u32 = 11;
const SHORT_ROUNDS: u32 = 3;

/// A machine that says nothing for so long hangs.
const PATIENCE: Duration = Duration::from_secs(600);

/// What to measure.
#[derive(Debug, Args)]
pub struct Options {
    /// Measure another monitor as well: firecracker or cloud-hypervisor, as NAME=PATH. Repeatable.
    #[arg(long, value_name = "NAME=PATH")]
    peer: Vec<Peer>,
    /// Three rounds instead of eleven.
    #[arg(long)]
    short: bool,
    /// Count instructions only.
    #[arg(long)]
    no_times: bool,
    /// Write the results to this file as JSON.
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
    /// Take what is built as it is, without building it first.
    #[arg(long)]
    pub no_build: bool,
}

/// Measures, and prints a table. Returns whether all targets are met.
///
/// # Errors
/// Those of the test machine; [`Error::Malformed`] if a monitor's guest did not start.
pub fn run(options: &Options) -> Result<bool> {
    let folder = tempfile::tempdir().at("create", "a temporary folder")?;
    let pinvisor = distributed()?;
    let rig = Rig::make(folder.path(), &options.peer, &pinvisor)?;
    let counted = rig.measure(1, true)?;
    let times = match options.no_times {
        true => Boots::new(),
        false => rig.measure(if options.short { SHORT_ROUNDS } else { ROUNDS }, false)?,
    };
    let size = std::fs::metadata(&pinvisor).at("look at", &pinvisor)?.len();
    let rows = rows::rows(&counted, &times, size);
    print!("{}", rows::table(&rows));
    println!("\n{}", rows::boots(&counted, &times));
    if let Some(path) = &options.json {
        let text = serde_json::json!({
            "rows": rows.iter().map(rows::Row::json).collect::<Vec<_>>(),
            "counted": counted, "times": times,
        });
        std::fs::write(path, format!("{text:#}\n")).at("write", path)?;
    }
    Ok(rows.iter().all(|row| row.is_met() != Some(false)))
}

/// `pinvisor` as it is distributed: static and stripped.
fn distributed() -> Result<PathBuf> {
    let triple = GuestTarget::Linux.triple();
    let release = paths::sibling_program("")?;
    let target = release.parent().unwrap_or(&release);
    let path = target.join(triple).join("dist/pinvisor");
    if path.is_file() {
        return Ok(path);
    }
    Err(Error::Missing {
        what: path.display().to_string(),
        command: format!(
            "cargo build --profile dist --package pinvisor --bin pinvisor --target {triple}"
        ),
    })
}

/// What the test machine is given.
struct Rig {
    machine: Machine,
    monitors: Vec<Monitor>,
    prepare: String,
}

impl Rig {
    fn make(folder: &Path, peers: &[Peer], pinvisor: &Path) -> Result<Self> {
        let [disk, initramfs] = ["disk", "initramfs"].map(|name| folder.join(name));
        image::write(&disk, &image::bytes(64, 1))?;
        Initramfs::with_busybox(&setup::busybox()?, GUEST)?.write(&initramfs)?;
        let mut machine = Machine::builder()
            .memory("3G")
            .hugepages_2m(150)
            .disk("disk", disk)
            .device("nvme,drive=disk,serial=testbed")
            .file("kernel", setup::guest_kernel()?.vmlinux())
            .file("initramfs", initramfs)
            .file("pinvisor", pinvisor)
            .patience(PATIENCE);
        let mut monitors = vec![Monitor::Pinvisor, Monitor::PinvisorNvme, Monitor::Microvm];
        let mut files = vec!["kernel", "initramfs", "pinvisor"];
        for peer in peers {
            machine = machine.file(peer.monitor.name(), &peer.path);
            files.push(peer.monitor.name());
            monitors.push(peer.monitor);
        }
        let files: Vec<_> = files
            .iter()
            .map(|name| format!("/testbed/{name}"))
            .collect();
        let prepare: String = monitors.iter().map(|monitor| monitor.prepare()).collect();
        let prepare = format!(
            "mkdir -p {FOLDER}\ncp {} {FOLDER}\nchmod -R +x {FOLDER}\n{prepare}",
            files.join(" ")
        );
        Ok(Self {
            machine,
            monitors,
            prepare,
        })
    }

    /// The facts of `rounds` boots of each monitor, after one that only brings files into memory. With `counts`
    /// the clock counts instructions, and another boot of each is traced.
    fn measure(&self, rounds: u32, counts: bool) -> Result<Boots> {
        let machine = match counts {
            true => self
                .machine
                .clone()
                .qemu_arg("-icount")
                .qemu_arg("shift=0,sleep=off"),
            false => self.machine.clone(),
        };
        let outcome = machine.run_streaming(&self.script(rounds, counts), &mut |_| ())?;
        let failed = |reason: String| Error::Malformed {
            path: "the test machine's output".into(),
            reason,
        };
        if outcome.status != Status::Exited(0) {
            let end = shell::last_lines(&outcome.output, 20);
            return Err(failed(format!(
                "a monitor failed ({}):\n{end}",
                outcome.status
            )));
        }
        let mut boots = Boots::new();
        let mut lines = outcome.output.lines();
        while let Some(line) = lines.next() {
            let Some(name) = line.strip_prefix("bench: ") else {
                continue;
            };
            let monitor = self.monitors.iter().find(|monitor| monitor.name() == name);
            let facts = lines
                .by_ref()
                .find_map(|line| serde_json::from_str(line.strip_prefix(FACTS)?).ok());
            let (Some(monitor), Some(facts)) = (monitor, facts) else {
                return Err(failed(format!("no facts about a boot of {name}")));
            };
            boots.entry(monitor.name()).or_default().push(facts);
        }
        Ok(boots)
    }

    fn script(&self, rounds: u32, counts: bool) -> String {
        let boot = |monitor: &Monitor, words: &str, to: &str| {
            format!(
                "testbed inside boot {words}-- {} {to} || exit 1\n",
                monitor.command()
            )
        };
        let mut script = self.prepare.clone();
        for monitor in &self.monitors {
            script += &boot(monitor, "", "> /dev/null");
        }
        let words = match counts {
            true => vec!["", "--trace "],
            false => vec![""],
        };
        for _ in 0..rounds {
            for words in &words {
                for monitor in &self.monitors {
                    script += &format!("echo bench: {}\n", monitor.name());
                    script += &boot(monitor, words, "");
                }
            }
        }
        script
    }
}
