// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What people use with NVMe controllers, in a guest with guarded ones: `fio`, which verifies what it wrote, and
//! `nvme-cli`, whose commands work or are refused by the controller.

use super::{CPUS, FUNCTIONS};
use crate::cases::check::{self, Findings};
use crate::cases::rig::{ARGUMENTS, Rig};
use crate::cases::scattered::MIN_CANARY_MIB;
use crate::cases::script::{self, PRELUDE};
use crate::error::Result;
use crate::runner::CaseResult;
use crate::{guest, image, setup};

const PACKAGES: [&str; 2] = ["fio", "nvme-cli"];
const PROGRAMS: [&str; 2] = ["/usr/bin/fio", "/usr/sbin/nvme"];

/// MiB of the disk with blocks of 4096 bytes.
const LARGE_MIB: usize = 32;
/// What `fio` moves at least in all: in each run 4 MiB, and what it wrote of them once more.
const MIN_DMA: u64 = RUNS.len() as u64 * (4 << 20) * 3 / 2;

/// In the guest, before the rest: `works KEY WORDS COMMAND...` and `refused KEY WORDS COMMAND...` tell `as wanted` if the
/// command succeeded, or failed, and printed the words.
const JUDGES: &str = r#"
judge() {
    wanted=$1 key=$2 words=$3
    shift 3
    text=$("$@" 2>&1) && status=works || status=refused
    case "$status $text" in
    "$wanted "*"$words"*) say "$key" "as wanted" ;;
    *) say "$key" "$status, without '$words'"; echo "$text" | head -n 20 ;;
    esac
}
works() { judge works "$@"; }
refused() { judge refused "$@"; }
verified() {
    key=$1
    shift
    works "$key" "err= 0" fio --name="$key" --direct=1 --ioengine=libaio --size=4m --verify=crc32c --verify_fatal=1 \
        --verify_state_save=0 "$@"
}
"#;

/// Runs of `fio`: a key, the disk, what is done, the size of a request, and how many are under way.
const RUNS: [(&str, &str, &str, &str, u32); 6] = [
    ("one_512", "512", "randwrite", "512", 1),
    ("many_512", "512", "randwrite", "512", 32),
    ("one_4k", "4096", "randwrite", "4k", 1),
    ("many_4k", "4096", "randwrite", "4k", 32),
    ("many_mixed", "512", "randrw", "4k", 32),
    ("many_128k", "4096", "write", "128k", 32),
];

/// Commands of `nvme-cli` that work: a key, what they print, and the command.
const WORKS: [(&str, &str, &str); 12] = [
    ("list", "QEMU NVMe Ctrl", "list"),
    ("id_ctrl", "QEMU NVMe Ctrl", "id-ctrl $controller"),
    ("id_ns", "nsze", "id-ns $disk"),
    ("list_ns", "0x1", "list-ns $controller"),
    ("smart_log", "available_spare", "smart-log $controller"),
    ("error_log", "error_count", "error-log $controller"),
    ("fw_log", "frs1", "fw-log $controller"),
    ("effects_log", "", "effects-log $controller"),
    (
        "get_feature",
        "Current value",
        "get-feature $controller -f 4",
    ),
    ("flush", "", "flush $disk -n 1"),
    (
        "read",
        "Success",
        "read $disk -s 0 -c 0 -z 512 -d /dev/null",
    ),
    ("reset", "", "reset $controller"),
];

/// Commands that the controller refuses, with the status that `nvme-cli` prints.
const REFUSED: [(&str, &str, &str); 9] = [
    (
        "format",
        "Invalid Command Opcode",
        "format $disk -l 0 --force",
    ),
    (
        "sanitize",
        "Invalid Command Opcode",
        "sanitize $controller -a 2",
    ),
    (
        "create_ns",
        "Invalid Command Opcode",
        "create-ns $controller -s 8 -c 8 -f 0",
    ),
    (
        "detach_ns",
        "Invalid Command Opcode",
        "detach-ns $controller -n 1 -c 0",
    ),
    (
        "fw_commit",
        "Invalid Command Opcode",
        "fw-commit $controller -s 1 -a 1",
    ),
    (
        "security",
        "Invalid Command Opcode",
        "security-recv $controller -x 512 -t 512 -p 0",
    ),
    (
        "vendor",
        "Invalid Command Opcode",
        "admin-passthru $controller -o 0xc1",
    ),
    (
        "vendor_io",
        "Invalid Command Opcode",
        "io-passthru $disk -o 0x81 -n 1",
    ),
    (
        "vendor_log",
        "Invalid Log Page",
        "get-log $controller -i 0xca -l 512",
    ),
];

