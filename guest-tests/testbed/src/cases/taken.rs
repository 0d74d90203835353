// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The host takes a device away from a running guest, or the monitor is killed. Memory that the
//! device's programming still points to must not reach other memory: a pattern in everything that
//! came back stays unchanged while the host's own driver takes the device over, with traffic
//! arriving.

use super::check::Findings;
use super::rig::Rig;
use super::script;
use crate::error::Result;
use crate::machine::{Machine, Outcome, Status};
use crate::runner::CaseResult;
use crate::setup::{self, Arch};

/// In the guest: use the disk or listen to the network, and report it.
pub const GUEST: &str = r#"
if [ -b /dev/nvme0n1 ]; then
    echo "guest: read=$(dd if=/dev/nvme0n1 bs=1M count=4 iflag=direct 2>/dev/null | wc -c)"
else
    ip addr add 10.9.9.9/24 dev eth0
    ip link set eth0 up
    for second in 1 2 3 4 5 6 7 8 9 10; do [ "$(cat /sys/class/net/eth0/carrier)" = 1 ] && break; sleep 1; done
    sleep 1
    echo "guest: received=$(cat /sys/class/net/eth0/statistics/rx_packets)"
fi
echo "guest: waits"
while :; do sleep 1000; done
"#;

/// Devices by the number of `TESTBED_BDF`; the last one sends, and stays with its driver.
const DEVICES: [&str; 3] = [
    "igb,netdev=net1",
    "e1000e,netdev=net2",
    "e1000e,netdev=net3",
];

/// Functions of the script.
const FUNCTIONS: &str = r#"
vfio=/sys/bus/pci/drivers/vfio-pci
# begin BDF: a guest with the device, until it uses it.
begin() {
    rm -f /tmp/serial /tmp/log; touch /tmp/serial
    testbed-bind "$1" || exit 1
    pinvisor -v run --noiommu --device "$1" --kernel /testbed/kernel --initramfs /testbed/initramfs         --cmdline 'console=ttyS0 quiet' --memory 128M --serial file=/tmp/serial < /dev/null 2> /tmp/log &
    monitor=$!
    await_guest
}
# ended KEY: the status of the monitor, and what is left when nothing of it runs any more.
ended() {
    wait $monitor
    say "$1_status" $?
    await_exit
    await_pool
    grep guest: /tmp/serial
    cat /tmp/log
    say_hugepages "$1"
}
# enabled KEY BDF: CC of an NVMe controller, whose lowest bit a reset clears (NVM Express Base Specification, section
# 3.1.4.5).
enabled() {
    start=$(head -n 1 "/sys/bus/pci/devices/$2/resource" | cut -d' ' -f1)
    printf '\002' | dd of="/sys/bus/pci/devices/$2/config" bs=1 seek=4 conv=notrunc status=none
    say "$1_cc" "$(/testbed/busybox devmem $((start + 0x14)))"
}
# back KEY BDF: the device to the host's own driver, with a pattern in all that is free.
back() {
    testbed inside pool --key "$1" -- sh -c "
        device=/sys/bus/pci/devices/$2
        if [ -e \$device ]; then
            echo > \$device/driver_override
            [ -e \$device/driver ] && echo $2 > \$device/driver/unbind
            echo $2 > /sys/bus/pci/drivers_probe
        else
            echo 1 > /sys/bus/pci/rescan
        fi
        sleep 2
        echo testbed: $1_driver=\$(basename \$(readlink \$device/driver))"
}
"#;

/// How a guest loses its device.
#[derive(Debug, Clone, Copy)]
pub struct Way {
    /// Its name.
    pub name: &'static str,
    /// Script line.
    pub command: &'static str,
    /// The monitor's status after that.
    pub status: &'static str,
}

pub const UNBIND: Way = Way {
    name: "unbind",
    command: "echo $bdf > $vfio/unbind",
    status: "3",
};
pub const REMOVE: Way = Way {
    name: "remove",
    command: "echo 1 > /sys/bus/pci/devices/$bdf/remove",
    status: "3",
};
pub const KILL: Way = Way {
    name: "kill",
    command: "kill -KILL $monitor",
    status: "137",
};
pub const END: Way = Way {
    name: "end",
    command: "kill -INT $monitor",
    status: "0",
};

