// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Random reads of an NVMe controller: in a guest that it is passed through to, and on the test machine itself, by
//! the same kernel and the same program.
//!
//! The controller's blocks are QEMU's `null-co`, so that neither the disk nor its delays count: what is left are the
//! instructions of driver, interrupts and exits.

use std::fmt::Write;
use std::path::Path;

use serde_json::Value;

use super::rows::Row;
use super::script::{self, Facts};
use crate::error::Result;
use crate::initramfs::Initramfs;
use crate::inside::between::FACTS;
use crate::paths::{self, GuestTarget};
use crate::setup::{self, Arch, Flavour};

/// Reads, and how many are under way. Those that are traced, and those one by one, are fewer.
const MANY: u32 = 100_000;
const FEW: u32 = 10_000;

/// The guest's init. Words that the kernel does not know are its variables.
const GUEST: &str = r#"#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
for tenth in $(/bin/busybox seq 100); do
    [ -e /dev/nvme0n1 ] && break
    /bin/busybox sleep 0.1
done
/bin/linux-stress reads "disk=/dev/nvme0n1 count=$count depth=$depth"
/bin/busybox poweroff -f
"#;

/// What the script calls each measurement.
const NATIVE: &str = "native";
const GUESTS: &str = "guest";
const TRACED: &str = "traced";
const UNPOLLED: &str = "unpolled";

/// Measures on a test machine that counts instructions.
///
/// # Errors
/// Those of the test machine; [`Error::Usage`](crate::Error::Usage) with the name of what failed.
pub fn measure(folder: &Path, pinvisor: &Path) -> Result<Facts> {
    let initramfs = folder.join("reads");
    let reads = paths::guest_program("linux-stress", GuestTarget::Linux(Arch::X86_64))?;
    let mut archive = Initramfs::with_busybox(&setup::busybox(Arch::X86_64)?, GUEST)?;
    archive.add_path("bin/linux-stress", &reads)?;
    archive.write(&initramfs)?;
    let machine = script::machine_without_disk()
        .hugepages_2m(PAGES)
        .file("kernel", setup::kernel(Arch::X86_64, Flavour::Groups)?)
        .file("initramfs", initramfs)
        .file("pinvisor", pinvisor)
        .file("linux-stress", reads);
    script::run(&machine.counting(), &script_of(), FACTS)
}

const PAGES: u32 = 80;

fn script_of() -> String {
    let native = |count, depth| {
        format!(
            "echo bench: {NATIVE}-{depth}\ntestbed inside between -- /tmp/bench/linux-stress reads \
             'disk=/dev/nvme0n1 count={count} depth={depth}' || exit 1\n"
        )
    };
    let guest = |name, words, count, depth| {
        format!(
            "echo bench: {name}-{depth}\ntestbed inside between {words}-- /tmp/bench/pinvisor run --kernel \
             /tmp/bench/kernel --initramfs /tmp/bench/initramfs --memory 128M --noiommu --device $TESTBED_BDF_0 \
             --cmdline 'console=ttyS0 quiet panic=-1 tsc=reliable count={count} depth={depth}' || exit 1\n"
        )
    };
    [
        script::prepare(&["kernel", "initramfs", "pinvisor", "linux-stress"], PAGES),
        native(MANY, 32),
        native(FEW, 1),
        "testbed-bind $TESTBED_BDF_0 || exit 1\n".to_owned(),
        // There are none to count.
        guest(GUESTS, "--trace user ", MANY, 32),
        guest(GUESTS, "", FEW, 1),
        guest(TRACED, "--trace all ", FEW, 32),
        guest(TRACED, "--trace all ", FEW, 1),
        "echo 0 > /sys/module/kvm/parameters/halt_poll_ns || exit 1\n".to_owned(),
        guest(UNPOLLED, "", MANY, 32),
        guest(UNPOLLED, "", FEW, 1),
    ]
    .concat()
}

