// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What `pinvisor run` refuses, with which name, words and status.

mod by_state;

use std::path::Path;

use super::addresses::ADDRESSES;
use super::check::Findings;
use super::check_host::WITHOUT_NOIOMMU;
use super::rig::Rig;
use super::script;
use super::step::{self, STEP, Step};
use crate::error::{AtPath, Result};
use crate::machine::{Machine, Outcome, Status};
use crate::runner::CaseResult;
use crate::setup::{self, Flavour};

pub use by_state::BY_STATE;

/// Refusals before a device is bound.
pub const BY_FILE: &[Step] = &[
    Step {
        name: "option-missing",
        before: "echo > /tmp/empty.toml\n",
        command: "pinvisor run --config /tmp/empty.toml",
        status: "1",
        error: "option-missing",
        says: &["missing"],
        ..STEP
    },
    Step {
        name: "config-missing",
        command: "pinvisor run --config /nowhere.toml",
        status: "1",
        error: "config-file",
        says: &["/nowhere.toml"],
        ..STEP
    },
    Step {
        name: "pidfile",
        command: "pinvisor run $ready --device $TESTBED_BDF_0 --pidfile /nowhere/pid",
        status: "1",
        error: "pidfile",
        says: &["/nowhere/pid"],
        ..STEP
    },
    Step {
        name: "events",
        command: "pinvisor run $ready --device $TESTBED_BDF_0 --event-file /nowhere/events",
        status: "1",
        error: "events",
        says: &["/nowhere/events"],
        ..STEP
    },
    Step {
        name: "jail-user",
        command: "pinvisor run $ready --device $TESTBED_BDF_0 --jail-user no-such-user",
        status: "1",
        error: "jail-user",
        says: &["no-such-user", "UID:GID"],
        ..STEP
    },
    Step {
        name: "jail-root",
        command: "pinvisor run $ready --device $TESTBED_BDF_0 --jail-root /nowhere",
        status: "1",
        error: "jail-root",
        says: &["/nowhere"],
        ..STEP
    },
    Step {
        name: "jail-restart",
        command: "pinvisor run $ready --device $TESTBED_BDF_0 --jail-root / --on-reset restart",
        status: "1",
        error: "jail-restart",
        says: &["--jail-root", "--on-reset restart"],
        ..STEP
    },
    Step {
        name: "kernel-missing",
        command: "pinvisor run --noiommu --memory 64M --device $TESTBED_BDF_0 --kernel /nowhere",
        status: "1",
        error: "kernel",
        says: &["/nowhere"],
        ..STEP
    },
    Step {
        name: "kernel-truncated",
        before: "head -c 3000000 /testbed/kernel > /tmp/short\n",
        command: "pinvisor run --noiommu --memory 64M --device $TESTBED_BDF_0 --kernel /tmp/short",
        status: "1",
        error: "kernel",
        says: &["/tmp/short", "truncated"],
        ..STEP
    },
    Step {
        name: "kernel-not-bzimage",
        before: "head -c 3000000 /dev/urandom > /tmp/noise\n",
        command: "pinvisor run --noiommu --memory 64M --device $TESTBED_BDF_0 --kernel /tmp/noise",
        status: "1",
        error: "kernel",
        says: &["/tmp/noise", "bzImage"],
        ..STEP
    },
    Step {
        name: "kernel-compressed",
        before: "gzip -c /testbed/kernel > /tmp/kernel.gz\n",
        command: "pinvisor run --noiommu --memory 64M --device $TESTBED_BDF_0 --kernel /tmp/kernel.gz",
        status: "1",
        error: "kernel",
        says: &["a gzip file", "hint: gzip -dc < /tmp/kernel.gz > kernel"],
        ..STEP
    },
    Step {
        name: "unbootable",
        command: "pinvisor run --noiommu --memory 256M --device $TESTBED_BDF_0 --kernel /testbed/kernel --cmdline 'quiet acpi=off'",
        status: "1",
        error: "params",
        says: &["cannot boot with acpi=off", "remove acpi=off"],
        ..STEP
    },
    Step {
        name: "initramfs-missing",
        command: "pinvisor run $ready --device $TESTBED_BDF_0 --initramfs /nowhere",
        status: "1",
        error: "file",
        says: &["/nowhere"],
        ..STEP
    },
    Step {
        name: "initramfs-pipe",
        before: "mkfifo /tmp/pipe\n",
        command: "pinvisor run $ready --device $TESTBED_BDF_0 --initramfs /tmp/pipe",
        status: "1",
        error: "file",
        says: &["/tmp/pipe", "not a regular file"],
        ..STEP
    },
    Step {
        name: "device-twice",
        command: "pinvisor run $ready --device $TESTBED_BDF_0 --device $TESTBED_BDF_0",
        status: "1",
        error: "device-twice",
        says: &["$BDF", "twice"],
        ..STEP
    },
    Step {
        name: "too-many-devices",
        before: "many=; for bus in $(seq 10 60); do many=\"$many --device $bus:00.0\"; done\n",
        command: "pinvisor run $ready $many",
        status: "1",
        error: "too-many-devices",
        says: &["51 devices"],
        ..STEP
    },
    Step {
        name: "profile",
        before: "echo 'version = 7' > /tmp/bad.profile\n",
        command: "pinvisor run $ready --device $TESTBED_BDF_0,dma=mediate,profile=/tmp/bad.profile",
        status: "1",
        error: "profile",
        says: &["/tmp/bad.profile"],
        ..STEP
    },
    Step {
        name: "profile-of-several-stores",
        before: "sed -e '/^offset = 0x98/a store = 4' -e '/^partial/d' /testbed/edu.toml > /tmp/several.profile\n",
        command: "pinvisor run $ready --device $TESTBED_BDF_0,dma=mediate,profile=/tmp/several.profile",
        status: "1",
        error: "profile",
        says: &[
            "/tmp/several.profile",
            "\"command\" is written in 2 stores",
            "start mask",
        ],
        ..STEP
    },
    Step {
        name: "no-device",
        command: "pinvisor run $ready --device 7f:00.0",
        status: "3",
        error: "no-device",
        says: &["0000:7f:00.0", "pinvisor list"],
        ..STEP
    },
    Step {
        name: "not-bound",
        command: "pinvisor run $ready --device $TESTBED_BDF_0",
        status: "3",
        error: "not-bound",
        says: &["$BDF", "vfio-pci", "pinvisor bind $BDF"],
        ..STEP
    },
    Step {
        name: "no-iommufd",
        before: "mv /dev/iommu /dev/iommu.away\n",
        command: "pinvisor run $ready --device $TESTBED_BDF_0",
        after: "mv /dev/iommu.away /dev/iommu\n",
        status: "2",
        error: "open-iommufd",
        says: &["/dev/iommu"],
        ..STEP
    },
    Step {
        name: "no-stress",
        before: "cp $(command -v pinvisor) /tmp/alone\n",
        command: "env PATH=/nonexistent /tmp/alone stress --software",
        after: "rm /tmp/alone\n",
        status: "1",
        error: "no-stress",
        says: &["pinvisor-stress"],
        ..STEP
    },
    Step {
        name: "no-software-engine",
        command: "pinvisor stress --kernel /testbed/status --memory 64M --noiommu --device $TESTBED_BDF_0 --break bit",
        status: "1",
        error: "no-software-engine",
        says: &["--software"],
        ..STEP
    },
    Step {
        name: "too-much-synthetic-memory",
        command: "pinvisor stress --software --kernel /testbed/status --memory 30G",
        status: "4",
        error: "software",
        says: &["synthetic", "28 GiB"],
        ..STEP
    },
    Step {
        name: "standard-output-full",
        command: "sh -c 'pinvisor list 2>&1 > /dev/full'",
        status: "2",
        error: "process",
        says: &["standard output", "No space left"],
        ..STEP
    },
];

