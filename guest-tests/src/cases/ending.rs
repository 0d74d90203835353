//! However a guest ends: the device is quiet first, everything is given back, and a next run works.

use super::check::{self, Findings};
use super::rig::{ARGUMENTS, Rig};
use super::script::{self, PRELUDE};
use crate::error::Result;
use crate::guest;
use crate::order::{self, Verdict};
use crate::runner::CaseResult;
use crate::setup;

/// In the guest: read a little, then end as the command line says.
const GUEST: &str = r#"
echo "guest: read=$(dd if=/dev/nvme0n1 bs=1M count=4 iflag=direct 2>/dev/null | wc -c)"
for word in $(cat /proc/cmdline); do
    case $word in
        end=wait) echo "guest: waits"; while :; do dd if=/dev/nvme0n1 of=/dev/null bs=1M iflag=direct 2>/dev/null; done ;;
        end=crash) echo "guest: crashes"; echo c > /proc/sysrq-trigger ;;
    esac
done
"#;

/// SIGTERM while the device works, a crash of the guest, an error before the guest starts, and power-off with
/// the unsafe mode switched off after binding.
pub fn every_end() -> Result<CaseResult> {
    let rig = Rig::new(7, GUEST)?;
    let machine = rig
        .machine(setup::guest_kernel()?.bzimage())
        .hugepages_2m(150);
    let arguments = |end: &str| {
        format!(
            "{} --memory 256M",
            ARGUMENTS.replace("quiet", &format!("quiet {end}"))
        )
    };
    let until_waits = "\
        for second in $(seq 120); do grep -q 'guest: waits' /tmp/serial && break; sleep 1; done\nsleep 1\n";
    let script = [
        PRELUDE,
        "say bdf $TESTBED_BDF_0\ntestbed-bind $TESTBED_BDF_0 || exit 1\n",
        order::START,
        // An error after memory was pinned: no room for the kernel.
        "pinvisor run --noiommu --device $TESTBED_BDF_0 --kernel /testbed/kernel --memory 32M; say error $?\n",
        order::SHOW,
        "touch /tmp/serial\n",
        &format!("pinvisor -vv run {} --serial file=/tmp/serial < /dev/null &\n", arguments("end=wait")),
        until_waits,
        "kill -TERM $!; wait $!; say terminated $?\ncat /tmp/serial\n",
        order::SHOW,
        "say_hugepages between\n",
        &format!("pinvisor -vv run {} < /dev/null; say crashed $?\n", arguments("end=crash panic=-1 reboot=t")),
        order::SHOW,
        "echo 0 > /sys/module/vfio/parameters/enable_unsafe_noiommu_mode\n",
        &script::pinvisor("status", "", &arguments("end=off")),
        order::SHOW,
        "say_hugepages after\nsay_processes\nsay_disk disk\n",
    ]
    .concat();
    let outcome = machine.run(&script)?;
    let facts = script::facts(&outcome.output);
    let mut findings = Findings::default();
    check::left_clean(&mut findings, &outcome, &facts);
    findings.expect_eq(
        "hugepages between",
        facts.get("between_free"),
        facts.get("between_total"),
    );
    for (end, status) in [
        ("error", "4"),
        ("terminated", "0"),
        ("crashed", "5"),
        ("status", "0"),
    ] {
        findings.expect_eq(end, facts.get(end).copied(), Some(status));
    }
    let reads = outcome.output.matches("guest: read=4194304").count();
    findings.expect_eq("guests that read the disk", reads, 3);
    findings.expect(
        guest::facts(&outcome.output).contains_key("read"),
        "no guest read",
    );
    let quiet = Verdict::QuietFirst;
    check::quiet_before_release(
        &mut findings,
        &outcome,
        &[Verdict::NeverMaster, quiet, quiet, quiet],
    );
    check::device_saw_quiet(&mut findings, &outcome, facts.get("bdf"));
    findings.expect_eq(
        "disk afterwards",
        facts.get("disk").copied(),
        Some(crate::image::sha256(&rig.contents).as_str()),
    );
    Ok(findings.into_result(&outcome))
}