/// The number of a device's `TESTBED_BDF`, and the driver that this machine's kernel has for it.
pub type Taken = (usize, &'static str);
pub const NVME: Taken = (0, "nvme");
const IGB: Taken = (1, "igb");
const E1000E: Taken = (2, "e1000e");

const CASES: [(Taken, Way); 8] = [
    (NVME, UNBIND),
    (NVME, REMOVE),
    (IGB, UNBIND),
    (IGB, REMOVE),
    (E1000E, UNBIND),
    (E1000E, REMOVE),
    (E1000E, KILL),
    (E1000E, END),
];

/// Where the controller is looked at, between the guest's end and the host's own driver.
const CONTROLLER: &str = "nvme_unbind";

fn machine(arch: Arch) -> Result<(Rig, Machine)> {
    let rig = Rig::on(arch, 11, &["nvme", "igb", "e1000e"], GUEST)?;
    let mut machine = rig
        .machine(setup::guest_kernel_of(arch)?.unpacked())
        .hugepages_2m(80)
        .file("busybox", setup::busybox(arch)?);
    for (number, device) in (1..).zip(DEVICES) {
        machine = machine
            .qemu_arg("-netdev")
            .qemu_arg(&format!("hubport,id=net{number},hubid=0"))
            .device(device);
    }
    Ok((rig, machine))
}

/// Broadcasts on the wire for as long as the script runs.
const SENDER: &str = "\
nic=$(ls /sys/bus/pci/devices/$TESTBED_BDF_3/net)
/testbed/busybox ip addr add 10.9.9.1/24 broadcast 10.9.9.255 dev $nic
/testbed/busybox ip link set $nic up
testbed inside broadcast 10.9.9.255:9 &
";

/// Unbind and removal under a running guest, SIGKILL of the monitor and an ordinary end.
pub fn taken(arch: Arch) -> Result<CaseResult> {
    let (_rig, machine) = machine(arch)?;
    let outcome = machine.run(&script(SENDER, &CASES))?;
    let mut findings = Findings::default();
    judge(&mut findings, &outcome, &CASES);
    Ok(findings.into_result(&outcome))
}

/// Script: one guest after the other that loses its device.
pub fn script(before: &str, cases: &[(Taken, Way)]) -> String {
    let one = |((number, driver), Way { name, command, .. }): &(Taken, Way)| {
        let key = format!("{driver}_{name}");
        format!(
            "bdf=$TESTBED_BDF_{number}\nbegin $bdf\n{command}\nended {key}\n\
             [ {key} = {CONTROLLER} ] && enabled {key} $bdf\nback {key} $bdf\n"
        )
    };
    let all: String = cases.iter().map(one).collect();
    let end = "say_processes\nexit 0\n";
    [script::PRELUDE, script::AWAIT, FUNCTIONS, before, &all, end].concat()
}

/// What must hold after each.
pub fn judge(findings: &mut Findings, outcome: &Outcome, cases: &[(Taken, Way)]) {
    let facts = script::facts(&outcome.output);
    findings.expect_eq("script", outcome.status, Status::Exited(0));
    let control = facts.get(format!("{CONTROLLER}_cc").as_str());
    let control = control.and_then(|text| u32::from_str_radix(text.strip_prefix("0x")?, 16).ok());
    findings.expect(
        control.is_some_and(|control| control & 1 == 0),
        format!("{CONTROLLER}: the controller is enabled, or not there: {control:x?}"),
    );
    findings.expect_eq("processes", facts.get("processes"), Some(&"0"));
    for ((_, driver), way) in cases {
        let key = format!("{driver}_{}", way.name);
        let fact = |what: &str| facts.get(format!("{key}_{what}").as_str()).copied();
        findings.expect_eq(&format!("{key}: status"), fact("status"), Some(way.status));
        findings.expect_eq(&format!("{key}: driver"), fact("driver"), Some(driver));
        findings.expect_eq(&format!("{key}: hugepages"), fact("free"), fact("total"));
        findings.expect_eq(&format!("{key}: pages held"), fact("held"), Some("80"));
        findings.expect(
            fact("changed") == Some("0"),
            format!(
                "{key}: {:?} words of {:?} pages changed",
                fact("changed"),
                fact("pages")
            ),
        );
    }
}
