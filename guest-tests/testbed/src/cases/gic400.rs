// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A host with a GICv2, as Raspberry Pi 4 and 5 and RK3399 have: MSI-X becomes shared interrupts of a GICv2m frame.

use super::check::{self, Findings};
use super::rig::{ARGUMENTS, Rig};
use super::script::{self, PRELUDE};
use crate::error::Result;
use crate::machine::Board;
use crate::runner::CaseResult;
use crate::setup::{self, Arch};
use crate::{guest, image};

/// In the guest: read the disk, receive frames, and report who interrupted whom.
const GUEST: &str = r#"
name=$(sed 's/.*boot=\([^ ]*\).*/\1/' /proc/cmdline)
tell() { echo "guest: ${name}_$1=$2"; }
tell online "$(cat /sys/devices/system/cpu/online)"
tell disk "$(dd if=/dev/nvme0n1 bs=1M iflag=direct 2>/dev/null | sha256sum | cut -d' ' -f1)"
ip addr add 10.9.9.9/24 dev eth0
ip link set eth0 up
for tenth in $(seq 100); do
    received=$(cat /sys/class/net/eth0/statistics/rx_packets)
    [ "$received" -ge 3 ] && break
    sleep 0.1
done
tell received "$([ "$received" -ge 3 ] && echo yes)"
# Interrupts on any CPU, by the name behind them.
count() { grep "$1" /proc/interrupts | sed 's/^ *[0-9]*:\([0-9 ]*\).*/\1/' | tr -s ' ' '\n' | grep -c '[1-9]'; }
tell messages "$([ "$(count 'MSI.*nvme')" -ge 1 ] && echo yes)"
tell lines "$([ "$(count 'GIC.*eth0')" -ge 1 ] && echo yes)"
grep -e nvme -e eth0 /proc/interrupts | sed "s/^/guest's $name: /"
"#;

/// Numbers of CPUs, and their names on the command line.
const BOOTS: [(&str, u32); 3] = [("one", 1), ("two", 2), ("four", 4)];

/// An NVMe controller with MSI-X and a network controller with INTx, for guests with 1, 2 and 4 CPUs; more than the 8 that a
/// GICv2 serves are refused.
pub fn every_interrupt() -> Result<CaseResult> {
    let arch = Arch::Aarch64;
    let rig = Rig::on(arch, 53, &["nvme", "8139cp"], GUEST)?;
    let machine = rig
        .machine(setup::guest_kernel_of(arch)?.packaged())
        .board(Board::Gic400)
        .file("busybox", setup::busybox(arch)?)
        .hugepages_2m(160)
        .qemu_arg("-netdev")
        .qemu_arg("hubport,id=net1,hubid=0")
        .device("rtl8139,netdev=net1")
        .qemu_arg("-netdev")
        .qemu_arg("hubport,id=net2,hubid=0")
        .device("e1000e,netdev=net2");
    let outcome = machine.run(&script())?;
    let facts = script::facts(&outcome.output);
    let guest = guest::facts(&outcome.output);
    let mut findings = Findings::default();
    check::left_clean(&mut findings, &outcome, &facts);
    let disk = image::sha256(&rig.contents);
    for (name, cpus) in BOOTS {
        findings.expect_eq(name, facts.get(name).copied(), Some("0"));
        for (key, wanted) in [
            ("online", check::cpu_list(cpus).as_str()),
            ("disk", &disk),
            ("received", "yes"),
            ("messages", "yes"),
            ("lines", "yes"),
        ] {
            let key = format!("{name}_{key}");
            findings.expect_eq(&key, guest.get(key.as_str()).copied(), Some(wanted));
        }
    }
    findings.expect_eq("nine", facts.get("nine").copied(), Some("2"));
    findings.expect(
        outcome.output.contains("--cpus 8"),
        "9 CPUs are refused for another reason",
    );
    Ok(findings.into_result(&outcome))
}

fn script() -> String {
    let run = |name: &str, cpus: u32| {
        let arguments = ARGUMENTS.replace("quiet", &format!("quiet boot={name}"));
        let rest = format!("--device $TESTBED_BDF_1 --memory 256M --cpus {cpus}");
        script::pinvisor(name, "", &format!("{arguments} {rest}"))
    };
    let boots: String = BOOTS.map(|(name, cpus)| run(name, cpus)).concat();
    [
        PRELUDE,
        "testbed-bind $TESTBED_BDF_0 $TESTBED_BDF_1 || exit 1\n",
        "nic=$(ls /sys/bus/pci/devices/$TESTBED_BDF_2/net)\n",
        "/testbed/busybox ip addr add 10.9.9.1/24 broadcast 10.9.9.255 dev $nic\n",
        "/testbed/busybox ip link set $nic up\n",
        "testbed inside broadcast 10.9.9.255:9 &\n",
        &boots,
        &run("nine", 9),
        "kill %1\nsay_hugepages after\nsay_processes\n",
    ]
    .concat()
}