/// A kernel that has no noiommu mode, hence no `IOMMU_IOAS_NOIOMMU_GET_PA`.
pub const BY_KERNEL: &[Step] = &[Step {
    name: "no-noiommu",
    command: "pinvisor run $ready --device $TESTBED_BDF_0",
    status: "2",
    error: "not-bound",
    says: &["$BDF", "vfio-pci", "CONFIG_VFIO_NOIOMMU", "pinvisor check"],
    ..STEP
}];

/// Code of a guest that powers itself off with status 3: mov $0x600, %dx; mov $0x03000034, %eax
/// (sleep control in the low byte, the status in the high one); out %eax, %dx; hlt; jmp back.
const STATUS: &[u8] = &[
    0x66, 0xba, 0x00, 0x06, 0xb8, 0x34, 0x00, 0x00, 0x03, 0xef, 0xf4, 0xeb, 0xfd,
];
/// The same with status 0, which is a good end.
const OFF: &[u8] = &[
    0x66, 0xba, 0x00, 0x06, 0xb8, 0x34, 0x00, 0x00, 0x00, 0xef, 0xf4, 0xeb, 0xfd,
];
/// Code of a guest that restarts: mov $0x602, %dx; mov $1, %al; out %al, %dx; hlt; jmp back.
const RESET: &[u8] = &[0x66, 0xba, 0x02, 0x06, 0xb0, 0x01, 0xee, 0xf4, 0xeb, 0xfd];
/// Code of a guest that does nothing: hlt; jmp back.
const ENDLESS: &[u8] = &[0xf4, 0xeb, 0xfd];
/// Code of a guest that has no handler for what it does: ud2.
const CRASH: &[u8] = &[0x0f, 0x0b];

