// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What start and end of a guest take with ever more pieces of memory, devices and vCPUs.

use std::fmt::Write;

use serde_json::Value;

use super::Bench;
use super::rows::Row;
use super::script::{self, FOLDER, Facts};
use crate::error::Result;
use crate::image;
use crate::inside::boot::FACTS;
use crate::machine::Machine;
use crate::setup::{self, Arch, Flavour};

/// Pieces of memory. There are as many hugepages in each case, all but these in one block.
const PIECES: [u32; 4] = [1, 10, 100, 1000];
const PAGES: u32 = 1064;
/// Devices, and vCPUs.
const NUMBERS: [u32; 4] = [1, 2, 4, 8];

/// Hugepages of the machine: every other one of a thousand, the block, and some more.
const POOL: u32 = 2200;
const MACHINE: &str = "8G";
/// Memory of the machine in GiB.
pub const GIB: u64 = 8;

/// Names of the cases.
const EXTENTS: &str = "extents";
const DEVICES: &str = "devices";
const CPUS: &str = "vCPUs";

/// Measures on a test machine that counts instructions.
///
/// # Errors
/// Those of the test machine; [`Error::Usage`](crate::Error::Usage) with the name of what failed.
pub fn measure(bench: &Bench) -> Result<Facts> {
    let disk = bench.folder.join("small-disk");
    image::write(&disk, &image::bytes(1, 1))?;
    let machine = Machine::builder()
        .memory(MACHINE)
        .hugepages_2m(POOL)
        .file("kernel", setup::kernel(Arch::X86_64, Flavour::Groups)?)
        .file("initramfs", &bench.initramfs)
        .file("pinvisor", &bench.pinvisor);
    let machine = (0..NUMBERS[3]).fold(machine, |machine, number| {
        let name = format!("disk{number}");
        machine
            .device(&format!("nvme,drive={name},serial=testbed{number}"))
            .disk(&name, disk.clone())
    });
    script::run(&machine.counting(), &script_of(), FACTS)
}

fn script_of() -> String {
    let boot = |memory: &str, devices: u32, cpus: u32| {
        let devices: String = (0..devices)
            .map(|number| format!("--device $TESTBED_BDF_{number} "))
            .collect();
        format!(
            "testbed inside boot --trace all -- {FOLDER}/pinvisor run --kernel {FOLDER}/kernel --initramfs \
             {FOLDER}/initramfs --memory {memory} --cpus {cpus} --noiommu {devices}--cmdline 'console=ttyS0 quiet \
             panic=-1' || exit 1\n"
        )
    };
    let mut script = script::prepare(&["kernel", "initramfs", "pinvisor"], POOL);
    for number in 0..NUMBERS[3] {
        script += &format!("testbed-bind $TESTBED_BDF_{number} || exit 1\n");
    }
    // The first one brings files into memory.
    script += &boot("128M", 1, 1).replace(" ||", " > /dev/null ||");
    for number in NUMBERS {
        script += &format!(
            "echo bench: {DEVICES}-{number}\n{}",
            boot("128M", number, 1)
        );
        script += &format!("echo bench: {CPUS}-{number}\n{}", boot("128M", 1, number));
    }
    for pieces in PIECES {
        let (singles, block) = (pieces - 1, PAGES - pieces + 1);
        let memory = format!("{}M,pieces=any,spare=0", 2 * PAGES);
        let boot = boot(&memory, 1, 1);
        script += &format!(
            "echo bench: {EXTENTS}-{pieces}\n\
             testbed inside shape --singles {singles} --block {block} -- {boot}"
        );
    }
    script
}

/// The table, in Markdown.
pub fn table(facts: &Facts) -> String {
    let mut text = String::from(
        "\n| | | start, 10^6 instructions, without waiting and clearing | end, without waiting | waiting, ms |\n\
         |---|---|---|---|---|\n",
    );
    for (name, numbers) in [(EXTENTS, PIECES), (DEVICES, NUMBERS), (CPUS, NUMBERS)] {
        for number in numbers {
            let Some(fact) = fact(facts, name, number) else {
                continue;
            };
            let figure =
                |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.1}"));
            let start = start(fact).map(|start| start * 1e3);
            let end = end(fact).map(|end| end * 1e3);
            let idle = fact["trace"]["idle_s"].as_f64().map(|idle| idle * 1e3);
            let _ = writeln!(
                text,
                "| {name} | {number} | {} | {} | {} |",
                figure(start),
                figure(end),
                figure(idle)
            );
        }
    }
    text
}

/// How costs grow from 100 pieces to 1000: what is n log n grows 15 times.
pub fn rows(facts: &Facts) -> Vec<Row> {
    let growth = |cost: &dyn Fn(&Value) -> Option<f64>| {
        let cost = |pieces| fact(facts, EXTENTS, pieces).and_then(cost);
        let one = cost(1)?;
        Some((cost(1000)? - one) / (cost(100)? - one))
    };
    vec![
        Row::new(
            "start, 1000 pieces of memory against 100, beyond one",
            growth(&start),
            "x",
            15.0,
        ),
        Row::new(
            "end, 1000 pieces of memory against 100, beyond one",
            growth(&end),
            "x",
            15.0,
        ),
    ]
}

fn fact<'a>(facts: &'a Facts, name: &str, number: u32) -> Option<&'a Value> {
    facts.get(&format!("{name}-{number}"))?.first()
}

/// Seconds up to the guest's first instruction, without waiting and clearing.
fn start(fact: &Value) -> Option<f64> {
    let traced = |key: &str| fact["trace"][key].as_f64();
    Some(traced("before_guest_s")? - traced("waiting_s")? - traced("clearing_s")?)
}

/// Seconds from the guest's last instruction to the monitor's end, without waiting.
fn end(fact: &Value) -> Option<f64> {
    let traced = |key: &str| fact["trace"][key].as_f64();
    Some(traced("end_s")? - traced("end_idle_s")?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_grows_faster_than_n_log_n_misses() {
        let fact = |start: f64| {
            let trace = json!({"before_guest_s": start, "waiting_s": 0.0, "clearing_s": 0.0, "end_s": 1.5,
                    "end_idle_s": 0.5, "idle_s": 0.2});
            vec![json!({"trace": trace})]
        };
        let met = |thousand| {
            let costs = [(1, 1.0), (100, 2.0), (1000, thousand)];
            let facts = costs.map(|(pieces, cost)| (format!("extents-{pieces}"), fact(cost)));
            rows(&Facts::from(facts))[0].is_met()
        };
        assert_eq!((met(15.0), met(101.0)), (Some(true), Some(false)));
        let facts = Facts::from([("devices-2".to_owned(), fact(0.5))]);
        assert!(table(&facts).ends_with("| devices | 2 | 500.0 | 1000.0 | 200.0 |\n"));
    }
}
