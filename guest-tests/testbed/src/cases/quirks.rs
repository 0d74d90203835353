// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Devices and hosts with unusual requirements, driven by the stock kernel's own drivers.

use std::collections::BTreeMap;

use super::check::{self, Findings};
use super::rig::Rig;
use super::script::{self, PRELUDE};
use super::step::{STEP, Step};
use crate::error::AtPath;
use crate::machine::{Board, Outcome};
use crate::runner::CaseResult;
use crate::{Result, guest, image, setup};

/// Modules of the guests.
const MODULES: &[&str] = &[
    "nvme",
    "e1000e",
    "ne2k-pci",
    "i6300esb",
    "igbvf",
    "e1000",
    "virtio_pci",
    "virtio_rng",
];

/// The first device is an NVMe controller, the second an e1000e with a [`rom`], then:
const DEVICES: [&str; 5] = [
    "ne2k_pci,netdev=net2",
    "i6300esb",
    "igb,netdev=net4",
    "e1000,netdev=net5",
    "virtio-rng-pci",
];

/// An NVMe controller with virtual functions, which all have the disk; QEMU requires its subsystem
/// first.
const NVME_PARENT: [&str; 4] = [
    "nvme-subsys,id=subsystem",
    "pcie-root-port,id=parents,bus=pcie.0,addr=0x1c,chassis=60",
    "nvme,id=parent,bus=parents,serial=parent,subsys=subsystem,max_ioqpairs=4,sriov_max_vfs=1,sriov_vq_flexible=2,sriov_vi_flexible=1",
    "nvme-ns,bus=parent,drive=virtual,nsid=1,shared=on",
];

/// Script: the controller gives up queues and an interrupt, and its virtual function, `$nvme_vf`, gets them.
const NVME_VF: &str = "\
for parent in /sys/class/nvme/*; do grep -q parent $parent/serial && break; done
node=/dev/$(basename $parent) device=$(readlink -f $parent/device)
testbed inside nvme-manage $node 1 0 && testbed inside nvme-manage $node $((1 | 1 << 8)) 0 || exit 1
echo 1 > $parent/reset_controller
echo 0 > $device/sriov_drivers_autoprobe
echo 1 > $device/sriov_numvfs
testbed inside nvme-manage $node $((8 | 1 << 8 | 1 << 16)) 1 &&
    testbed inside nvme-manage $node $((8 | 1 << 16)) 2 &&
    testbed inside nvme-manage $node $((9 | 1 << 16)) 0 || exit 1
nvme_vf=$(basename $(readlink $device/virtfn0))
testbed-bind $nvme_vf || exit 1
";

/// Of a physical function, with its own driver, whose virtual functions are on.
const PHYSICAL: &[Step] = &[
    Step {
        name: "pf-check",
        command: "pinvisor check $TESTBED_BDF_4",
        status: "2",
        shows: &["FAIL device-in-use"],
        says: &[
            "2 of its virtual functions are enabled",
            "echo 0 > /sys/bus/pci/devices/",
        ],
        ..STEP
    },
    Step {
        name: "pf-bind",
        command: "pinvisor bind $TESTBED_BDF_4",
        status: "3",
        error: "bind-in-use",
        says: &[
            "2 of its virtual functions are enabled",
            "echo 0 > /sys/bus/pci/devices/",
        ],
        ..STEP
    },
];

/// vfio-pci takes none with virtual functions, but turns them on (`enable_sriov`).
const PHYSICAL_OF_VFIO: Step = Step {
    name: "pf-run",
    before: "echo 0 > $pf/sriov_numvfs; testbed-bind $TESTBED_BDF_4; echo 2 > $pf/sriov_numvfs\n",
    command: "pinvisor run --noiommu --device $TESTBED_BDF_4 --memory 64M --kernel /testbed/kernel",
    after: "echo 0 > $pf/sriov_numvfs\n",
    status: "3",
    error: "unbind-open",
    says: &[
        "2 of its virtual functions are enabled",
        "echo 0 > /sys/bus/pci/devices/",
    ],
    ..STEP
};

