// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo testbed bench`: what a start of a guest costs, beside what a user would run instead.
//!
//! Most boots of the test machine count instructions (`-icount shift=0`: the machine's clock advances by a nanosecond
//! for each), one measures time, one monitor after the other in each round. Every ratio is of two figures that come
//! from the same boot.

mod growth;
pub mod guarded;
mod many;
mod monitor;
mod reads;
pub mod rows;
mod script;

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cases::cost;
use crate::error::{AtPath, Error, Result};
use crate::initramfs::Initramfs;
use crate::inside::boot::FACTS;
use crate::machine::Machine;
use crate::paths::GuestTarget;
use crate::setup::Arch;
use crate::{image, paths, setup};

use monitor::{Monitor, Peer};
use rows::Row;
use script::Facts;

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

/// Memory of the test machine in GiB, and its hugepages: those of a guest with 1 GiB, and some more.
const MEMORY_GIB: u64 = 4;
const HUGEPAGES: u32 = 530;

/// What to measure.
#[derive(Debug, Args)]
pub struct Options {
    /// Measure another monitor as well: firecracker or cloud-hypervisor, as NAME=PATH. Repeatable.
    #[arg(long, value_name = "NAME=PATH")]
    peer: Vec<Peer>,
    /// Three rounds instead of eleven, eight microVMs at once instead of 32, and no counts of pieces, devices and vCPUs.
    #[arg(long)]
    short: bool,
    /// Measure this only. Repeatable.
    #[arg(long, value_enum, value_name = "PART")]
    only: Vec<Part>,
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

/// What is measured, by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Starts and ends beside other monitors.
    Starts,
    /// Reads of an NVMe controller.
    Reads,
    /// Reads of a guarded one.
    Guarded,
    /// A transfer of a mediated device.
    Mediated,
    /// Many microVMs at once.
    Many,
    /// Pieces of memory, devices and vCPUs.
    Growth,
}

impl Options {
    fn has(&self, part: Part) -> bool {
        match self.only.is_empty() {
            true => part != Part::Growth || !self.short,
            false => self.only.contains(&part),
        }
    }
}

/// Measures, and prints a table. Returns whether all targets are met.
///
/// # Errors
/// Those of the test machine; [`Error::Usage`] if a monitor's guest did not start, or memory is short.
pub fn run(options: &Options) -> Result<bool> {
    let gib = match options.has(Part::Growth) {
        true => growth::GIB,
        false => MEMORY_GIB,
    };
    script::require_memory(gib)?;
    let folder = tempfile::tempdir().at("create", "a temporary folder")?;
    let bench = Bench {
        pinvisor: distributed()?,
        initramfs: folder.path().join("initramfs"),
        folder: folder.path().to_owned(),
    };
    Initramfs::with_busybox(&setup::busybox(Arch::X86_64)?, GUEST)?.write(&bench.initramfs)?;
    print!("{}", rows::HEAD);
    let mut results = Results::default();
    for part in Part::value_variants() {
        if options.has(*part) {
            bench.measure(*part, options, &mut results)?;
        }
    }
    println!("{}", results.tables);
    if let Some(path) = &options.json {
        let rows: Vec<_> = results.rows.iter().map(Row::json).collect();
        let text = serde_json::json!({"rows": rows, "facts": results.facts});
        std::fs::write(path, format!("{text:#}\n")).at("write", path)?;
    }
    Ok(results.rows.iter().all(|row| row.is_met() != Some(false)))
}

/// What was measured so far.
#[derive(Default)]
struct Results {
    rows: Vec<Row>,
    /// Tables of what is underneath.
    tables: String,
    facts: BTreeMap<&'static str, Facts>,
}

impl Results {
    /// Prints rows, which are not lost then if what follows fails.
    fn show(&mut self, rows: Vec<Row>) {
        print!("{}", rows::lines(&rows));
        self.rows.extend(rows);
    }
}

/// What all parts are measured with.
struct Bench {
    folder: PathBuf,
    pinvisor: PathBuf,
    initramfs: PathBuf,
}

