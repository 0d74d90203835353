// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The monitor is killed while a guarded controller works: its commands must not reach memory that others have by then,
//! and a next run must work.

use super::{CPUS, FUNCTIONS, GUEST, guarded, guest_is_right};
use crate::cases::check::{self, Findings};
use crate::cases::rig::{ARGUMENTS, Rig};
use crate::cases::script::{self, AWAIT, KILL_AT_WORK, PRELUDE};
use crate::error::Result;
use crate::runner::CaseResult;
use crate::{guest, image, setup};

/// In the guest: do as the last guest, or write and read without an end.
const LOAD: &str = r#"
if grep -q end=load /proc/cmdline; then
    # What is written is the same each time.
    add /dev/nvme0n1
    for reader in 1 2 3; do
        while :; do hash /dev/nvme0n1 > /dev/null; done &
    done
    echo "guest: waits"
    while :; do add /dev/nvme0n1; done
fi
"#;

/// Functions of the script: `load NUMBER`: a guest that works until it is killed, and a pattern in all memory that was
/// free soon after.
const FUNCTION: &str = r#"
load() {
    kill_at_work $1
    grep -e extent -e 'queue memory' /tmp/log
    testbed inside canary --leave-mib 60 --least-percent 0 -- sleep 1
    echo "watched: $?"
}
"#;

/// 5 kills.
pub fn short() -> Result<CaseResult> {
    run(5)
}

/// 100 kills.
pub fn long() -> Result<CaseResult> {
    run(100)
}

fn run(kills: usize) -> Result<CaseResult> {
    let rig = Rig::with_initramfs(29, |path| {
        let script = [FUNCTIONS, LOAD, GUEST].concat();
        guest::write_initramfs(path, &["nvme"], &script)
    })?;
    let machine = rig.machine(setup::guest_kernel()?.vmlinux());
    let outcome = machine.run(&script(kills))?;
    let mut findings = Findings::default();
    let facts = script::facts(&outcome.output);
    findings.expect_eq("the canary's status", facts.get("watched"), Some(&"0"));
    findings.expect_eq("the last run's status", facts.get("last"), Some(&"0"));
    findings.expect_eq("processes left", facts.get("processes"), Some(&"0"));
    let lines = |text: &str| outcome.output.lines().filter(|line| *line == text).count();
    // SIGKILL's.
    findings.expect_eq("guests that were killed", lines("killed: 137"), kills);
    findings.expect_eq("canaries that lived after", lines("watched: 0"), kills);
    findings.expect_eq(
        "canaries that lived in all",
        lines("testbed: canary_changed=0"),
        kills + 1,
    );
    let after = image::sha256(&image::after_guest_write(&rig.contents));
    guest_is_right(&mut findings, &outcome.output, [&after, &after]);
    findings.expect_eq(
        "disk afterwards",
        image::sha256_of_file(&rig.disk())?,
        after,
    );
    let least = kills as u64 * rig.contents.len() as u64;
    check::guarded_dma_inside(&mut findings, &outcome.output, &outcome.trace, least);
    Ok(findings.into_result(&outcome))
}

/// Script: guests that are killed, and a last one that is not, under one canary.
fn script(kills: usize) -> String {
    let arguments = format!("{} --memory 128M --cpus {CPUS}", guarded(ARGUMENTS));
    let load = arguments.replace("quiet", "quiet end=load");
    [
        PRELUDE,
        "testbed-bind $TESTBED_BDF_0 || exit 1\ncat > /tmp/runs << 'END'\n",
        PRELUDE,
        AWAIT,
        KILL_AT_WORK,
        FUNCTION,
        &format!("load=\"{load}\"\n"),
        &format!("testbed-mark {}\n", script::BEGIN),
        &format!("for kill in $(seq {kills}); do load $kill; done\n"),
        &format!("pinvisor -vv run {arguments} < /dev/null\nsay last $?\n"),
        &format!("testbed-mark {}\n", script::END),
        "END\ntestbed inside canary --leave-mib 500 -- sh /tmp/runs\n",
        "say watched $?\nsay_processes\n",
    ]
    .concat()
}
