// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What reads cost a guest with a guarded NVMe controller: exits to user space, messages and time, beside a guest that has
//! the controller itself, and beside one whose disk is QEMU's virtio-blk on it.
//!
//! The controller's blocks are QEMU's `null-co`. The machine has one CPU, for which a guest that is polled competes with
//! the thread that polls. Its clock does not count instructions, as that of `cargo testbed bench` does: QEMU then delivers
//! some interrupts to nested guests twice.

use std::collections::BTreeMap;
use std::time::Duration;

use super::check::Findings;
use super::script::PRELUDE;
use crate::error::{AtPath, Result};
use crate::machine::{Machine, Outcome};
use crate::runner::CaseResult;
use crate::{guest, setup};

/// A machine that is silent for so long is taken to hang.
const PATIENCE: Duration = Duration::from_secs(600);

/// Hugepages for the guest that has the controller itself.
const HUGEPAGES: u32 = 80;

/// In the guest: each kind of reads, and then each of them once more, while events are counted. One by one; of which 8 at
/// a time are submitted, up to 32 in all; and such of 128 KiB.
const GUEST: &str = r#"
for tenth in $(seq 100); do
    [ -e "$disk" ] && break
    sleep 0.1
done
for round in 1 2; do
    linux-stress reads "disk=$disk count=1000 depth=1"
    linux-stress reads "disk=$disk count=8000 depth=32 batch=8"
    linux-stress reads "disk=$disk count=800 depth=32 batch=8 pages=32"
done
echo complaints $(dmesg | grep -c 'nvme.*\(polled\|timeout\)')
"#;

/// In the machine: `measure NAME` reads what a guest prints, and prints what was counted between the lines that surround
/// its reads. Stores that trap complete in `complete_emulated_mmio`; each message is one `KVM_SIGNAL_MSI`.
const MEASURE: &str = r#"
tracing=/sys/kernel/tracing
probe() {
    echo 'r:cost/exit kvm_arch_vcpu_ioctl_run' > $tracing/kprobe_events &&
    echo 'p:cost/store complete_emulated_mmio' >> $tracing/kprobe_events &&
    echo 'p:cost/message kvm_send_userspace_msi' >> $tracing/kprobe_events &&
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
measure() {
    name=$1 number=0
    while read -r line; do
        case "$line" in
        *"reads: begin"*)
            number=$((number + 1))
            [ $number = 4 ] && probe && name=$1-counted
            exits=$(hits exit) stores=$(hits store) messages=$(hits message) ;;
        *"reads: end "*)
            echo "cost: $name exits=$(($(hits exit) - exits)) stores=$(($(hits store) - stores))" \
                "messages=$(($(hits message) - messages)) ${line##*reads: end }" ;;
        *) echo "guest: $line" ;;
        esac
    done
    unprobe
}
words='console=ttyS0 quiet panic=-1 tsc=reliable disk'
with_pinvisor() {
    pinvisor run --kernel /testbed/kernel --initramfs /testbed/initramfs --memory 128M --noiommu \
        --device "$TESTBED_BDF_0,$1" --cmdline "$words=/dev/nvme0n1" < /dev/null
}
with_virtio() {
    testbed-bind -d '' "$TESTBED_BDF_0"
    for second in 1 2 3 4 5 6 7 8 9 10; do [ -b /dev/nvme0n1 ] && break; sleep 1; done
    qemu-system-x86_64 -M q35 -enable-kvm -cpu host -m 128M -smp 1 -nodefaults -no-user-config -no-reboot \
        -display none -serial stdio -kernel /testbed/packaged -initrd /testbed/initramfs \
        -drive file=/dev/nvme0n1,if=none,id=disk,format=raw,cache=none,aio=native \
        -object iothread,id=thread -device virtio-blk-pci,drive=disk,iothread=thread \
        -append "$words=/dev/vda" < /dev/null
}
"#;

/// What is compared: a name, and the command that starts the guest. The last one gives the controller back to this machine.
const WAYS: [(&str, &str); 4] = [
    ("identity", "with_pinvisor dma=identity"),
    ("trap", "with_pinvisor dma=mediate,poll=off"),
    ("poll", "with_pinvisor dma=mediate,poll=on"),
    ("virtio", "with_virtio"),
];

