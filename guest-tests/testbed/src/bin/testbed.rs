// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! `cargo testbed`: sets up, tries out and runs the real boots.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use guest_tests::inside::{
    between, boot, broadcast, canary, deny, many, nvme_manage, offer, pin_proof, scatter, shape,
    without_files,
};
use guest_tests::machine::{Iommu, Machine, handle_interrupts};
use guest_tests::paths::{self, GuestTarget};
use guest_tests::runner::Choice;
use guest_tests::setup::{Arch, Flavour, setup};
use guest_tests::{Error, Result, bench, cases, demo, runner, shell};

/// Exit status for failures of the testbed, not of the script.
const OWN_FAILURE: u8 = 125;

/// Real boots on an emulated machine without an IOMMU.
#[derive(Debug, Parser)]
#[command(name = "cargo testbed", version)]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Install, download and build the testbed; a no-op when complete.
    Setup {
        /// For machines of this architecture.
        #[arg(long, value_enum, default_value = "x86_64")]
        arch: Arch,
        /// Use the newest available versions.
        #[arg(long)]
        update: bool,
    },
    /// Run a script on a machine without an IOMMU and exit with its status (124: time-out, 125: no status).
    ///
    /// The script runs by /bin/sh as root on an overlay of this machine's files: it reads them all
    /// and writes to scratch. The release build of pinvisor is in PATH, $TESTBED_BDF_0,
    /// $TESTBED_BDF_1, ... are the devices' addresses, `testbed-bind BDF` binds one to vfio-pci.
    Exec {
        #[command(flatten)]
        machine: MachineArgs,
        /// End the machine after this many seconds.
        #[arg(long, value_name = "SECONDS")]
        timeout: Option<u64>,
        /// The script; `-` reads it from standard input.
        #[arg(required = true, last = true)]
        script: Vec<String>,
    },
    /// The same, with a shell on this terminal.
    Shell {
        #[command(flatten)]
        machine: MachineArgs,
    },
    /// Show a real NVMe controller driven by the guest that stresses DMA, on the real path.
    Demo {
        /// For aarch64: what `cargo demo` shows on such a host.
        #[arg(long, value_enum, default_value = "x86_64")]
        arch: Arch,
        /// Use existing builds, without building first.
        #[arg(long)]
        no_build: bool,
    },
    /// Run the cases whose names contain FILTER, one line each.
    Run {
        /// Architecture of the machines. Cases that are about PCs run on PCs only.
        #[arg(long, value_enum, default_value = "x86_64")]
        arch: Arch,
        /// Part of the names of cases; or =NAME, for one of any list.
        #[arg(default_value = "")]
        filter: String,
        /// Run the long cases, too.
        #[arg(long)]
        long: bool,
        /// Use the existing target/release/pinvisor, without building it first.
        #[arg(long)]
        no_build: bool,
    },
    /// Measure starts of guests beside other monitors, and print a table.
    Bench(bench::Options),
    /// For scripts on the test machine.
    #[command(subcommand)]
    Inside(Inside),
}

#[derive(Debug, Subcommand)]
enum Inside {
    /// Leave many single hugepages and one block free, and run a command.
    Shape {
        #[command(flatten)]
        shape: shape::Shape,
        /// The command.
        #[arg(required = true, last = true)]
        command: Vec<String>,
    },
    /// Hold a pattern in nearly all free memory while a command runs; exit with 9 if a word of it changed.
    Canary {
        #[command(flatten)]
        canary: canary::Canary,
        /// The command.
        #[arg(required = true, last = true)]
        command: Vec<String>,
    },
    /// Leave half of the free memory as single pages, and run a command.
    Scatter {
        #[command(flatten)]
        scatter: scatter::Scatter,
        /// The command.
        #[arg(required = true, last = true)]
        command: Vec<String>,
    },
    /// Hold a pattern in all hugepages of 2 MiB that are free, or become free while a command runs, and report what
    /// changed as `KEY_changed`.
    Pool {
        /// The key.
        #[arg(long)]
        key: String,
        /// The command.
        #[arg(required = true, last = true)]
        command: Vec<String>,
    },
    /// Start a monitor and print when its guest's init ran and when it was gone, as JSON.
    Boot {
        #[command(flatten)]
        boot: boot::Boot,
        /// The monitor's command.
        #[arg(required = true, last = true)]
        command: Vec<String>,
    },
    /// Run `linux-stress reads`, or a monitor whose guest does, and print what happened meanwhile, as JSON.
    Between {
        #[command(flatten)]
        between: between::Between,
        /// The command.
        #[arg(required = true, last = true)]
        command: Vec<String>,
    },
    /// Run a monitor many times at once, and print what that took and left behind, as JSON.
    Many {
        #[command(flatten)]
        many: many::Many,
        /// The command.
        #[arg(required = true, last = true)]
        command: Vec<String>,
    },
    /// Send datagrams to a broadcast address until killed.
    Broadcast {
        /// Address and port.
        to: String,
    },
    /// Deny one system call to a command.
    Deny {
        #[command(flatten)]
        deny: deny::DeniedCall,
        /// The command.
        #[arg(required = true, last = true)]
        command: Vec<String>,
    },
    /// Hand something over to `pinvisor run --handover fd=N`.
    Offer {
        #[command(flatten)]
        offer: offer::Offer,
        /// The command.
        #[arg(required = true, last = true)]
        command: Vec<String>,
    },
    /// Attempt to open files as a monitor's main thread that no filter of system calls restricts.
    WithoutFiles,
    /// Try to move pages that are pinned, and others, on a machine with two NUMA nodes.
    PinProof,
    /// Send NVMe's Virtualization Management command to a controller.
    NvmeManage {
        /// Its character device.
        node: PathBuf,
        /// Command dword 10: the action, the resource's type << 8, the controller << 16.
        dword10: u32,
        /// Command dword 11: how many of the resource.
        dword11: u32,
    },
}

