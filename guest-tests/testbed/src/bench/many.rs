// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Many microVMs of 64 MiB, started at once on one CPU, against one.

use serde_json::Value;

use super::Bench;
use super::rows::Row;
use super::script::{self, FOLDER, Facts};
use crate::error::Result;
use crate::image;
use crate::inside::many::FACTS;
use crate::machine::Machine;
use crate::setup::{self, Arch, Flavour};

/// How many without a device, those of the short form, and how many with a device each.
const WITHOUT: u32 = 32;
const SHORT: u32 = 8;
const WITH: u32 = 4;

/// Hugepages: four guests of 64 MiB, and some more.
const PAGES: u32 = 4 * 32 + 16;

/// What the script calls them.
const PLAIN: &str = "plain";
const NVME: &str = "nvme";

/// Measures on a test machine that counts instructions.
///
/// # Errors
/// Those of the test machine; [`Error::Usage`](crate::Error::Usage) with the name of what failed.
pub fn measure(bench: &Bench, is_short: bool) -> Result<Facts> {
    let disk = bench.folder.join("small-disk");
    image::write(&disk, &image::bytes(1, 1))?;
    let machine = Machine::builder()
        .memory("4G")
        .hugepages_2m(PAGES)
        .file("kernel", setup::kernel(Arch::X86_64, Flavour::Groups)?)
        .file("initramfs", &bench.initramfs)
        .file("pinvisor", &bench.pinvisor);
    let machine = (0..WITH).fold(machine, |machine, number| {
        let name = format!("disk{number}");
        machine
            .device(&format!("nvme,drive={name},serial=testbed{number}"))
            .disk(&name, disk.clone())
    });
    let many = if is_short { SHORT } else { WITHOUT };
    script::run(&machine.counting(), &script_of(many), FACTS)
}

fn script_of(many: u32) -> String {
    let run = |name, count: u32, device| {
        format!(
            "echo bench: {name}-{count}\ntestbed inside many --count {count} -- sh -c 'eval exec {FOLDER}/pinvisor run \
             --kernel {FOLDER}/kernel --initramfs {FOLDER}/initramfs --memory 64M {device} --cmdline \
             \"console=ttyS0\\ quiet\\ panic=-1\"' || exit 1\n"
        )
    };
    let device = "--noiommu --device \\$TESTBED_BDF_$NUMBER";
    [
        script::prepare(&["kernel", "initramfs", "pinvisor"], PAGES),
        "testbed-bind $TESTBED_BDF_0 $TESTBED_BDF_1 $TESTBED_BDF_2 $TESTBED_BDF_3 || exit 1\n"
            .into(),
        // The first of each brings files into memory.
        run("first", 1, ""),
        run(PLAIN, 1, ""),
        run(PLAIN, many, ""),
        run("first", 1, device),
        run(NVME, 1, device),
        run(NVME, WITH, device),
    ]
    .concat()
}

/// The rows of what was measured.
pub fn rows(facts: &Facts) -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, with) in [
        (PLAIN, "without a device"),
        (NVME, "with an NVMe controller each"),
    ] {
        let fact = |count| facts.get(&format!("{name}-{count}"))?.first();
        let many = [WITHOUT, SHORT, WITH]
            .into_iter()
            .find(|count| fact(*count).is_some());
        let all = many.and_then(fact);
        let ratio = all.and_then(busy).zip(fact(1).and_then(busy));
        let count = many.map_or(f64::NAN, f64::from);
        rows.push(Row::new(
            format!("{count} microVMs of 64 MiB at once, {with}, against as many times one"),
            ratio.map(|(all, one)| all / one / count),
            "x",
            1.1,
        ));
        rows.push(Row::new(
            format!("hugepages, monitors and open files that {count} of them left behind, {with}"),
            all.map(left),
            "",
            0.0,
        ));
    }
    rows
}

/// Instructions, without idle time.
fn busy(fact: &Value) -> Option<f64> {
    Some(fact["ns"].as_f64()? - fact["idle_ms"].as_f64()? * 1e6)
}

/// How much there is more of afterwards, or less of hugepages.
fn left(fact: &Value) -> f64 {
    let change = |key: &str| {
        let value = |when: &str| fact[when][key].as_f64().unwrap_or(f64::NAN);
        value("after") - value("before")
    };
    -change("hugepages").min(0.0) + change("monitors").max(0.0) + change("files").max(0.0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_left_behind_is_counted() {
        let state = |hugepages, files, monitors| json!({"hugepages": hugepages, "files": files, "monitors": monitors});
        let fact =
            |after| json!({"ns": 3_500, "idle_ms": 0, "before": state(100, 50, 0), "after": after});
        assert_eq!(left(&fact(state(100, 40, 0))), 0.0);
        assert_eq!(left(&fact(state(98, 51, 1))), 4.0);
        let one = json!({"ns": 100_010_000, "idle_ms": 100});
        let mut facts = Facts::from([("plain-1".to_owned(), vec![one])]);
        let all = json!({"ns": 384_000, "idle_ms": 0, "before": {}, "after": {}});
        facts.insert("plain-32".to_owned(), vec![all]);
        let row = rows(&facts)[0].json();
        assert_eq!(
            (row["value"].as_f64(), row["met"].as_bool()),
            (Some(1.2), Some(false))
        );
    }
}
