// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Controllers and namespaces of every shape in one guest, and resets and suspends of them under load.

use std::path::PathBuf;

use super::{CPUS, FUNCTIONS};
use crate::cases::check::{self, Findings};
use crate::cases::rig::{ARGUMENTS, Rig};
use crate::cases::scattered::{MIN_CANARY_MIB, SCATTERED_EACH, is_scattered};
use crate::cases::script::{self, PRELUDE};
use crate::error::Result;
use crate::machine::Machine;
use crate::runner::CaseResult;
use crate::{guest, image, setup};

/// In the guest: what each namespace is, by serial number and number; its contents before and after it was written to and
/// trimmed; then the beginning of each is read and hashed again and again, while each controller is reset three times and all
/// devices are suspended and resumed once.
const GUEST: &str = r#"
disks=
for block in /sys/block/nvme*; do
    name=${block##*/}
    case $name in *c*) continue ;; esac
    key=$(tr -d ' ' < "$block/device/serial")_${name##*n}
    disks="$disks /dev/$name=$key"
    say "disk_$key" "$(hash "/dev/$name")"
    add "/dev/$name"
    say "written_$key" $?
    blkdiscard -o 8388608 -l 4194304 "/dev/$name"
    say "discarded_$key" $?
    say "after_$key" "$(hash "/dev/$name")"
    say "block_$key" "$(cat "$block/queue/logical_block_size")"
    say "largest_$key" "$(cat "$block/queue/max_hw_sectors_kb")"
done
say disks "$(echo $disks | wc -w)"
say complaints "$(complaints '\|reset')"
part() { dd if="$1" bs=256k count=8 iflag=direct 2>/dev/null | sha256sum; }
for disk in $disks; do
    (
        rounds=0 first=$(part "${disk%=*}")
        while [ ! -e /stop ]; do
            [ "$(part "${disk%=*}")" = "$first" ] || : > "/torn-${disk#*=}"
            rounds=$((rounds + 1))
        done
        : > "/rounds-$rounds-${disk#*=}"
    ) &
done
sleep 2
resets=0
for round in 1 2 3; do
    for controller in /sys/class/nvme/nvme*; do
        echo 1 > "$controller/reset_controller" && resets=$((resets + 1))
    done
    sleep 1
done
say resets $resets
echo 1 > /sys/module/suspend/parameters/pm_test_delay
echo devices > /sys/power/pm_test && echo freeze > /sys/power/state
say suspended $?
sleep 2
: > /stop
wait
say torn "$(ls / | grep -c ^torn)"
say readers "$(ls / | grep ^rounds | grep -vc '^rounds-0-')"
ls / | grep ^rounds
for disk in $disks; do say "end_${disk#*=}" "$(hash "${disk%=*}")"; done
say late_complaints "$(complaints)"
dmesg | grep -i -e nvme -e 'PM:'
"#;

/// A namespace that the guest is to have.
#[derive(Clone, Copy, Debug)]
struct Namespace {
    /// Serial number of its controller, and its number.
    key: &'static str,
    /// Bytes of a block.
    block: &'static str,
    /// KiB of the largest transfer, by the controller's MDTS, of which 9 is offered at most.
    largest: &'static str,
}

const NAMESPACES: [Namespace; 5] = [
    of("testbed_1", "512", "512"),
    of("large_1", "4096", "2048"),
    of("many_1", "512", "8"),
    of("many_2", "4096", "8"),
    of("long_1", "512", "2048"),
];
/// Controllers besides the rig's, with the disks that they name.
const CONTROLLERS: [&str; 3] = [
    "nvme,drive=large_1,serial=large,logical_block_size=4096,physical_block_size=4096,mdts=0,ioeventfd=on",
    "nvme,id=many,serial=many,mdts=1",
    "nvme,drive=long_1,serial=long,mdts=9,max_ioqpairs=1,msix_qsize=2",
];
/// Namespaces of a controller; the last one has metadata, and the guest must not see it.
const OF_MANY: [&str; 3] = [
    "nvme-ns,bus=many,nsid=1,drive=many_1",
    "nvme-ns,bus=many,nsid=2,drive=many_2,logical_block_size=4096,physical_block_size=4096",
    "nvme-ns,bus=many,nsid=3,drive=many_3,ms=8,mset=0",
];
/// MiB of each disk but the rig's.
const SMALL_MIB: usize = 16;

const fn of(key: &'static str, block: &'static str, largest: &'static str) -> Namespace {
    Namespace {
        key,
        block,
        largest,
    }
}

/// A disk image and what is on it.
struct Disk {
    key: &'static str,
    path: PathBuf,
    contents: Vec<u8>,
}

/// Four controllers in one guest.
pub fn shapes() -> Result<CaseResult> {
    let rig = Rig::new(23, &[FUNCTIONS, GUEST].concat())?;
    let mut disks = vec![Disk {
        key: "testbed_1",
        path: rig.disk(),
        contents: rig.contents.clone(),
    }];
    for (key, seed) in ["large_1", "many_1", "many_2", "many_3", "long_1"]
        .into_iter()
        .zip(24..)
    {
        let disk = Disk {
            key,
            path: rig.disk().with_file_name(key),
            contents: image::bytes(SMALL_MIB, seed),
        };
        image::write(&disk.path, &disk.contents)?;
        disks.push(disk);
    }
    let outcome = machine(&rig, &disks)?.run(&run())?;
    let mut findings = Findings::default();
    let facts = script::facts(&outcome.output);
    findings.expect_eq("status", facts.get("status"), Some(&"0"));
    findings.expect_eq("the canary's status", facts.get("watched"), Some(&"0"));
    findings.expect_eq("processes left", facts.get("processes"), Some(&"0"));
    guest_is_right(&mut findings, &outcome.output, &disks);
    for disk in &disks {
        let wanted = match disk.key {
            "many_3" => image::sha256(&disk.contents),
            _ => image::sha256(&image::after_guest_write(&disk.contents)),
        };
        findings.expect_eq(disk.key, image::sha256_of_file(&disk.path)?, wanted);
    }
    findings.expect(
        outcome.output.contains("namespace 3 is hidden"),
        "the namespace with metadata was not reported",
    );
    check::canary_lives(&mut findings, &outcome, MIN_CANARY_MIB);
    is_scattered(&mut findings, &outcome);
    let least = disks
        .iter()
        .map(|disk| disk.contents.len() as u64)
        .sum::<u64>();
    check::guarded_dma_inside(&mut findings, &outcome.output, &outcome.trace, 3 * least);
    Ok(findings.into_result(&outcome))
}

fn machine(rig: &Rig, disks: &[Disk]) -> Result<Machine> {
    let machine = rig.machine(setup::guest_kernel()?.vmlinux());
    let machine = CONTROLLERS
        .iter()
        .fold(machine, |machine, controller| machine.device(controller));
    let machine = disks.iter().skip(1).fold(machine, |machine, disk| {
        machine.writable_disk(disk.key, disk.path.clone())
    });
    Ok(OF_MANY.iter().fold(machine, |machine, namespace| {
        machine.qemu_arg("-device").qemu_arg(namespace)
    }))
}

/// Script: one guest with all of them.
fn run() -> String {
    let devices: String = (0..=CONTROLLERS.len())
        .map(|number| format!("--device $TESTBED_BDF_{number},dma=mediate "))
        .collect();
    let arguments = ARGUMENTS.replace("--device $TESTBED_BDF_0 ", &devices);
    let arguments = format!("{arguments} --memory 192M --cpus {CPUS}");
    let [scatter, watch] = SCATTERED_EACH;
    let bind: String = (0..=CONTROLLERS.len())
        .map(|number| format!("testbed-bind $TESTBED_BDF_{number} || exit 1\n"))
        .collect();
    [
        PRELUDE,
        &bind,
        "cat > /tmp/runs << 'END'\n",
        PRELUDE,
        &script::pinvisor("status", scatter, &arguments),
        "END\n",
        watch,
        "/tmp/runs\nsay watched $?\nsay_processes\n",
    ]
    .concat()
}

fn guest_is_right(findings: &mut Findings, output: &str, disks: &[Disk]) {
    let guest = guest::facts(output);
    let mut expect = |what: &str, wanted: &str| {
        findings.expect_eq(what, guest.get(what).copied(), Some(wanted));
    };
    let readers = NAMESPACES.len().to_string();
    let resets = (3 * (1 + CONTROLLERS.len())).to_string();
    for (what, wanted) in [
        ("disks", NAMESPACES.len().to_string().as_str()),
        ("complaints", "0"),
        ("resets", &resets),
        ("suspended", "0"),
        ("torn", "0"),
        ("readers", &readers),
        ("late_complaints", "0"),
    ] {
        expect(what, wanted);
    }
    for Namespace {
        key,
        block,
        largest,
    } in NAMESPACES
    {
        let contents = disks.iter().find(|disk| disk.key == key);
        let contents = contents.map_or(&[][..], |disk| &disk.contents);
        let (before, after) = (
            image::sha256(contents),
            image::sha256(&image::after_guest_write(contents)),
        );
        for (what, wanted) in [
            ("disk", before.as_str()),
            ("written", "0"),
            ("discarded", "0"),
            ("after", &after),
            ("end", &after),
            ("block", block),
            ("largest", largest),
        ] {
            expect(&format!("{what}_{key}"), wanted);
        }
    }
}