#[derive(Debug, Args)]
struct MachineArgs {
    /// Architecture of the machine: aarch64 has no files of this machine, but busybox and what is static.
    #[arg(long, value_enum, default_value = "x86_64")]
    arch: Arch,
    /// Memory of the machine.
    #[arg(long, default_value = "2G", value_name = "SIZE")]
    memory: String,
    /// Processors. QEMU loses stores to devices with more than one.
    #[arg(long, default_value_t = 1)]
    cpus: u32,
    /// Hugepages of 2 MiB reserved at boot.
    #[arg(long, default_value_t = 0, value_name = "N")]
    hugepages_2m: u32,
    /// Hugepages of 1 GiB reserved at boot.
    #[arg(long, default_value_t = 0, value_name = "N")]
    hugepages_1g: u32,
    /// A PCI device, as QEMU's -device takes it, behind its own port or bridge. Repeatable.
    #[arg(long, value_name = "QEMU_DEVICE_ARG")]
    device: Vec<String>,
    /// An additional argument for QEMU. Repeatable. Disk images are always snapshots.
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    qemu_arg: Vec<String>,
    /// A word for the machine's kernel command line. Repeatable.
    #[arg(long, value_name = "ARG")]
    kernel_arg: Vec<String>,
    /// Kernel of the machine.
    #[arg(long, value_enum, default_value = "groups")]
    flavour: Flavour,
    /// IOMMU of the machine.
    #[arg(long, value_enum, default_value = "none")]
    iommu: Iommu,
    /// Use the existing target/release/pinvisor, without building it first.
    #[arg(long)]
    no_build: bool,
}

impl MachineArgs {
    fn machine(&self) -> Machine {
        let machine = Machine::builder()
            .arch(self.arch)
            .memory(&self.memory)
            .cpus(self.cpus)
            .hugepages_2m(self.hugepages_2m)
            .hugepages_1g(self.hugepages_1g)
            .flavour(self.flavour)
            .iommu(self.iommu)
            .all_disks_are_snapshots();
        let machine = self
            .device
            .iter()
            .fold(machine, |machine, device| machine.device(device));
        let machine = self
            .qemu_arg
            .iter()
            .fold(machine, |machine, word| machine.qemu_arg(word));
        self.kernel_arg
            .iter()
            .fold(machine, |machine, word| machine.kernel_arg(word))
    }
}

/// Builds what runs on the test machine beside this program, unless disabled.
fn build(arch: Arch, no_build: bool) -> Result<()> {
    if no_build {
        return Ok(());
    }
    let own = "--package pinvisor --package pinvisor-stress --package guest-tests --bin pinvisor --bin pinvisor-stress \
               --bin pinvisor-control --bin kernel-check --example orchestrator";
    match arch {
        Arch::X86_64 => cargo_build(&format!("{own} --package falsify --lib"))?,
        // This program, too: here it is one for another machine.
        Arch::Aarch64 => build_for(
            &format!("{own} --bin testbed"),
            GuestTarget::Linux(Arch::Aarch64),
        )?,
    }
    let mut guests = vec![
        ("dma-stress", GuestTarget::BareMetal(arch)),
        ("linux-stress", GuestTarget::Linux(arch)),
    ];
    if arch == Arch::X86_64 {
        guests.push(("window-example", GuestTarget::Linux(Arch::X86_64)));
    }
    for (program, target) in guests {
        build_for(&format!("--package {program} --bin {program}"), target)?;
    }
    Ok(())
}

