// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Every kind of kernel, with one CPU and with several: the guest's view of its machine.

use std::collections::BTreeMap;

use super::check::{self, Findings};
use super::rig::{ARGUMENTS, Rig};
use super::script::{self, PRELUDE};
use crate::error::{AtPath, Result};
use crate::guest;
use crate::runner::CaseResult;
use crate::setup::{self, write_pvh_only};

/// In the guest: report its CPUs, and its warnings.
const GUEST: &str = r#"
name=$(sed 's/.*boot=\([^ ]*\).*/\1/' /proc/cmdline)
tell() { echo "guest: ${name}_$1=$2"; }
cpus=/sys/devices/system/cpu
several() { cat $cpus/cpu[0-9]*/topology/$1 | sort -u | wc -l; }
tell online "$(cat $cpus/online)"
tell possible "$(cat $cpus/possible)"
tell nproc "$(nproc)"
tell packages "$(several physical_package_id)"
tell cores "$(several core_id)"
tell threads "$(cat $cpus/cpu0/topology/thread_siblings_list)"
tell source "$(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)"
tell devices "$(ls /sys/bus/pci/devices 2> /dev/null | wc -l)"
tell apicids "$(echo $(sed -n 's/^apicid.*: //p' /proc/cpuinfo))"
# How the kernel was entered: 15 by Linux's protocol, 11 by PVH.
tell loader "$(($(cat /proc/sys/kernel/bootloader_type) >> 4))"
tell code "0x$(sed -n 's/^ *\([0-9a-f]*\)-.*Kernel code$/\1/p' /proc/iomem)"
complaints='firmware bug|borken|mismatch|not on the same node|unchecked MSR|WARNING: CPU|nobody cared'
dmesg | grep -iE "smpboot|smp:|topology|APIC: |$complaints" | sed "s/^/guest's $name: /"
tell complaints "$(dmesg | grep -ciE "$complaints")"
"#;

/// A boot: its name, its kernel, its CPUs, a word for its command line, how it was entered, its CPUs online.
type Boot = (
    &'static str,
    &'static str,
    u32,
    &'static str,
    &'static str,
    u32,
);

/// In identity layout, above 4 GiB.
const IDENTITY: [Boot; 7] = [
    ("bzimage", "bzimage", 1, "", "15", 1),
    ("two", "kernel", 2, "", "15", 2),
    ("four", "kernel", 4, "", "15", 4),
    // More than any machine has, of which all but two are never started.
    ("odd", "kernel", 31, "maxcpus=2", "15", 2),
    // It does not ask KVM how fast the TSC runs.
    ("clock", "kernel", 2, "no-kvmclock", "15", 2),
    // With ACPI, but without the bus that the device is on.
    ("no-pci", "bzimage", 1, "pci=off", "15", 1),
    // Common words about memory.
    (
        "words",
        "kernel",
        2,
        "nokaslr memtest=1 movablecore=64M init_on_alloc=1 efi=noruntime",
        "15",
        2,
    ),
];

/// In conventional layout.
const CONVENTIONAL: [Boot; 1] = [("pvh", "pvh", 2, "", "11", 2)];

