// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Every kind of kernel of aarch64, with one CPU and with several, and how many pieces of memory each takes.

use std::collections::BTreeMap;
use std::path::Path;

use super::check::{self, Findings};
use super::rig::{ARGUMENTS, Rig};
use super::script::{self, PRELUDE};
use crate::error::{AtPath, Result};
use crate::runner::CaseResult;
use crate::setup::{self, Arch};
use crate::{guest, shell, trace};

/// In the guest: report its CPUs, its memory and its warnings.
const GUEST: &str = r#"
name=$(sed 's/.*boot=\([^ ]*\).*/\1/' /proc/cmdline)
tell() { echo "guest: ${name}_$1=$2"; }
tell online "$(cat /sys/devices/system/cpu/online)"
tell possible "$(cat /sys/devices/system/cpu/possible)"
tell nproc "$(nproc)"
tell present "$(dmesg | sed -n 's|.*Memory: [0-9]*K/\([0-9]*\)K available.*|\1|p')"
complaints='firmware bug|mismatch|WARNING: CPU|nobody cared|failed to boot|Unhandled'
dmesg | grep -iE "smp:|psci:|GICv3: |ITS \[|$complaints" | sed "s/^/guest's $name: /"
tell complaints "$(dmesg | grep -ciE "$complaints")"
"#;

/// A boot: its name, its kernel, its CPUs, a word for its command line, its CPUs online.
type Boot = (&'static str, &'static str, u32, &'static str, u32);

const BOOTS: [Boot; 4] = [
    ("packed", "kernel.gz", 1, "", 1),
    ("two", "kernel", 2, "", 2),
    ("four", "kernel", 4, "", 4),
    // As many as a guest can have, of which all but two are never started.
    ("odd", "kernel", 32, "maxcpus=2", 2),
];

/// Memory of these.
const MIB: u64 = 256;
/// Memory that is in more pieces than a kernel before Linux 6.1 lists: the block, and 146 singles.
const SCATTERED_MIB: u64 = 420;

/// A stock kernel as an Image and packed, on 1, 2, 4 and 32 CPUs; memory in more than 128 pieces with a kernel that
/// takes them, and with one that would lose some.
pub fn every_kind() -> Result<CaseResult> {
    let arch = Arch::Aarch64;
    let rig = Rig::on(arch, 24, &[], GUEST)?;
    let kernel = setup::guest_kernel_of(arch)?;
    let folder = tempfile::tempdir().at("create", "a temporary folder")?;
    let packed = folder.path().join("kernel.gz");
    pack(&kernel.packaged(), &packed)?;
    let machine = rig
        .machine(kernel.packaged())
        .file("kernel.gz", &packed)
        .file("old", setup::old_guest_kernel_of(arch)?.packaged())
        .hugepages_2m(460);
    let outcome = machine.run(&script())?;
    let facts = script::facts(&outcome.output);
    let guest = guest::facts(&outcome.output);
    let mut findings = Findings::default();
    check::left_clean(&mut findings, &outcome, &facts);
    for boot in &BOOTS {
        findings.expect_eq(boot.0, facts.get(boot.0).copied(), Some("0"));
        machine_as_wanted(&mut findings, &guest, boot);
    }
    findings.expect_eq("many", facts.get("many").copied(), Some("0"));
    let present = (SCATTERED_MIB << 10).to_string();
    let found = guest.get("many_present").copied();
    findings.expect_eq("scattered memory", found, Some(present.as_str()));
    let extents = trace::extents(&outcome.output).len();
    findings.expect(extents >= 140, format!("only {extents} extents"));
    findings.expect_eq("old", facts.get("old").copied(), Some("4"));
    findings.expect(
        outcome.output.contains("error[too-many-pieces]")
            && outcome.output.contains("more than the 124 that are safe"),
        "an old kernel was given more pieces than it lists",
    );
    Ok(findings.into_result(&outcome))
}

fn script() -> String {
    let run = |name: &str, kernel: &str, words: &str, wrapper: &str, rest: String| {
        let arguments = ARGUMENTS
            .replace("quiet", &format!("quiet boot={name} {words}"))
            .replace("/testbed/kernel", &format!("/testbed/{kernel}"));
        script::pinvisor(name, wrapper, &format!("{arguments} {rest}"))
    };
    let boots = BOOTS.iter().map(|(name, kernel, cpus, words, _)| {
        let rest = format!("--memory {MIB}M --cpus {cpus}");
        run(name, kernel, words, "", rest)
    });
    let shape = "testbed inside shape --singles 150 --block 64 -- ";
    let scattered = [("many", "kernel"), ("old", "old")].map(|(name, kernel)| {
        let rest = format!("--memory {SCATTERED_MIB}M,spare=0");
        run(name, kernel, "", shape, rest)
    });
    [
        PRELUDE.to_owned(),
        "testbed-bind $TESTBED_BDF_0 || exit 1\n".to_owned(),
        boots.collect(),
        scattered.concat(),
        "say_hugepages after\nsay_processes\n".to_owned(),
    ]
    .concat()
}

/// As many CPUs and as much memory as were given, and no complaints.
fn machine_as_wanted(findings: &mut Findings, guest: &BTreeMap<&str, &str>, boot: &Boot) {
    let (name, _, cpus, _, online) = boot;
    let wanted = [
        ("online", check::cpu_list(*online)),
        ("possible", check::cpu_list(*cpus)),
        ("nproc", online.to_string()),
        ("present", (MIB << 10).to_string()),
        ("complaints", "0".into()),
    ];
    for (key, wanted) in wanted {
        let key = format!("{name}_{key}");
        let found = guest.get(key.as_str()).copied();
        findings.expect_eq(&key, found, Some(wanted.as_str()));
    }
}

/// Writes `file` to `packed` as a gzip file.
fn pack(file: &Path, packed: &Path) -> Result<()> {
    let [from, to] = [file, packed].map(|path| shell::quote(&path.to_string_lossy()));
    let words = format!("gzip -1 -c {from} > {to}");
    shell::run(&mut shell::command("sh", ["-c", &words])).map(drop)
}