/// QEMU's trace of a watchdog that ran out.
const RAN_OUT: &str = "watchdog_perform_action";

/// A guest: its key, its devices, words for its command line.
type Guest = (&'static str, &'static str, &'static str);

const GUESTS: [Guest; 6] = [
    (
        // Reads the ROM while both devices work.
        "rom",
        "--device $TESTBED_BDF_0 --device $TESTBED_BDF_1",
        "rom",
    ),
    (
        // Linux gives BARs other addresses then.
        "rescan",
        "--device $TESTBED_BDF_0 --device $TESTBED_BDF_1 --device $TESTBED_BDF_5 --device $TESTBED_BDF_6",
        "rescan",
    ),
    // Its driver moves packets by string I/O.
    ("ports", "--device $TESTBED_BDF_2", ""),
    // Its driver starts it by registers of config space that are in no capability.
    ("gaps", "--device $TESTBED_BDF_3", "i6300esb.heartbeat=2"),
    // Memory decoding is hard-wired to 0 in its COMMAND, as are its IDs to ones.
    ("vf", "--device $vf", ""),
    // Linux copies all that it moves.
    ("nvme-vf", "--device $nvme_vf", "swiotlb=force"),
];

/// Guests on a host that serves no message-signalled interrupts, nor a line that another has.
const LINE_GUESTS: [Guest; 3] = [
    ("alone", "--device $TESTBED_BDF_0", ""),
    (
        "shared",
        "--device $TESTBED_BDF_0 --device $TESTBED_BDF_3",
        "",
    ),
    ("hosts", "--device $TESTBED_BDF_1", ""),
];

/// A disk from a seed, and the guests' initramfs.
fn rig(seed: u64) -> Result<Rig> {
    Rig::with_initramfs(seed, |path| {
        guest::write_initramfs(path, MODULES, include_str!("../../guest/quirks"))
    })
}

/// All of them on one machine.
pub fn quirks() -> Result<CaseResult> {
    let rig = rig(21)?;
    let machine = rig.machine(setup::guest_kernel()?.vmlinux());
    let machine = [1, 2, 4, 5].iter().fold(machine, |machine, number| {
        let netdev = format!("user,id=net{number}");
        machine.qemu_arg("-netdev").qemu_arg(&netdev)
    });
    let rom_file = tempfile::NamedTempFile::new().at("create", "a temporary file")?;
    let rom = rom();
    image::write(rom_file.path(), &rom)?;
    let with_rom = format!("e1000e,netdev=net1,romfile={}", rom_file.path().display());
    let machine = DEVICES
        .iter()
        .fold(machine.device(&with_rom), |machine, device| {
            machine.device(device)
        })
        .hugepages_2m(160)
        .kernel_arg("vfio_pci.enable_sriov=1")
        .trace(RAN_OUT)
        .qemu_arg("-action")
        .qemu_arg("watchdog=none");
    let other = tempfile::NamedTempFile::new().at("create", "a temporary file")?;
    image::write(other.path(), &rig.contents)?;
    let machine = NVME_PARENT
        .iter()
        .fold(machine.disk("virtual", other.path()), |machine, device| {
            machine.qemu_arg("-device").qemu_arg(device)
        });
    let outcome = machine.run(&script())?;
    let mut findings = Findings::default();
    let facts = script::facts(&outcome.output);
    check::left_clean(&mut findings, &outcome, &facts);
    ended_well(&mut findings, &facts, &GUESTS);
    worked(&mut findings, &outcome, &image::sha256(&rig.contents));
    rom_is_read(&mut findings, &outcome, &image::sha256(&rom));
    for step in PHYSICAL.iter().chain([&PHYSICAL_OF_VFIO]) {
        step.judge(&mut findings, &outcome);
    }
    Ok(findings.into_result(&outcome))
}

/// A ROM of 4 KiB with one image in it, for no kind of machine that would run it.
fn rom() -> Vec<u8> {
    let mut rom = image::bytes(1, 24);
    rom.truncate(4096);
    rom[..3].copy_from_slice(&[0x55, 0xaa, 8]);
    // Offset of the PCI data structure, whose length in units of 512 bytes, code type and last-image bit follow.
    rom[0x18..0x1a].copy_from_slice(&[0x1c, 0]);
    rom[0x1c..0x34].fill(0);
    rom[0x1c..0x24].copy_from_slice(b"PCIR\x86\x80\xd3\x10");
    rom[0x26] = 0x18;
    rom[0x2c] = 8;
    rom[0x30..0x32].copy_from_slice(&[0xff, 0x80]);
    rom
}

/// The same each time, with the devices at work, and without a word of the kernel's or of Pinvisor's.
fn rom_is_read(findings: &mut Findings, outcome: &Outcome, hash: &str) {
    for turn in ["rom-1", "rom-2", "rom-3"] {
        findings.expect_eq(turn, said(outcome, "rom", turn), Some(hash));
    }
    findings.expect_eq("load", said(outcome, "rom", "load"), Some("works"));
    let facts = script::facts(&outcome.output);
    findings.expect_eq("lines", facts.get("rom_lines").copied(), Some("0"));
    findings.expect(
        !outcome.output.contains("read of Rom"),
        "Pinvisor could not read the ROM",
    );
}

/// No MSI, and VFIO masks lines at the interrupt controller, so that each must be exclusive. The
/// third device has the first one's line, the second one that of a device of the machine's own.
pub fn lines() -> Result<CaseResult> {
    let rig = rig(22)?;
    let machine = ["rtl8139", "pci-testdev", "edu"]
        .iter()
        .fold(
            rig.machine(setup::guest_kernel()?.vmlinux()),
            |machine, device| machine.device(device),
        )
        .hugepages_2m(160)
        .kernel_arg("pci=nomsi")
        // The ports above would use their lines otherwise.
        .kernel_arg("pcie_ports=compat")
        .kernel_arg("vfio_pci.nointxmask=1");
    let script = [
        PRELUDE,
        "for bdf in $TESTBED_BDF_0 $TESTBED_BDF_1 $TESTBED_BDF_3; do testbed-bind $bdf || exit 1; done\n\
         pinvisor check $TESTBED_BDF_0 | grep interrupts\n",
        &guests(&LINE_GUESTS),
    ]
    .concat();
    let outcome = machine.run(&script)?;
    let mut findings = Findings::default();
    let facts = script::facts(&outcome.output);
    check::left_clean(&mut findings, &outcome, &facts);
    ended_well(&mut findings, &facts, &LINE_GUESTS);
    let disk = image::sha256(&rig.contents);
    for key in ["alone", "shared"] {
        let found = said(&outcome, key, "disk");
        findings.expect_eq(key, found, Some(disk.as_str()));
    }
    for wanted in [
        "pci=nomsi",
        "MSI-X is hidden from the guest, because the host does not support it",
        "is used by vfio-intx(",
        "is used by virtio",
    ] {
        let is_there = outcome.output.contains(wanted);
        findings.expect(is_there, format!("no line contains `{wanted}`"));
    }
    Ok(findings.into_result(&outcome))
}

fn ended_well(findings: &mut Findings, facts: &BTreeMap<&str, &str>, all: &[Guest]) {
    for (key, ..) in all {
        let status = facts.get(format!("status_{key}").as_str()).copied();
        findings.expect_eq(key, status, Some("0"));
    }
}

/// Script: one guest after the other.
fn guests(all: &[Guest]) -> String {
    let mut script = String::new();
    for (key, devices, words) in all {
        script += &format!(
            "echo \"testbed: guest {key}\"\n\
             pinvisor run --noiommu {devices} --memory 256M --kernel /testbed/kernel --initramfs /testbed/initramfs \
             --cmdline 'console=ttyS0 quiet {words}' < /dev/null\n\
             say status_{key} $?\n"
        );
    }
    script + "say_hugepages after\nsay_processes\n"
}

/// A guest's report.
fn said<'a>(outcome: &'a Outcome, key: &str, fact: &str) -> Option<&'a str> {
    let (_, rest) = outcome
        .output
        .split_once(&format!("testbed: guest {key}\n"))?;
    let own = rest.split("testbed: status_").next().unwrap_or(rest);
    guest::facts(own).get(fact).copied()
}

