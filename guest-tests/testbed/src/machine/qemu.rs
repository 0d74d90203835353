// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! QEMU's command line for a test machine.

use std::path::Path;
use std::process::Command;

use super::place::Placed;
use super::{Iommu, Machine, autopsy};
use crate::error::Result;
use crate::setup::{self, Arch};

/// Against false alarms on a loaded build machine, where emulated time stops now and then; and a
/// periodic timer: QEMU 10.0 now and then leaves a processor that runs nested guests halted
/// although interrupts are on and the timer's is pending (seen with one processor: HLT=1, IF set,
/// vector 236 in the local APIC's IRR, ISR empty). Any interrupt wakes it; a one-shot timer never
/// sends another.
///
/// The processor's TSC is not constant (CPUID), so KVM keeps the frequency that was measured first for its guests
/// (`kvm_timer_init`). If the second measurement is higher by more than the tolerance, `kvm_set_tsc_khz` fails for each
/// vCPU, whose TSC stands still for KVM from then on, and with it a timer in TSC-deadline mode, which a nested QEMU offers.
const LENIENT_OPTIONS: &str = "tsc=reliable no_timer_check nowatchdog rcupdate.rcu_cpu_stall_suppress=1 \
                        nvme_core.io_timeout=255 mitigations=off nohz=off highres=off kvm.tsc_tolerance_ppm=100000";

/// Files of one run.
#[derive(Debug)]
pub struct Files<'a> {
    /// Folder for sockets, logs and snapshots.
    pub folder: &'a Path,
    /// The test machine's kernel.
    pub kernel: &'a Path,
    /// Its initramfs.
    pub initramfs: &'a Path,
}

/// What the script's input and output are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Terminal {
    /// No input; output to QEMU's standard output.
    Output,
    /// A shell on QEMU's standard input and output.
    Interactive,
}

/// QEMU, with the clock that the machine is to have.
fn program(machine: &Machine) -> Result<Command> {
    if !machine.counts {
        return Ok(Command::new(machine.arch.qemu()));
    }
    let mut command = Command::new(setup::counting_qemu()?);
    for folder in setup::FIRMWARE {
        command.args(["-L", folder]);
    }
    command.args(["-icount", "shift=0,sleep=off"]);
    Ok(command)
}

/// The whole command.
pub fn command(
    machine: &Machine,
    files: &Files<'_>,
    placed: &[Placed],
    terminal: Terminal,
) -> Result<Command> {
    let mut command = program(machine)?;
    let folder = files.folder;
    command.env("TMPDIR", folder);
    // No IOMMU is there unless it is asked for.
    let (board, cpu) = machine.board.names(machine.arch);
    command.args(["-M", board, "-cpu", cpu]);
    command.args(["-nodefaults", "-no-user-config"]);
    command.args(["-display", "none", "-no-reboot", "-m", &machine.memory]);
    command.args(["-smp", &machine.cpus.to_string()]);
    command.args(["-accel", "tcg"]);
    command
        .arg("-kernel")
        .arg(files.kernel)
        .arg("-initrd")
        .arg(files.initramfs);
    command.args(["-append", &kernel_command_line(machine, terminal)]);
    console(&mut command, folder);
    if machine.iommu == Iommu::Intel {
        command.args(["-device", "intel-iommu,intremap=on"]);
    }
    let root = setup::root(machine.arch)?;
    file_systems(&mut command, folder, &root);
    ports(&mut command, folder, terminal);
    for disk in &machine.disks {
        let snapshot = if disk.keeps_writes { "off" } else { "on" };
        let file = disk.image.to_string_lossy().replace(',', ",,");
        let mut drive = format!(
            "file={file},if=none,id={},format=raw,snapshot={snapshot}",
            disk.id
        );
        if let Some(most) = machine.requests_per_second {
            drive += &format!(",throttling.iops-total={most}");
        }
        command.args(["-drive", &drive]);
    }
    if machine.all_disks_are_snapshots {
        command.arg("-snapshot");
    }
    for argument in placed.iter().flat_map(|placed| &placed.arguments) {
        command.args(["-device", argument]);
    }
    if !machine.traces.is_empty() {
        command.arg("-D").arg(folder.join("trace"));
    }
    for event in &machine.traces {
        command.args(["-trace", event]);
    }
    command.args(&machine.qemu_args);
    Ok(command)
}

