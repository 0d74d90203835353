// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What reads cost a guest with a guarded NVMe controller, beside a guest that has the controller itself, and beside one
//! whose disk is QEMU's virtio-blk on it.
//!
//! The controller's blocks are QEMU's `null-co`. The machine has one CPU, for which a guest that is polled competes with
//! the thread that polls.

use std::fmt::Write;
use std::path::Path;

use serde_json::Value;

use super::reads::each;
use super::rows::Row;
use super::script::{self, FOLDER, Facts};
use crate::error::Result;
use crate::inside::between::FACTS;
use crate::{guest, setup};

/// Hugepages for the guest that has the controller itself.
const PAGES: u32 = 80;

/// In the guest: one by one; of which 8 at a time are submitted, up to 32 in all; and such of 128 KiB.
const GUEST: &str = r#"
for tenth in $(seq 100); do
    [ -e "$disk" ] && break
    sleep 0.1
done
linux-stress reads "disk=$disk count=1000 depth=1"
linux-stress reads "disk=$disk count=8000 depth=32 batch=8"
linux-stress reads "disk=$disk count=800 depth=32 batch=8 pages=32"
if dmesg | grep 'nvme.*\(polled\|timeout\)'; then echo "guest: complains"; fi
"#;

/// Which reads: how many are under way, and their pages.
type Kind = (u64, u64);
const ONE: Kind = (1, 1);
const MANY: Kind = (32, 1);
const LARGE: Kind = (32, 32);
const KINDS: [(Kind, &str); 3] = [
    (ONE, "4 KiB, 1 at a time"),
    (MANY, "4 KiB, 32 at a time"),
    (LARGE, "128 KiB, 32 at a time"),
];

/// What is counted, and what it is.
const EXITS: (&str, &str) = ("user_exits", "exits to user space");
const MESSAGES: (&str, &str) = ("messages", "messages");

/// What is compared.
const IDENTITY: &str = "identity";
const TRAP: &str = "poll=off";
const POLL: &str = "poll=on";
const VIRTIO: &str = "virtio-blk";
const WAYS: [&str; 4] = [IDENTITY, TRAP, POLL, VIRTIO];

/// Measures on a test machine that counts instructions.
///
/// # Errors
/// Those of the test machine; [`Error::Usage`](crate::Error::Usage) with the name of what failed.
pub fn measure(folder: &Path, pinvisor: &Path) -> Result<Facts> {
    let initramfs = folder.join("guarded");
    let modules = ["nvme", "virtio_pci", "virtio_blk"];
    guest::write_program_initramfs(&initramfs, &modules, "linux-stress", GUEST)?;
    let kernel = setup::guest_kernel()?;
    let machine = script::machine_without_disk()
        .hugepages_2m(PAGES)
        .file("kernel", kernel.vmlinux())
        .file("packaged", kernel.packaged())
        .file("initramfs", initramfs)
        .file("pinvisor", pinvisor);
    script::run(&machine.counting(), &script_of(), FACTS)
}

/// `judge STATUS` ends the script if a guest failed, or its driver had a complaint.
const JUDGE: &str = r#"
judge() {
    cat /tmp/output
    [ $1 = 0 ] || exit 1
    if grep -q complains /tmp/output; then
        echo "testbed: the guest's driver waited for completions"
        exit 1
    fi
}
"#;

/// A guest of each way, and another one in which events are counted. The last way gives the controller back to this
/// machine.
fn script_of() -> String {
    let words = "console=ttyS0 quiet panic=-1 tsc=reliable disk";
    let pinvisor = |options: &str| {
        format!(
            "{FOLDER}/pinvisor run --kernel {FOLDER}/kernel --initramfs {FOLDER}/initramfs --memory 128M --noiommu \
             --device $TESTBED_BDF_0,{options} --cmdline '{words}=/dev/nvme0n1'"
        )
    };
    let virtio = format!(
        "qemu-system-x86_64 -M q35 -enable-kvm -cpu host -m 128M -smp 1 -nodefaults -no-user-config -no-reboot \
         -display none -serial stdio -kernel {FOLDER}/packaged -initrd {FOLDER}/initramfs \
         -drive file=/dev/nvme0n1,if=none,id=disk,format=raw,cache=none,aio=native \
         -object iothread,id=thread -device virtio-blk-pci,drive=disk,iothread=thread \
         -append '{words}=/dev/vda'"
    );
    let both = |name: &str, command: &str| {
        let between = |name: &str, words: &str| {
            format!(
                "echo bench: {name}\ntestbed inside between {words}-- {command} < /dev/null > /tmp/output\njudge $?\n"
            )
        };
        between(name, "") + &between(&traced(name), "--trace user ")
    };
    [
        script::prepare(&["kernel", "packaged", "initramfs", "pinvisor"], PAGES),
        JUDGE.to_owned(),
        "testbed-bind $TESTBED_BDF_0 || exit 1\n".to_owned(),
        both(IDENTITY, &pinvisor("dma=identity")),
        both(TRAP, &pinvisor("dma=mediate,poll=off")),
        both(POLL, &pinvisor("dma=mediate,poll=on")),
        "testbed-bind -d '' $TESTBED_BDF_0\n\
         for second in 1 2 3 4 5 6 7 8 9 10; do [ -b /dev/nvme0n1 ] && break; sleep 1; done\n"
            .to_owned(),
        both(VIRTIO, &virtio),
    ]
    .concat()
}