/// The rows of what was measured.
pub fn rows(facts: &Facts) -> Vec<Row> {
    let fact = |name: &str, depth: u32| facts.get(&format!("{name}-{depth}"))?.first();
    let cost = |name, depth| fact(name, depth).and_then(each);
    let ratio = |name, depth| Some(cost(name, depth)? / cost(NATIVE, depth)?);
    let user = fact(GUESTS, 32).and_then(|fact| fact["user_exits"].as_f64());
    let exits = |depth, reason: &str| {
        let fact = fact(TRACED, depth)?;
        let count = fact["exits"].as_object()?.get(reason);
        Some(count.map_or(0.0, |count| count.as_f64().unwrap_or(0.0)) / fact["count"].as_f64()?)
    };
    let mut rows = vec![
        Row::new(
            "100,000 random reads, 32 at a time: exits to user space",
            user,
            "",
            0.0,
        ),
        Row::new(
            "exits for doorbells (npf) for each read, 32 at a time",
            exits(32, "npf"),
            "",
            0.01,
        ),
        Row::new(
            "instructions for each read, 32 at a time, guest against host",
            ratio(GUESTS, 32),
            "x",
            1.3,
        ),
        Row::reported("the same without halt polling", ratio(UNPOLLED, 32), "x"),
        Row::reported(
            "instructions for each read, 1 at a time, guest against host",
            ratio(GUESTS, 1),
            "x",
        ),
        Row::reported("the same without halt polling", ratio(UNPOLLED, 1), "x"),
    ];
    for depth in [32, 1] {
        let reasons = fact(TRACED, depth).and_then(|fact| fact["exits"].as_object());
        for reason in reasons.into_iter().flat_map(|reasons| reasons.keys()) {
            let what = format!("exits to KVM for each read, {depth} at a time: {reason}");
            rows.push(Row::reported(what, exits(depth, reason), ""));
        }
    }
    let pages = |level: &str| fact(TRACED, 32)?["pages"].get(level)?.as_f64();
    let (small, large) = (pages("1"), pages("2"));
    rows.push(Row::reported(
        "pages of 2 MiB in KVM's table, 128 MiB",
        large,
        "",
    ));
    rows.push(Row::reported("pages of 4 KiB in KVM's table", small, ""));
    rows
}

/// Instructions for each read, without idle time.
pub fn each(fact: &Value) -> Option<f64> {
    let busy = fact["seconds"].as_f64()? - fact["idle_seconds"].as_f64()?;
    Some(busy * 1e9 / fact["count"].as_f64()?)
}

/// The instructions for each read, in Markdown.
pub fn table(facts: &Facts) -> String {
    let mut text = String::from(
        "\n| reads | instructions each | idle, ms | exits to KVM each |\n|---|---|---|---|\n",
    );
    for (name, facts) in facts {
        let Some(fact) = facts.first() else { continue };
        let count = fact["count"].as_f64().unwrap_or(f64::NAN);
        // Where nothing is traced, there are none.
        let exits = fact["exits"]
            .as_object()
            .into_iter()
            .flat_map(|exits| exits.values());
        let exits: Option<f64> = exits.map(Value::as_f64).sum();
        let exits = match exits.filter(|exits| *exits > 0.0) {
            Some(exits) => format!("{:.2}", exits / count),
            None => String::new(),
        };
        let cost = each(fact).unwrap_or(f64::NAN);
        let idle = fact["idle_seconds"].as_f64().unwrap_or(f64::NAN) * 1e3;
        let _ = writeln!(text, "| {name} | {cost:.0} | {idle:.1} | {exits} |");
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn idle_time_is_no_cost() {
        let fact = json!({"seconds": 0.5, "idle_seconds": 0.25, "count": 1000});
        assert_eq!(each(&fact), Some(250_000.0));
        assert_eq!(each(&json!({})), None);
    }

    #[test]
    fn rows_are_for_each_read() {
        let fact = |ns: u64| json!({"seconds": ns, "idle_seconds": 0, "count": 100, "user_exits": 1, "exits": {"hlt": 50}});
        let names = [NATIVE, GUESTS, TRACED, UNPOLLED];
        let all = names.map(|name| (format!("{name}-32"), vec![fact(1000)]));
        let mut facts = Facts::from(all);
        facts.insert("guest-32".to_owned(), vec![fact(1200)]);
        let rows = rows(&facts);
        let met = |what: &str| {
            rows.iter()
                .find(|row| row.json()["what"].as_str().unwrap().contains(what))
                .unwrap()
                .json()
        };
        assert_eq!(met("guest against host")["value"], 1.2);
        assert_eq!(met("exits to user space")["met"], false);
        assert_eq!(met("doorbells")["value"], 0.0);
        assert_eq!(met("a time: hlt")["value"], 0.5);
    }
}