/// Refusals for the state of the machine or for files, one after the other in one boot.
pub fn by_state_and_files() -> Result<CaseResult> {
    let rig = Rig::new(8, "")?;
    let machine = machine(&rig)?
        .device("e1000e")
        .qemu_arg("-device")
        .qemu_arg("edu,bus=pcie.0,addr=5");
    run(&machine, &[BY_FILE, BY_STATE, ADDRESSES])
}

/// What a kernel without noiommu mode cannot do.
pub fn kernel_without_noiommu() -> Result<CaseResult> {
    let rig = Rig::new(8, "")?;
    let machine = machine(&rig)?.flavour(Flavour::NoNoiommu);
    run(&machine, &[BY_KERNEL, WITHOUT_NOIOMMU])
}

/// A machine on which the steps of this file, and of others, can be taken.
pub(super) fn machine(rig: &Rig) -> Result<Machine> {
    let edu = crate::paths::checkout().join("devices/profiles/edu.toml");
    let machine = rig
        .machine(setup::guest_kernel()?.packaged())
        .memory("6G")
        .file("edu.toml", edu);
    with_guests(rig, machine)
}

/// `machine` with hugepages, and with guests that end at once or never.
pub(super) fn with_guests(rig: &Rig, machine: Machine) -> Result<Machine> {
    let mut machine = machine.hugepages_2m(150);
    for (name, code) in [
        ("status", STATUS),
        ("off", OFF),
        ("reset", RESET),
        ("endless", ENDLESS),
        ("crash", CRASH),
    ] {
        let path = rig.disk().with_file_name(name);
        write_guest(&path, code)?;
        machine = machine.file(name, path);
    }
    Ok(machine)
}

/// Takes the steps in one boot.
pub(super) fn run(machine: &Machine, lists: &[&'static [Step]]) -> Result<CaseResult> {
    let steps: Vec<&Step> = lists.iter().flat_map(|list| list.iter()).collect();
    let (findings, outcome) = take(machine, &steps, |_| String::new())?;
    Ok(findings.into_result(&outcome))
}

/// Takes the steps in one boot, runs the lines that `more` gives after each, and judges all but those.
pub(super) fn take(
    machine: &Machine,
    steps: &[&Step],
    more: impl Fn(&Step) -> String,
) -> Result<(Findings, Outcome)> {
    let script: String = steps
        .iter()
        .map(|step| step.script() + &more(step))
        .collect();
    let outcome = machine.run(
        &[
            script::PRELUDE,
            step::PRELUDE,
            "say bdf $TESTBED_BDF_0\n",
            &script,
            "say_hugepages after\nsay_processes\ntrue\n",
        ]
        .concat(),
    )?;
    let mut findings = Findings::default();
    findings.expect_eq("script", outcome.status, Status::Exited(0));
    for step in steps {
        step.judge(&mut findings, &outcome);
    }
    // Whatever fails, nothing else holds a device when it is to be closed (vmm/src/passthrough/assigned.rs).
    findings.expect(
        !outcome.output.contains("is still in use"),
        "a device is still in use when it is to be closed",
    );
    Ok((findings, outcome))
}

/// Writes an ELF file with one segment, entered at its first byte.
fn write_guest(path: &Path, code: &[u8]) -> Result<()> {
    const ADDRESS: u64 = 2 << 20;
    const HEADERS: u64 = 64 + 56;
    let length = code.len() as u64;
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // e_type ET_EXEC, e_machine EM_X86_64.
    bytes.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    // e_entry, e_phoff, e_shoff.
    for value in [ADDRESS, 64, 0] {
        bytes.extend(value.to_le_bytes());
    }
    // e_flags; sizes and numbers of headers: one program header of 56 bytes.
    bytes.extend([0, 0, 0, 0]);
    for value in [64u16, 56, 1, 64, 0, 0] {
        bytes.extend(value.to_le_bytes());
    }
    // p_type PT_LOAD, p_flags read and execute.
    bytes.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    // p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align.
    for value in [HEADERS, ADDRESS, ADDRESS, length, length, 4096] {
        bytes.extend(value.to_le_bytes());
    }
    bytes.extend(code);
    std::fs::write(path, bytes).at("write", path)
}