/// Builds for another target than this machine's.
fn build_for(arguments: &str, target: GuestTarget) -> Result<()> {
    let triple = target.triple();
    rust_target::ensure(triple, shell::progress)?;
    cargo_build(&format!("{arguments} --target {triple}"))
}

fn cargo_build(arguments: &str) -> Result<()> {
    let manifest = paths::checkout().join("Cargo.toml");
    let mut cargo = shell::command("cargo", ["build", "--quiet", "--release"]);
    cargo.args(arguments.split_whitespace());
    shell::run(cargo.arg("--manifest-path").arg(manifest)).map(drop)
}

/// `pinvisor` as it is distributed.
fn cargo_build_distributed() -> Result<()> {
    let triple = GuestTarget::Linux(Arch::X86_64).triple();
    rust_target::ensure(triple, shell::progress)?;
    let manifest = paths::checkout().join("Cargo.toml");
    let mut cargo = shell::command("cargo", ["build", "--quiet", "--profile", "dist"]);
    cargo.args([
        "--package",
        "pinvisor",
        "--bin",
        "pinvisor",
        "--target",
        triple,
    ]);
    shell::run(cargo.arg("--manifest-path").arg(manifest)).map(drop)
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(status) => ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX)),
        Err(error) => {
            eprintln!("testbed: {error}");
            ExitCode::from(OWN_FAILURE)
        }
    }
}

/// Does the task and returns the exit status.
fn run(task: Task) -> Result<i32> {
    match task {
        Task::Setup { arch, update } => setup(arch, update).map(|()| 0),
        Task::Exec {
            machine,
            timeout,
            script,
        } => {
            handle_interrupts()?;
            build(machine.arch, machine.no_build)?;
            let script = script_text(&script)?;
            let mut description = machine.machine();
            if let Some(seconds) = timeout {
                description = description.timeout(Duration::from_secs(seconds));
            }
            let outcome = description.run_streaming(&script, &mut show)?;
            Ok(outcome.status.code())
        }
        Task::Demo { arch, no_build } => {
            handle_interrupts()?;
            build(arch, no_build)?;
            demo::show(arch, show)
        }
        Task::Run {
            arch,
            filter,
            long,
            no_build,
        } => {
            handle_interrupts()?;
            build(arch, no_build)?;
            let filter = &filter;
            let choice = Choice { arch, filter, long };
            Ok(i32::from(!runner::run(cases::ALL, choice)))
        }
        Task::Bench(options) => {
            handle_interrupts()?;
            if !options.no_build {
                build(Arch::X86_64, false)?;
                cargo_build_distributed()?;
            }
            Ok(i32::from(!bench::run(&options)?))
        }
        Task::Inside(Inside::Boot { boot, command }) => boot::run(boot, &command),
        Task::Inside(Inside::Between { between, command }) => between::run(between, &command),
        Task::Inside(Inside::Many { many, command }) => many::run(many, &command),
        Task::Inside(Inside::Shape { shape, command }) => shape::run(shape, &command),
        Task::Inside(Inside::Canary { canary, command }) => canary::run(canary, &command),
        Task::Inside(Inside::Scatter { scatter, command }) => scatter::run(scatter, &command),
        Task::Inside(Inside::Pool { key, command }) => canary::pool(&key, &command),
        Task::Inside(Inside::Deny { deny, command }) => deny::run(deny, &command),
        Task::Inside(Inside::Broadcast { to }) => match broadcast::run(&to)? {},
        Task::Inside(Inside::PinProof) => pin_proof::run(),
        Task::Inside(Inside::WithoutFiles) => without_files::run(),
        Task::Inside(Inside::NvmeManage {
            node,
            dword10,
            dword11,
        }) => nvme_manage::run(&node, dword10, dword11).map(|()| 0),
        Task::Inside(Inside::Offer { offer, command }) => offer::run(&offer, &command),
        Task::Shell { machine } => {
            handle_interrupts()?;
            build(machine.arch, machine.no_build)?;
            Ok(machine.machine().shell()?.status.code())
        }
    }
}

fn script_text(words: &[String]) -> Result<String> {
    if words != ["-"] {
        return Ok(words.join(" ") + "\n");
    }
    let mut text = String::new();
    io::stdin()
        .read_to_string(&mut text)
        .map_err(|source| Error::File {
            action: "read",
            path: "standard input".into(),
            source,
        })?;
    Ok(text)
}

/// Passes the script's output on. A reader that went away is no reason to stop the script.
fn show(chunk: &[u8]) {
    let mut output = io::stdout().lock();
    let _ = output.write_all(chunk).and_then(|()| output.flush());
}