/// A stock kernel as bzImage, vmlinux and PVH image, on 1, 2 and 4 CPUs.
pub fn every_kind() -> Result<CaseResult> {
    let rig = Rig::with_initramfs(8, |path| guest::write_initramfs(path, &[], GUEST))?;
    let kernel = setup::guest_kernel()?;
    let folder = tempfile::tempdir().at("create", "a temporary folder")?;
    let pvh = folder.path().join("pvh");
    write_pvh_only(&kernel.vmlinux(), &pvh)?;
    let machine = rig
        .machine(kernel.vmlinux())
        .file("bzimage", kernel.packaged())
        .file("pvh", &pvh)
        // With 6 GiB all hugepages are above 4 GiB, where a kernel is never linked.
        .memory("6G")
        .hugepages_2m(150);
    let run = |(name, kernel, cpus, words, ..): &Boot, device: &str| {
        let arguments = ARGUMENTS
            .replace("quiet", &format!("quiet boot={name} {words}"))
            .replace("/testbed/kernel", &format!("/testbed/{kernel}"))
            .replace("_BDF_0", &format!("_BDF_0{device}"));
        script::pinvisor(
            name,
            "",
            &format!("{arguments} --memory 256M --cpus {cpus}"),
        )
    };
    let identity = IDENTITY.iter().map(|boot| run(boot, ""));
    let conventional = CONVENTIONAL.iter().map(|boot| run(boot, ",dma=translate"));
    let refused = ("refused", "pvh", 1, "", "", 0);
    let script = [
        PRELUDE,
        "testbed-bind $TESTBED_BDF_0 || exit 1\n",
        &identity.chain([run(&refused, "")]).collect::<String>(),
        &conventional.collect::<String>(),
        "say_hugepages after\nsay_processes\n",
    ]
    .concat();
    let outcome = machine.run(&script)?;
    let facts = script::facts(&outcome.output);
    let guest = guest::facts(&outcome.output);
    let mut findings = Findings::default();
    check::left_clean(&mut findings, &outcome, &facts);
    for boot in IDENTITY.iter().chain(&CONVENTIONAL) {
        findings.expect_eq(boot.0, facts.get(boot.0).copied(), Some("0"));
        cpus_as_wanted(&mut findings, &guest, boot);
    }
    findings.expect_eq("refused", facts.get("refused").copied(), Some("4"));
    for text in [
        "it is entered by PVH and is not relocatable",
        "hint: boot a relocatable kernel",
    ] {
        findings.expect(
            outcome.output.contains(text),
            format!("not in the output: {text}"),
        );
    }
    places_as_wanted(&mut findings, &outcome.output, &guest);
    let source = guest.get("clock_source").copied().unwrap_or_default();
    findings.expect(
        !["", "kvm-clock"].contains(&source),
        format!("with no-kvmclock the clock is {source:?}"),
    );
    findings.expect_eq(
        "PCI devices",
        guest.get("no-pci_devices").copied(),
        Some("0"),
    );
    Ok(findings.into_result(&outcome))
}

/// One socket of as many cores as there are CPUs, numbered from 0, and no complaints.
fn cpus_as_wanted(findings: &mut Findings, guest: &BTreeMap<&str, &str>, boot: &Boot) {
    let (name, _, cpus, _, entered, online) = boot;
    let ids: Vec<_> = (0..*online).map(|id| id.to_string()).collect();
    let wanted = [
        ("online", check::cpu_list(*online)),
        ("possible", check::cpu_list(*cpus)),
        ("nproc", online.to_string()),
        ("packages", "1".into()),
        ("cores", online.to_string()),
        ("threads", "0".into()),
        ("apicids", ids.join(" ")),
        ("loader", (*entered).into()),
        ("complaints", "0".into()),
    ];
    for (key, wanted) in wanted {
        let key = format!("{name}_{key}");
        let found = guest.get(key.as_str()).copied();
        findings.expect_eq(&key, found, Some(wanted.as_str()));
    }
}

/// vmlinux runs in identity memory, in steps of 2 MiB from where it is linked; the PVH image where it is
/// linked.
fn places_as_wanted(findings: &mut Findings, output: &str, guest: &BTreeMap<&str, &str>) {
    /// Where Debian links its kernel (CONFIG_PHYSICAL_START).
    const LINKED: u64 = 16 << 20;
    const STEP: u64 = 2 << 20;
    let number =
        |text: &str| u64::from_str_radix(text.replace('_', "").strip_prefix("0x")?, 16).ok();
    let code = |name: &str| number(guest.get(format!("{name}_code").as_str())?);
    let loaded: Vec<_> = output
        .lines()
        .filter_map(|line| number(line.split_once("kernel gpa=")?.1.trim()))
        .collect();
    let all = IDENTITY.len() + CONVENTIONAL.len();
    findings.expect_eq("kernels loaded", loaded.len(), all);
    for name in ["two", "four", "odd", "clock", "words"] {
        let place = code(name);
        findings.expect(
            place.is_some_and(|at| at > 1 << 32 && at % STEP == 0 && loaded.contains(&at)),
            format!("{name} runs at {place:x?}, loaded were {loaded:x?}"),
        );
    }
    findings.expect_eq("PVH image", code("pvh"), Some(LINKED));
}
