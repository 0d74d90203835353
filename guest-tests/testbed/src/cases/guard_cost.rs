// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What reads cost a guest with a guarded NVMe controller: exits to user space and messages, and all instructions of the
//! test machine beside a guest that has the controller itself.
//!
//! The controller's blocks are QEMU's `null-co`, and the machine's clock counts instructions, as in `cargo testbed
//! bench`. It has one CPU, for which a guest that is polled competes with the thread that polls.

use std::collections::BTreeMap;
use std::time::Duration;

use super::check::Findings;
use super::script::PRELUDE;
use crate::error::{AtPath, Result};
use crate::initramfs::Initramfs;
use crate::machine::{Machine, Outcome};
use crate::paths::{self, GuestTarget};
use crate::runner::CaseResult;
use crate::setup::{self, Arch, Flavour};

/// A machine that is silent for so long is taken to hang.
const PATIENCE: Duration = Duration::from_secs(600);

/// Hugepages for the guest that has the controller itself.
const HUGEPAGES: u32 = 80;

/// The guest's init: reads one by one, and reads of which 8 at a time are submitted, up to 32 in all.
const GUEST: &str = r#"#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
for tenth in $(/bin/busybox seq 100); do
    [ -e /dev/nvme0n1 ] && break
    /bin/busybox sleep 0.1
done
/bin/linux-stress reads "disk=/dev/nvme0n1 count=4000 depth=1"
/bin/linux-stress reads "disk=/dev/nvme0n1 count=24000 depth=32 batch=8"
/bin/busybox dmesg | /bin/busybox grep -c 'nvme.*\(polled\|timeout\)'
/bin/busybox poweroff -f
"#;

/// In the machine: `measure NAME DEVICE` runs a guest and prints what was counted between the lines that surround its
/// reads. Stores that trap complete in `complete_emulated_mmio`; each message is one `KVM_SIGNAL_MSI`.
const MEASURE: &str = r#"
tracing=/sys/kernel/tracing
probe() {
    echo 'r:cost/exit kvm_arch_vcpu_ioctl_run' > $tracing/kprobe_events
    echo 'p:cost/store complete_emulated_mmio' >> $tracing/kprobe_events
    echo 'p:cost/message kvm_send_userspace_msi' >> $tracing/kprobe_events
    echo 1 > $tracing/events/cost/enable
}
unprobe() {
    echo 0 > $tracing/events/cost/enable
    echo > $tracing/kprobe_events
}
hits() {
    while read -r name hits rest; do
        [ "$name" = "$1" ] && echo "$hits"
    done < $tracing/kprobe_profile
}
idle() { while read -r cpu user nice system idle rest; do echo "$idle"; break; done < /proc/stat; }
# In hundredths of a second.
up() { read -r up rest < /proc/uptime; echo "${up%.*}${up#*.}"; }
measure() {
    pinvisor run --kernel /testbed/kernel --initramfs /testbed/initramfs --memory 128M --noiommu \
        --device "$TESTBED_BDF_0,$2" --cmdline 'console=ttyS0 quiet panic=-1 tsc=reliable' < /dev/null |
    while read -r line; do
        case "$line" in
        *"reads: begin"*)
            exits=$(hits exit) stores=$(hits store) messages=$(hits message) idle=$(idle) up=$(up) ;;
        *"reads: end "*)
            idle=$(($(idle) - idle)) up=$(($(up) - up))
            echo "cost: $1 exits=$(($(hits exit) - exits)) stores=$(($(hits store) - stores))" \
                "messages=$(($(hits message) - messages)) idle=$idle span=$up ${line##*reads: end }" ;;
        *) echo "guest: $line" ;;
        esac
    done
}
"#;

/// What is compared: a name, and the device's options.
const WAYS: [(&str, &str); 3] = [
    ("identity", "dma=identity"),
    ("trap", "dma=mediate,poll=off"),
    ("poll", "dma=mediate,poll=on"),
];

/// Limits of what happens for each read: the way, how many reads are under way, what, and how often at most, in
/// thousandths. Stores to registers that are no doorbells are among them.
const LIMITS: [(&str, u64, &str, u64); 7] = [
    ("trap", 1, "stores", 1000),
    ("trap", 32, "stores", 300),
    ("poll", 1, "stores", 0),
    ("poll", 32, "stores", 0),
    ("trap", 32, "messages", 1000),
    ("poll", 1, "messages", 1000),
    ("poll", 32, "messages", 1000),
];

