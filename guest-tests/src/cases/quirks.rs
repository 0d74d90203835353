//! Devices that want something unusual of the monitor, each driven by the stock kernel's own driver.

use super::check::{self, Findings};
use super::rig::Rig;
use super::script::{self, PRELUDE};
use crate::error::AtPath;
use crate::machine::Outcome;
use crate::runner::CaseResult;
use crate::{Result, guest, image, setup};

/// Modules of the guests.
const MODULES: &[&str] = &["nvme", "e1000e", "ne2k-pci", "i6300esb", "igbvf"];

/// The first device is an NVMe controller, then:
const DEVICES: [&str; 4] = [
    "e1000e,netdev=net1",
    "ne2k_pci,netdev=net2",
    "i6300esb",
    "igb,netdev=net4",
];

/// An NVMe controller with virtual functions, which all have the disk; QEMU wants its subsystem first.
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

/// QEMU's trace of a watchdog that ran out.
const RAN_OUT: &str = "watchdog_perform_action";

/// One guest: its key, its devices, words for its command line.
const GUESTS: [(&str, &str, &str); 5] = [
    (
        // Linux gives BARs other addresses then.
        "rescan",
        "--device $TESTBED_BDF_0 --device $TESTBED_BDF_1",
        "rescan",
    ),
    // Its driver moves packets by string I/O.
    ("ports", "--device $TESTBED_BDF_2", ""),
    // Its driver starts it by registers of config space that are in no capability.
    ("gaps", "--device $TESTBED_BDF_3", "i6300esb.heartbeat=2"),
    // Memory decoding is hard-wired to 0 in its COMMAND, as are its IDs to ones.
    ("vf", "--device $vf", ""),
    ("nvme-vf", "--device $nvme_vf", ""),
];

/// All of them on one machine.
pub fn quirks() -> Result<CaseResult> {
    let rig = Rig::with_initramfs(21, |path| {
        guest::write_initramfs(path, MODULES, include_str!("../../guest/quirks"))
    })?;
    let machine = rig.machine(setup::guest_kernel()?.vmlinux());
    let machine = [1, 2, 4].iter().fold(machine, |machine, number| {
        let netdev = format!("user,id=net{number}");
        machine.qemu_arg("-netdev").qemu_arg(&netdev)
    });
    let machine = DEVICES
        .iter()
        .fold(machine, |machine, device| machine.device(device))
        .hugepages_2m(160)
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
    for (key, ..) in GUESTS {
        let status = facts.get(format!("status_{key}").as_str()).copied();
        findings.expect_eq(key, status, Some("0"));
    }
    worked(&mut findings, &outcome, &image::sha256(&rig.contents));
    Ok(findings.into_result(&outcome))
}

fn script() -> String {
    let mut script = [
        PRELUDE,
        "for bdf in $TESTBED_BDF_0 $TESTBED_BDF_1 $TESTBED_BDF_2 $TESTBED_BDF_3; do\n\
             testbed-bind $bdf || exit 1\n\
         done\n\
         pf=/sys/bus/pci/devices/$TESTBED_BDF_4\n\
         testbed-bind -d '' $TESTBED_BDF_4\n\
         ip link set $(ls $pf/net) up\n\
         echo 1 > $pf/sriov_numvfs\n\
         vf=$(basename $(readlink $pf/virtfn0))\n\
         testbed-bind $vf || exit 1\n",
        NVME_VF,
    ]
    .concat();
    for (key, devices, words) in GUESTS {
        script += &format!(
            "echo \"testbed: guest {key}\"\n\
             pinvisor run --noiommu {devices} --memory 256M --kernel /testbed/kernel --initramfs /testbed/initramfs \
             --cmdline 'console=ttyS0 quiet {words}' < /dev/null\n\
             say status_{key} $?\n"
        );
    }
    script + "say_hugepages after\nsay_processes\n"
}

/// What each guest says, and what QEMU saw.
fn worked(findings: &mut Findings, outcome: &Outcome, disk: &str) {
    let said = |key: &str, fact: &str| {
        let (_, rest) = outcome
            .output
            .split_once(&format!("testbed: guest {key}\n"))?;
        let own = rest.split("testbed: status_").next().unwrap_or(rest);
        guest::facts(own).get(fact).copied()
    };
    findings.expect_eq("rescan", said("rescan", "bars"), Some("moved"));
    for key in ["rescan", "nvme-vf"] {
        findings.expect_eq(key, said(key, "disk"), Some(disk));
    }
    for (key, driver) in [("rescan", "e1000e"), ("ports", "ne2k-pci"), ("vf", "igbvf")] {
        let found = said(key, &format!("net-{driver}"));
        findings.expect_eq(driver, found, Some("works"));
    }
    let moved = "the guest moved BAR";
    findings.expect(
        outcome.output.contains(moved),
        format!("no line says `{moved}`"),
    );
    findings.expect_eq("watchdog", said("gaps", "watchdog"), Some("open"));
    findings.expect(
        outcome.trace.contains(RAN_OUT),
        "the watchdog never ran out",
    );
}
