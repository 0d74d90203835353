// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Pinned memory is held where it is: a page of each kind on a machine with two NUMA nodes, and that of a running guest.

use super::super::check::Findings;
use super::super::script;
use super::super::taken::Way;
use crate::error::Result;
use crate::machine::{Machine, Outcome, Status};
use crate::runner::CaseResult;
use crate::setup::Flavour;

/// What `testbed inside pin-proof` must report of pages of each kind.
const EXPECTED: [(&str, &str); 12] = [
    ("free_migrate", "moved"),
    ("free_soft_offline", "moved"),
    ("free_offline", "moved"),
    ("pinned_migrate", "stayed"),
    ("pinned_soft_offline", "stayed"),
    ("pinned_offline", "stayed"),
    ("pinned_block_offline", "false"),
    ("unpinned_offline", "moved"),
    ("unpinned_block_offline", "true"),
    ("movable_pin", "moved"),
    ("movable_block_offline", "true"),
    ("pinned_contiguous", "stayed"),
];
/// And of pages of which a kernel says that it moves them for a page of 1 GiB: those of 4 KiB, and on Linux 7.3 hugepages of
/// 2 MiB, which `pfn_range_valid_contig` of 6.12 refuses.
const MOVED_FOR_CONTIGUOUS: (&str, &str) = ("free_contiguous", "moved");

/// A pinned page does not move to another NUMA node, nor for soft offlining, memory offlining or a page of 1 GiB; another
/// does.
pub fn pins() -> Result<CaseResult> {
    pins_on(Flavour::Old, &["small"])
}

/// The same on Linux 7.3.
pub fn pins_on_new() -> Result<CaseResult> {
    pins_on(Flavour::NoIommufd, &["small", "huge"])
}

/// The same on a kernel that moves pages of these kinds for one of 1 GiB.
fn pins_on(flavour: Flavour, moved_for_contiguous: &[&str]) -> Result<CaseResult> {
    // Of the second node, the first GiB and the last one have memory of the kernel's, whose tables are not spread over it
    // and whose image is in the first node.
    let mut machine = Machine::builder()
        .flavour(flavour)
        .kernel_arg("hashdist=0")
        .kernel_arg("nokaslr")
        .memory("5G");
    for (node, size, cpus) in [(0, "2G", ",cpus=0"), (1, "3G", "")] {
        machine = machine
            .qemu_arg("-object")
            .qemu_arg(&format!("memory-backend-ram,id=node{node},size={size}"))
            .qemu_arg("-numa")
            .qemu_arg(&format!("node,nodeid={node},memdev=node{node}{cpus}"));
    }
    let outcome = machine.run("testbed inside pin-proof\n")?;
    let mut findings = Findings::default();
    findings.expect_eq("script", outcome.status, Status::Exited(0));
    let facts = script::facts(&outcome.output);
    for kind in ["small", "huge"] {
        let is_moved = moved_for_contiguous.contains(&kind);
        let contiguous = is_moved.then_some(MOVED_FOR_CONTIGUOUS);
        for (what, expected) in EXPECTED.into_iter().chain(contiguous) {
            let key = format!("{kind}_{what}");
            findings.expect_eq(&key, facts.get(key.as_str()).copied(), Some(expected));
        }
    }
    Ok(findings.into_result(&outcome))
}

/// A function for scripts: soft offlining of the first page of each of the running guest's extents, and the end of the
/// guest.
pub const FUNCTION: &str = r#"
hold() {
    tried=0 gone=0
    for hpa in $(sed -n 's/.*extent gpa=[^ ]* hpa=\([^ ]*\) .*/\1/p' /tmp/log); do
        tried=$((tried + 1))
        echo $hpa > /sys/devices/system/memory/soft_offline_page && gone=$((gone + 1))
    done
    say hold_tried $tried
    say hold_gone $gone
    kill -INT $monitor
}
"#;

/// That, as a way in which a guest loses its device.
pub const END: Way = Way {
    name: "hold",
    command: "hold",
    status: "0",
};

/// Every extent was tried, and none went away.
pub fn judge(findings: &mut Findings, outcome: &Outcome) {
    let facts = script::facts(&outcome.output);
    let tried = facts.get("hold_tried").copied();
    findings.expect(
        tried.is_some_and(|count| count != "0"),
        format!("extents that were tried: {tried:?}"),
    );
    findings.expect_eq("extents that moved", facts.get("hold_gone"), Some(&"0"));
}