/// Exits, messages and instructions of reads.
pub fn reads() -> Result<CaseResult> {
    let outcome = run()?;
    let mut findings = Findings::default();
    let costs = costs(&outcome.output);
    for way in WAYS.map(|(name, _)| name) {
        for depth in [1, 32] {
            let counted = costs.get(&(format!("{way}-counted"), depth));
            let timed = costs.get(&(way.to_owned(), depth));
            println!("    {}", line(way, depth, counted, timed));
        }
    }
    for (way, depth, what, most) in LIMITS {
        let found = costs
            .get(&(format!("{way}-counted"), depth))
            .and_then(|cost| cost.each(what));
        findings.expect(
            found.is_some_and(|found| found <= most),
            format!("{way}: {what} for 1000 reads, {depth} at a time: {found:?}, at most {most}"),
        );
    }
    let complaints = outcome.output.lines().filter(|line| *line == "guest: 0");
    findings.expect_eq(
        "guests without complaints",
        complaints.count(),
        2 * WAYS.len(),
    );
    Ok(findings.into_result(&outcome))
}

fn run() -> Result<Outcome> {
    let folder = tempfile::tempdir().at("create", "a temporary folder")?;
    let initramfs = folder.path().join("initramfs");
    let mut archive = Initramfs::with_busybox(&setup::busybox(Arch::X86_64)?, GUEST)?;
    let program = paths::guest_program("linux-stress", GuestTarget::Linux(Arch::X86_64))?;
    archive.add_path("bin/linux-stress", &program)?;
    archive.write(&initramfs)?;
    let machine = Machine::builder()
        .hugepages_2m(HUGEPAGES)
        .qemu_arg("-blockdev")
        .qemu_arg("driver=null-co,node-name=disk,size=1G,read-zeroes=on")
        .device("nvme,drive=disk,serial=testbed")
        .file("kernel", setup::kernel(Arch::X86_64, Flavour::Groups)?)
        .file("initramfs", initramfs)
        .qemu_arg("-icount")
        .qemu_arg("shift=0,sleep=off")
        .patience(PATIENCE);
    let guests = |suffix: &str| -> String {
        let guest = |(name, options)| format!("measure {name}{suffix} {options}\n");
        WAYS.map(guest).concat()
    };
    let script = [
        PRELUDE,
        MEASURE,
        "testbed-bind $TESTBED_BDF_0 || exit 1\n",
        &guests(""),
        "probe\n",
        &guests("-counted"),
        "unprobe\n",
    ]
    .concat();
    machine.run(&script)
}

/// What was counted during the reads.
#[derive(Debug, Default)]
struct Cost(BTreeMap<String, u64>);

impl Cost {
    fn get(&self, key: &str) -> Option<u64> {
        self.0.get(key).copied()
    }

    /// How often something happened for 1000 reads.
    fn each(&self, key: &str) -> Option<u64> {
        let thousand = self.get(key)? * 1000;
        let count = self.get("count")?;
        (thousand + count / 2).checked_div(count)
    }

    /// Instructions for each read, without those of waiting: around the reads there is silence.
    fn instructions(&self) -> Option<u64> {
        let reading = self.get("ns")?;
        let silence = (self.get("span")? * 10_000_000).saturating_sub(reading);
        let idle = (self.get("idle")? * 10_000_000).saturating_sub(silence);
        reading.checked_sub(idle)?.checked_div(self.get("count")?)
    }
}

/// The lines `cost: NAME KEY=N …`, by name and by how many reads are under way.
fn costs(output: &str) -> BTreeMap<(String, u64), Cost> {
    let lines = output
        .lines()
        .filter_map(|line| line.strip_prefix("cost: "));
    let cost = |line: &str| {
        let (name, words) = line.split_once(' ')?;
        let words = words.split_whitespace().filter_map(|word| {
            let (key, value) = word.split_once('=')?;
            Some((key.to_owned(), value.parse().ok()?))
        });
        let cost = Cost(words.collect());
        Some(((name.to_owned(), cost.get("depth")?), cost))
    };
    lines.filter_map(cost).collect()
}

fn line(way: &str, depth: u64, counted: Option<&Cost>, timed: Option<&Cost>) -> String {
    let each = |what| counted.and_then(|cost| cost.each(what)).unwrap_or_default();
    let instructions = timed.and_then(Cost::instructions).unwrap_or_default();
    format!(
        "{way}, {depth} at a time, for 1000 reads: stores that trap {}, all exits to user space {}, messages {}; \
         instructions for each {instructions}",
        each("stores"),
        each("exits"),
        each("messages")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_for_each_read_and_without_silence() {
        let output = "cost: trap exits=50 stores=40 messages=4 idle=45 span=50 count=40 depth=32 ns=100000000\n\
                      cost: trap exits=1 depth=x\n";
        let costs = costs(output);
        let cost = &costs[&("trap".to_owned(), 32)];
        assert_eq!(costs.len(), 1);
        assert_eq!(
            (
                cost.each("stores"),
                cost.each("messages"),
                cost.each("none")
            ),
            (Some(1000), Some(100), None)
        );
        // 0.5 s, of which the reads took 0.1 s; 0.45 s were idle, 0.05 s of them during the reads.
        assert_eq!(cost.instructions(), Some(50_000_000 / 40));
        let text = line("trap", 32, Some(cost), Some(cost));
        assert!(
            text.ends_with("messages 100; instructions for each 1250000"),
            "{text}"
        );
    }
}