/// `fio` and `nvme-cli` with two guarded controllers, of which the second one's queues are polled.
pub fn programs() -> Result<CaseResult> {
    setup::programs(&PACKAGES)?;
    let script = [FUNCTIONS, JUDGES, &in_guest()].concat();
    let rig = Rig::with_initramfs(31, |path| {
        guest::write_initramfs_with(path, &["nvme"], &PROGRAMS, &script)
    })?;
    let large = rig.disk().with_file_name("large");
    image::write(&large, &image::bytes(LARGE_MIB, 32))?;
    let machine = rig
        .machine(setup::guest_kernel()?.vmlinux())
        .writable_disk("large", large)
        .device("nvme,drive=large,serial=large,logical_block_size=4096,physical_block_size=4096");
    let outcome = machine.run(&run())?;
    let mut findings = Findings::default();
    let facts = script::facts(&outcome.output);
    for key in ["status", "watched", "processes"] {
        findings.expect_eq(key, facts.get(key), Some(&"0"));
    }
    let guest = guest::facts(&outcome.output);
    for key in keys() {
        findings.expect_eq(key, guest.get(key).copied(), Some("as wanted"));
    }
    findings.expect_eq("complaints", guest.get("complaints"), Some(&"0"));
    check::canary_lives(&mut findings, &outcome, MIN_CANARY_MIB);
    check::guarded_dma_inside(&mut findings, &outcome.output, &outcome.trace, MIN_DMA);
    Ok(findings.into_result(&outcome))
}

/// All that the guest judges.
fn keys() -> impl Iterator<Item = &'static str> {
    let runs = RUNS.iter().map(|run| run.0);
    let commands = WORKS.iter().chain(&REFUSED).map(|command| command.0);
    runs.chain(commands).chain(["damaged"])
}

/// What the guest does. In the end a block that `fio` wrote is overwritten, which it must find.
fn in_guest() -> String {
    let runs = RUNS.map(|(key, disk, how, bytes, depth)| {
        format!(
            "verified {key} --filename=$disk_{disk} --rw={how} --bs={bytes} --iodepth={depth}\n"
        )
    });
    let commands = |judge: &str, (key, words, command): (&str, &str, &str)| {
        format!("{judge} {key} '{words}' nvme {command}\n")
    };
    let works = WORKS.map(|command| commands("works", command));
    let refused = REFUSED.map(|command| commands("refused", command));
    [
        "for block in /sys/block/nvme*n1; do\n\
             name=/dev/${block##*/}\n\
             case $(cat $block/queue/logical_block_size) in 512) disk_512=$name ;; *) disk_4096=$name ;; esac\n\
         done\n\
         disk=$disk_512 controller=${disk_512%n1}\n",
        &works.concat(),
        &refused.concat(),
        &runs.concat(),
        "dd if=/dev/zero of=$disk_4096 bs=4096 seek=100 count=1 oflag=direct conv=notrunc 2>/dev/null\n\
         refused damaged 'verify failed' fio --name=damaged --filename=$disk_4096 --direct=1 --ioengine=libaio --size=4m \
         --verify=crc32c --verify_state_save=0 --rw=write --bs=128k --verify_only\n\
         say complaints \"$(complaints '\\|reset controller')\"\n\
         dmesg | grep -i nvme\n",
    ]
    .concat()
}

/// Script: one guest with both controllers, whose memory is at conventional addresses.
fn run() -> String {
    let devices =
        "--device $TESTBED_BDF_0,dma=mediate --device $TESTBED_BDF_1,dma=mediate,poll=on ";
    let arguments = ARGUMENTS.replace("--device $TESTBED_BDF_0 ", devices);
    let arguments = format!("{arguments} --memory 512M --cpus {CPUS}");
    [
        PRELUDE,
        "testbed-bind $TESTBED_BDF_0 $TESTBED_BDF_1 || exit 1\ncat > /tmp/runs << 'END'\n",
        PRELUDE,
        &script::pinvisor("status", "", &arguments),
        "END\ntestbed inside canary --leave-mib 900 -- sh /tmp/runs\nsay watched $?\nsay_processes\n",
    ]
    .concat()
}
