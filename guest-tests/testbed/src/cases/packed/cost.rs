// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What each entry of `dma-ranges` costs a guest for each buffer that it maps: Linux searches them from the first one on.

use std::time::Duration;

use super::ARCH;
use crate::cases::check::Findings;
use crate::cases::rig::{ARGUMENTS, Rig};
use crate::cases::script::{self, PRELUDE};
use crate::error::Result;
use crate::guest;
use crate::runner::CaseResult;
use crate::setup;

/// In the guest: read the disk in blocks of 4 KiB, each mapped by itself, and tell how much of a CPU's time that took.
const GUEST: &str = r#"
name=$(sed 's/.*boot=\([^ ]*\).*/\1/' /proc/cmdline)
# Of this shell's children, in ticks of 10 ms (proc_pid_stat(5)).
spent() { set -- $(cat /proc/$$/stat); echo $((${16} + ${17})); }
before=$(spent)
for time in 1 2; do dd if=/dev/nvme0n1 of=/dev/null bs=4k iflag=direct 2>/dev/null; done
echo "guest: $name=$(($(spent) - before))"
"#;
/// Reads of that: a disk of 64 MiB, twice.
const READS: u64 = 2 * 16384;
/// Instructions in a tick, on a machine whose clock counts them.
const TICK: u64 = 10_000_000;

/// Layouts and pieces of memory, each piece an entry if it is packed. There are as many hugepages in each case, all but
/// these in one block.
const GUESTS: [(&str, u32); 5] = [
    ("identity", 1000),
    ("packed", 1),
    ("packed", 10),
    ("packed", 100),
    ("packed", 1000),
];
const PAGES: u32 = 1064;
/// Hugepages of the machine: every other one of a thousand, the block, and some more.
const POOL: u32 = 2200;

const LIMIT: Duration = Duration::from_secs(1500);

/// Instructions of the guest for a read of 4 KiB, at identity and with ever more entries.
pub fn cost() -> Result<CaseResult> {
    let rig = Rig::on(ARCH, 57, &["nvme"], GUEST)?;
    let machine = rig
        .machine(setup::guest_kernel_of(ARCH)?.unpacked())
        .memory("8G")
        .hugepages_2m(POOL)
        .timeout(LIMIT)
        .qemu_arg("-icount")
        .qemu_arg("shift=0,sleep=off");
    let outcome = machine.run(&script())?;
    let guest = guest::facts(&outcome.output);
    let mut findings = Findings::default();
    for (layout, pieces) in GUESTS {
        let ticks = guest.get(name(layout, pieces).as_str());
        let ticks = ticks.and_then(|ticks| ticks.parse::<u64>().ok());
        let cost = ticks.map(|ticks| ticks * TICK / READS);
        println!("    {layout}, {pieces} pieces: {cost:?} instructions per read");
        findings.expect(
            cost.is_some(),
            format!("{layout}, {pieces} pieces: no cost"),
        );
    }
    Ok(findings.into_result(&outcome))
}

fn name(layout: &str, pieces: u32) -> String {
    format!("{layout}-{pieces}")
}

fn script() -> String {
    let mut script = [PRELUDE, "testbed-bind $TESTBED_BDF_0 || exit 1\n"].concat();
    for (layout, pieces) in GUESTS {
        let (singles, block) = (pieces - 1, PAGES - pieces + 1);
        let wrapper = format!("testbed inside shape --singles {singles} --block {block} -- ");
        let name = name(layout, pieces);
        let arguments = ARGUMENTS.replace("quiet", &format!("quiet boot={name}"));
        let memory = format!("--memory {}M,spare=0,layout={layout}", 2 * PAGES);
        let run = script::pinvisor(&name, &wrapper, &format!("{arguments} {memory}"));
        script += &run.replace("-vv", "");
    }
    script
}