fn traced(name: &str) -> String {
    format!("{name}, counted")
}

fn fact<'a>(facts: &'a Facts, name: &str, (depth, pages): Kind) -> Option<&'a Value> {
    let is_kind = |fact: &&Value| fact["depth"] == depth && fact["read_pages"] == pages;
    facts.get(name)?.iter().find(is_kind)
}

/// How often `what` happened for each read.
fn times(facts: &Facts, name: &str, kind: Kind, what: &str) -> Option<f64> {
    let fact = fact(facts, &traced(name), kind)?;
    Some(fact[what].as_f64()? / fact["count"].as_f64()?)
}

/// The rows of what was measured.
pub fn rows(facts: &Facts) -> Vec<Row> {
    let mut rows = events(facts);
    rows.extend(costs(facts));
    rows
}

/// What happens for each read.
pub fn events(facts: &Facts) -> Vec<Row> {
    let limits = [
        (TRAP, ONE, EXITS, 1.0),
        (TRAP, MANY, EXITS, 0.3),
        (POLL, ONE, EXITS, 0.0),
        (POLL, MANY, EXITS, 0.0),
        (TRAP, MANY, MESSAGES, 1.0),
        (POLL, ONE, MESSAGES, 1.0),
        (POLL, MANY, MESSAGES, 1.0),
    ];
    limits
        .into_iter()
        .map(|(way, kind, (key, name), most)| {
            let text = format!("guarded, {way}: {name} for each read, {} at a time", kind.0);
            Row::new(text, times(facts, way, kind, key), "", most)
        })
        .collect()
}

/// What each read costs.
fn costs(facts: &Facts) -> Vec<Row> {
    let cost = |way, kind| fact(facts, way, kind).and_then(each);
    let ratio = |(way, kind), (other, of)| Some(cost(way, kind)? / cost(other, of)?);
    let mut rows = Vec::new();
    for (way, most) in [(IDENTITY, None), (TRAP, Some(0.8)), (POLL, None)] {
        let text =
            format!("{way}: instructions for each read of 4 KiB, 32 at a time, against virtio-blk");
        let value = ratio((way, MANY), (VIRTIO, MANY));
        rows.push(match most {
            Some(most) => Row::new(text, value, "x", most),
            None => Row::reported(text, value, "x"),
        });
    }
    let text = "guarded, poll=off: instructions for each read of 128 KiB, against those of 4 KiB";
    rows.push(Row::new(text, ratio((TRAP, LARGE), (TRAP, MANY)), "x", 3.0));
    rows
}

/// What each read costs, in Markdown.
pub fn table(facts: &Facts) -> String {
    let mut text = String::from(
        "\n| reads | way | instructions each | idle, ms | microseconds each | exits to user space each | messages each |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for (kind, name) in KINDS {
        for way in WAYS {
            let Some(found) = fact(facts, way, kind) else {
                continue;
            };
            let number = |key: &str| found[key].as_f64().unwrap_or(f64::NAN);
            let of = |what| times(facts, way, kind, what).unwrap_or(f64::NAN);
            let _ = writeln!(
                text,
                "| {name} | {way} | {:.0} | {:.1} | {:.1} | {:.3} | {:.3} |",
                each(found).unwrap_or(f64::NAN),
                number("idle_seconds") * 1e3,
                number("seconds") * 1e6 / number("count"),
                of(EXITS.0),
                of(MESSAGES.0)
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rows_compare_the_ways_of_one_kind() {
        let fact = |(depth, pages): Kind, seconds: f64, exits: u64| {
            json!({"depth": depth, "read_pages": pages, "count": 100, "seconds": seconds, "idle_seconds": 0,
                "user_exits": exits, "messages": 4})
        };
        let facts = Facts::from([
            (
                TRAP.to_owned(),
                vec![fact(ONE, 9.0, 0), fact(MANY, 1.0, 0), fact(LARGE, 2.5, 0)],
            ),
            (VIRTIO.to_owned(), vec![fact(MANY, 2.0, 0)]),
            (traced(TRAP), vec![fact(ONE, 9.0, 100), fact(MANY, 1.0, 31)]),
        ]);
        let rows: Vec<_> = rows(&facts).iter().map(Row::json).collect();
        let value = |part: &str| {
            let row = rows
                .iter()
                .find(|row| row["what"].as_str().unwrap().contains(part))
                .unwrap();
            (row["value"].as_f64(), row["met"].as_bool())
        };
        assert_eq!(
            value("off: exits to user space for each read, 1 "),
            (Some(1.0), Some(true))
        );
        assert_eq!(
            value("off: exits to user space for each read, 32 "),
            (Some(0.31), Some(false))
        );
        assert_eq!(
            value("off: messages for each read, 32"),
            (Some(0.04), Some(true))
        );
        assert_eq!(
            value("off: instructions for each read of 4 KiB"),
            (Some(0.5), Some(true))
        );
        assert_eq!(value("of 128 KiB"), (Some(2.5), Some(true)));
        assert_eq!(value("identity"), (None, None));
        assert!(table(&facts).contains("| 4 KiB, 32 at a time | poll=off | 10000000 |"));
    }
}