fn kernel_command_line(machine: &Machine, terminal: Terminal) -> String {
    let console = match machine.arch {
        Arch::X86_64 => "ttyS0",
        Arch::Aarch64 => "ttyAMA0",
    };
    let mut words = vec![
        format!("console={console} loglevel=5 panic=-1"),
        LENIENT_OPTIONS.to_string(),
    ];
    for (size, count) in [("2M", machine.hugepages_2m), ("1G", machine.hugepages_1g)] {
        if count > 0 {
            words.push(format!("hugepagesz={size} hugepages={count}"));
        }
    }
    if terminal == Terminal::Interactive {
        words.push("testbed.shell".into());
    }
    words.extend(machine.kernel_args.iter().cloned());
    words.join(" ")
}

/// The kernel's console, in a file; and two sockets by which a silent machine is asked what it does.
fn console(command: &mut Command, folder: &Path) {
    let socket = |id: &str, name| {
        let prefix = format!("socket,id={id},server=on,wait=off,path=");
        in_folder(&prefix, folder, name)
    };
    let log = in_folder("logfile=", folder, "console");
    let serial = format!("{},{log}", socket("console", autopsy::SERIAL));
    command.args(["-chardev", &serial, "-serial", "chardev:console"]);
    command.args(["-chardev", &socket("monitor", autopsy::MONITOR)]);
    command.args(["-mon", "chardev=monitor,mode=readline"]);
}

/// The machine's files, `root` of this machine, and the run's own.
fn file_systems(command: &mut Command, folder: &Path, root: &Path) {
    let options = "security_model=none,readonly=on,multidevs=remap";
    let quoted = |path: &Path| path.to_string_lossy().replace(',', ",,");
    let (root, share) = (quoted(root), quoted(&folder.join("share")));
    for (id, path) in [("build-machine", root), ("testbed", share)] {
        command.args(["-fsdev", &format!("local,id={id},path={path},{options}")]);
        command.args([
            "-device",
            &format!("virtio-9p-pci,fsdev={id},mount_tag={id}"),
        ]);
    }
}

/// The script's output and status, on ports of their own: kernel messages only reach the console.
///
/// Both go to files, and no other thread of QEMU takes part (`ioeventfd=off`). So each store to a port is written
/// before the machine goes on. What a pipe has no room for would be lost when the machine ends.
fn ports(command: &mut Command, folder: &Path, terminal: Terminal) {
    command.args(["-device", "virtio-serial-pci,ioeventfd=off"]);
    command
        .arg("-chardev")
        .arg(in_folder("file,id=status,path=", folder, "status"));
    command.args([
        "-device",
        "virtserialport,chardev=status,name=testbed.status,nr=1",
    ]);
    match terminal {
        Terminal::Output => {
            command.arg("-chardev").arg(in_folder(
                "file,id=output,path=",
                folder,
                super::run::OUTPUT,
            ));
            command.args([
                "-device",
                "virtserialport,chardev=output,name=testbed.output,nr=2",
            ]);
        }
        Terminal::Interactive => {
            command.args(["-chardev", "stdio,id=terminal,signal=off"]);
            command.args(["-device", "virtconsole,chardev=terminal,nr=0"]);
        }
    }
}

fn in_folder(prefix: &str, folder: &Path, name: &str) -> String {
    format!(
        "{prefix}{}",
        folder.join(name).to_string_lossy().replace(',', ",,")
    )
}
