// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The backend's table and errors against the kernel's own answers.

use std::time::Duration;

use super::check::Findings;
use super::script::{self, PRELUDE};
use crate::error::Result;
use crate::machine::Machine;
use crate::runner::CaseResult;
use crate::setup;

const LIMIT: Duration = Duration::from_secs(300);

/// Signs of faults in the kernel's log.
const TROUBLE: &str = "WARNING|BUG|Oops|NULL pointer|Call Trace|general protection";

/// Notes every question about a physical address with the length asked for. The probed function's
/// argument is `struct iommufd_ucmd`, whose fourth pointer is the request; its length is at 24.
const PROBE: &str = "\
echo 'p:testbed/get_pa iommufd_ioas_noiommu_get_pa length=+24(+24($arg1)):x64' \
    >> /sys/kernel/tracing/kprobe_events
echo 1 > /sys/kernel/tracing/events/testbed/enable
";

/// Plans a guest, for which memory is pinned. Then reports how many queries were made, and how many asked for more or
/// less than 4 KiB.
const COUNT: &str = "\
count() {
    echo > /sys/kernel/tracing/trace
    pinvisor plan --noiommu --device $TESTBED_BDF_0 --kernel /testbed/kernel --memory $2 > /tmp/out 2>&1
    say \"$1_status\" $?
    say \"$1_asked\" $(grep -c get_pa: /sys/kernel/tracing/trace)
    say \"$1_longer\" $(grep get_pa: /sys/kernel/tracing/trace | grep -vc length=0x1000)
}
count small 1G,spare=0
count giant 1G,hugepage_size=1G
";

/// An emulated device, which is not in noiommu mode and has no name that `--device` takes.
const EMULATED: &str = "\
mdev=83b8f4f2-509f-382f-3c1e-e6bfe0fa1001
echo $mdev > /sys/class/mdev_bus/mtty/mdev_supported_types/mtty-1/create
say emulated \"$(ls /sys/bus/mdev/devices/$mdev/vfio-dev | tr -d 0-9)\"
pinvisor run --noiommu --device $mdev --kernel /testbed/kernel --memory 64M
say emulated_status $?
";

fn machine() -> Result<Machine> {
    Ok(Machine::builder()
        .device("e1000e")
        .device("edu")
        .file("kernel", setup::guest_kernel()?.packaged())
        .timeout(LIMIT))
}

/// The same mappings and the same questions; every refusal; what the kernel's own test of the noiommu mode looks at (offsets in
/// pages, areas side by side, unmapping, two devices, detaching); everything that is not supported; one
/// question for each run of pages, and for each hugepage. Emulated devices are not taken for ones without an IOMMU.
pub fn agreement() -> Result<CaseResult> {
    let script = [
        PRELUDE,
        "testbed-bind $TESTBED_BDF_0 && testbed-bind $TESTBED_BDF_1 || exit 1\n",
        PROBE,
        "for check in differential refusals areas revoked unsupported runs window; do\n",
        "    kernel-check $check $TESTBED_BDF_0\n    say $check $?\ndone\n",
        "kernel-check attach $TESTBED_BDF_0 $TESTBED_BDF_1\nsay attach $?\n",
        COUNT,
        EMULATED,
        &format!("say trouble \"$(dmesg | grep -cE '{TROUBLE}')\"\nsay_hugepages after\n"),
    ]
    .concat();
    let outcome = machine()?
        .memory("5G")
        .hugepages_2m(544)
        .hugepages_1g(1)
        .run(&script)?;
    let facts = script::facts(&outcome.output);
    let mut findings = Findings::default();
    for (key, wanted) in [
        ("differential", "0"),
        ("window", "0"),
        ("refusals", "0"),
        ("areas", "0"),
        ("attach", "0"),
        ("revoked", "0"),
        ("unsupported", "0"),
        ("runs", "0"),
        ("small_status", "0"),
        ("small_asked", "512"),
        ("small_longer", "0"),
        ("giant_status", "0"),
        ("giant_asked", "1"),
        ("giant_longer", "0"),
        ("emulated", "vfio"),
        ("emulated_status", "1"),
        ("trouble", "0"),
        ("after_free", "545"),
    ] {
        findings.expect_eq(key, facts.get(key).copied(), Some(wanted));
    }
    Ok(findings.into_result(&outcome))
}