/// The kinds of reads: how many are under way, and their pages.
const KINDS: [(u64, u64); 3] = [(1, 1), (32, 1), (32, 32)];

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

/// Exits, messages and time of reads.
pub fn reads() -> Result<CaseResult> {
    let outcome = run()?;
    let mut findings = Findings::default();
    let costs = costs(&outcome.output);
    for way in WAYS.map(|(name, _)| name) {
        for (depth, pages) in KINDS {
            let of = |name: String| costs.get(&(name, depth, pages));
            let (counted, timed) = (of(format!("{way}-counted")), of(way.to_owned()));
            println!("    {}", line(way, (depth, pages), counted, timed));
            findings.expect(
                counted.is_some() && timed.is_some(),
                format!("{way}: nothing was read, {depth} at a time"),
            );
        }
    }
    for (way, depth, what, most) in LIMITS {
        let found = costs
            .get(&(format!("{way}-counted"), depth, 1))
            .and_then(|cost| cost.each(what));
        findings.expect(
            found.is_some_and(|found| found <= most),
            format!("{way}: {what} for 1000 reads, {depth} at a time: {found:?}, at most {most}"),
        );
    }
    let silent = "guest: complaints 0";
    let silent = outcome.output.lines().filter(|line| *line == silent);
    findings.expect_eq("guests without complaints", silent.count(), WAYS.len());
    Ok(findings.into_result(&outcome))
}

fn run() -> Result<Outcome> {
    let folder = tempfile::tempdir().at("create", "a temporary folder")?;
    let initramfs = folder.path().join("initramfs");
    let kernel = setup::guest_kernel()?;
    guest::write_program_initramfs(
        &initramfs,
        &["nvme", "virtio_pci", "virtio_blk"],
        "linux-stress",
        GUEST,
    )?;
    let machine = Machine::builder()
        .hugepages_2m(HUGEPAGES)
        .qemu_arg("-blockdev")
        .qemu_arg("driver=null-co,node-name=disk,size=1073741824,read-zeroes=on")
        .device("nvme,drive=disk,serial=testbed")
        .file("kernel", kernel.vmlinux())
        .file("packaged", kernel.packaged())
        .file("initramfs", initramfs)
        .patience(PATIENCE);
    let guests = WAYS.map(|(name, command)| format!("{command} | measure {name}\n"));
    let script = [
        PRELUDE,
        MEASURE,
        "testbed-bind $TESTBED_BDF_0 || exit 1\n",
        &guests.concat(),
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

    /// Microseconds for each read.
    fn microseconds(&self) -> Option<u64> {
        (self.get("ns")? / 1000).checked_div(self.get("count")?)
    }
}

/// The lines `cost: NAME KEY=N …`, by name, by how many reads are under way, and by their pages.
fn costs(output: &str) -> BTreeMap<(String, u64, u64), Cost> {
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
        let key = (name.to_owned(), cost.get("depth")?, cost.get("pages")?);
        Some((key, cost))
    };
    lines.filter_map(cost).collect()
}

fn line(way: &str, kind: (u64, u64), counted: Option<&Cost>, timed: Option<&Cost>) -> String {
    let (depth, pages) = kind;
    let each = |what| counted.and_then(|cost| cost.each(what)).unwrap_or_default();
    let microseconds = timed.and_then(Cost::microseconds).unwrap_or_default();
    format!(
        "{way}, {depth} at a time, of {} KiB, for 1000 reads: stores that trap {}, all exits to user space {}, \
         messages {}; {microseconds} us for each",
        pages * 4,
        each("stores"),
        each("exits"),
        each("messages")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_for_each_read() {
        let output = "cost: trap exits=50 stores=40 messages=4 count=40 depth=32 pages=1 ns=100000000\n\
                      cost: trap exits=1 depth=x\n";
        let costs = costs(output);
        let cost = &costs[&("trap".to_owned(), 32, 1)];
        assert_eq!(costs.len(), 1);
        let each = ["stores", "messages", "none"].map(|what| cost.each(what));
        assert_eq!(each, [Some(1000), Some(100), None]);
        let text = line("trap", (32, 1), Some(cost), Some(cost));
        assert!(text.ends_with("messages 100; 2500 us for each"), "{text}");
    }
}