fn script() -> String {
    let physical: String = PHYSICAL.iter().map(Step::script).collect();
    [
        PRELUDE,
        "for bdf in $TESTBED_BDF_0 $TESTBED_BDF_1 $TESTBED_BDF_2 $TESTBED_BDF_3 $TESTBED_BDF_5 $TESTBED_BDF_6; do\n\
             testbed-bind $bdf || exit 1\n\
         done\n\
         pf=/sys/bus/pci/devices/$TESTBED_BDF_4\n\
         testbed-bind -d '' $TESTBED_BDF_4\n\
         ip link set $(ls $pf/net) up\n\
         echo 2 > $pf/sriov_numvfs\n\
         vf=$(basename $(readlink $pf/virtfn0))\n\
         testbed-bind $vf || exit 1\n",
        NVME_VF,
        &physical,
        &guests(&GUESTS),
        &PHYSICAL_OF_VFIO.script(),
        "say rom_lines \"$(dmesg | grep -c 'PCI ROM')\"\ntrue\n",
    ]
    .concat()
}

/// Each guest's report, and QEMU's trace.
fn worked(findings: &mut Findings, outcome: &Outcome, disk: &str) {
    let said = |key, fact: &str| said(outcome, key, fact);
    findings.expect_eq("rescan", said("rescan", "bars"), Some("moved"));
    for key in ["rom", "rescan", "nvme-vf"] {
        findings.expect_eq(key, said(key, "disk"), Some(disk));
    }
    findings.expect_eq("virtio-rng", said("rescan", "random"), Some("16"));
    findings.expect_eq("swiotlb=force", said("nvme-vf", "bounced"), Some("yes"));
    for (key, driver) in [
        ("rescan", "e1000e"),
        ("rescan", "e1000"),
        ("ports", "ne2k-pci"),
        ("vf", "igbvf"),
    ] {
        let found = said(key, &format!("net-{driver}"));
        findings.expect_eq(driver, found, Some("works"));
    }
    let moved = "the guest moved BAR";
    findings.expect(
        outcome.output.contains(moved),
        format!("no line contains `{moved}`"),
    );
    findings.expect_eq("watchdog", said("gaps", "watchdog"), Some("open"));
    findings.expect(
        outcome.trace.contains(RAN_OUT),
        "the watchdog never ran out",
    );
}

/// A machine whose config space is reached by ports only, as clouds have them: `check` is content, and a guest works.
pub fn without_ecam() -> Result<CaseResult> {
    let rig = rig(23)?;
    let machine = rig
        .machine(setup::guest_kernel()?.vmlinux())
        .board(Board::Pc)
        .hugepages_2m(160);
    let script = [
        PRELUDE,
        "testbed-bind $TESTBED_BDF_0 || exit 1\n\
         pinvisor check --memory 256M $TESTBED_BDF_0\nsay check $?\n",
        &guests(&[("alone", "--device $TESTBED_BDF_0", "")]),
    ]
    .concat();
    let outcome = machine.run(&script)?;
    let mut findings = Findings::default();
    let facts = script::facts(&outcome.output);
    check::left_clean(&mut findings, &outcome, &facts);
    findings.expect_eq("check", facts.get("check").copied(), Some("0"));
    let disk = image::sha256(&rig.contents);
    let found = said(&outcome, "alone", "disk");
    findings.expect_eq("disk", found, Some(disk.as_str()));
    Ok(findings.into_result(&outcome))
}