impl Bench {
    fn measure(&self, part: Part, options: &Options, results: &mut Results) -> Result<()> {
        match part {
            Part::Starts => self.starts(options, results)?,
            Part::Reads => {
                let facts = reads::measure(&self.folder, &self.pinvisor)?;
                results.show(reads::rows(&facts));
                results.tables += &reads::table(&facts);
                results.facts.insert("reads", facts);
            }
            Part::Guarded => {
                let facts = guarded::measure(&self.folder, &self.pinvisor)?;
                results.show(guarded::rows(&facts));
                results.tables += &guarded::table(&facts);
                results.facts.insert("guarded", facts);
            }
            Part::Mediated => results.show(vec![Row::mediated(cost::mediated()?)]),
            Part::Many => {
                let facts = many::measure(self, options.short)?;
                results.show(many::rows(&facts));
                results.facts.insert("many", facts);
            }
            Part::Growth => {
                let facts = growth::measure(self)?;
                results.show(growth::rows(&facts));
                results.tables += &growth::table(&facts);
                results.facts.insert("growth", facts);
            }
        }
        Ok(())
    }

    fn starts(&self, options: &Options, results: &mut Results) -> Result<()> {
        let rig = Rig::make(self, &options.peer)?;
        let counted = rig.measure(1, true)?;
        let size = std::fs::metadata(&self.pinvisor).at("look at", &self.pinvisor)?;
        results.show(rows::rows(&counted, size.len()));
        let times = match (options.no_times, options.short) {
            (true, _) => Facts::new(),
            (false, true) => rig.measure(SHORT_ROUNDS, false)?,
            (false, false) => rig.measure(ROUNDS, false)?,
        };
        results.show(rows::against_time(&times));
        results.tables += &rows::boots(&counted, &times);
        results.facts.insert("counted", counted);
        results.facts.insert("times", times);
        Ok(())
    }
}

/// `pinvisor` as it is distributed: static and stripped.
fn distributed() -> Result<PathBuf> {
    let triple = GuestTarget::Linux(Arch::X86_64).triple();
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
    fn make(bench: &Bench, peers: &[Peer]) -> Result<Self> {
        let disk = bench.folder.join("disk");
        image::write(&disk, &image::bytes(64, 1))?;
        let mut machine = Machine::builder()
            .memory(&format!("{MEMORY_GIB}G"))
            .hugepages_2m(HUGEPAGES)
            .disk("disk", disk)
            .device("nvme,drive=disk,serial=testbed")
            .file("kernel", setup::guest_kernel()?.vmlinux())
            .file("initramfs", &bench.initramfs)
            .file("pinvisor", &bench.pinvisor);
        let mut monitors = vec![Monitor::Pinvisor, Monitor::PinvisorNvme, Monitor::Microvm];
        let mut files = vec!["kernel", "initramfs", "pinvisor"];
        for peer in peers {
            machine = machine.file(peer.monitor.name(), &peer.path);
            files.push(peer.monitor.name());
            monitors.push(peer.monitor);
        }
        let prepare: String = monitors.iter().map(|monitor| monitor.prepare()).collect();
        Ok(Self {
            machine,
            monitors,
            prepare: script::prepare(&files, HUGEPAGES) + &prepare,
        })
    }

    /// The facts of `rounds` boots of each monitor, after one that only brings files into memory. With `counts`
    /// the clock counts instructions, and another boot of each is traced.
    fn measure(&self, rounds: u32, counts: bool) -> Result<Facts> {
        let machine = match counts {
            true => self.machine.clone().counting(),
            false => self.machine.clone(),
        };
        script::run(&machine, &self.script(rounds, counts), FACTS)
    }

    fn script(&self, rounds: u32, counts: bool) -> String {
        let boot = |monitor: Monitor, words: &str, to: &str| {
            format!(
                "echo {}{}\ntestbed inside boot {words}-- {} {to}|| exit 1\n",
                script::NAME,
                monitor.name(),
                monitor.command()
            )
        };
        let mut script = self.prepare.clone();
        // What the user supplies comes first: it may not start.
        for monitor in self.monitors.iter().rev() {
            script += &boot(*monitor, "", "> /dev/null ");
        }
        let words: &[&str] = match counts {
            true => &["", "--trace all "],
            false => &[""],
        };
        for _ in 0..rounds {
            for words in words {
                for monitor in &self.monitors {
                    script += &boot(*monitor, words, "");
                }
            }
        }
        if counts {
            script += &boot(Monitor::PinvisorGib, "--trace memory ", "");
        }
        script
    }
}
