// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How a guest's first MiB is described, which is not at its host-physical addresses: a kernel that
//! would give it to drivers is prevented from it, and to a program that may do so it is not
//! described as RAM.

use std::path::Path;

use super::check::{self, Findings};
use super::data::not_reserved;
use super::refusal;
use super::rig::Rig;
use super::script::{self, PRELUDE};
use super::step::{self, STEP, Step};
use crate::error::{AtPath, Result};
use crate::guest;
use crate::runner::CaseResult;
use crate::setup;

/// In the guest: let the e1000's driver take memory for its rings, report the first MiB, and wait
/// for a line.
const GUEST: &str = r#"
say() { echo "guest: $1=$2"; }
# What the driver complains of must not come between the digits.
dmesg -n 1
say cpus "$(cat /sys/devices/system/cpu/online)"
say flags "$(dd if=/proc/kpageflags bs=2048 count=1 2>/dev/null | xxd -p -c 4096)"
say cmdline "$(cat /proc/cmdline)"
interface=$(ls /sys/bus/pci/drivers/e1000/*/net)
if ip link set "$interface" up; then say network up; else say network "not up"; fi
read line
"#;

/// Script: runs the guest, and reads from the device's registers where its rings are until the guest waits (Intel's
/// manual of the 8254x: RDBAL, TDBAL). A device that does not decode its BAR answers with ones.
const RUN: &str = r#"
bar=$(head -n 1 /sys/bus/pci/devices/$TESTBED_BDF_1/resource | cut -d' ' -f1)
rings=
look() {
    for register in 0x2800 0x3800; do
        ring=$(dd if=/dev/mem bs=4 skip=$(((bar + register) / 4)) count=1 status=none | od -An -tx4 | tr -d ' ')
        case $ring in 00000000 | ffffffff | '') ;; *) rings="$rings $ring" ;; esac
    done
}
mkfifo /tmp/keys
trap '' PIPE
timeout -k 5 120 pinvisor -v run $e1000 --kernel /testbed/old --initramfs /testbed/initramfs --cpus 2 \
    --cmdline 'console=ttyS0 quiet reservelow=64K -- init' < /tmp/keys > /tmp/output 2>&1 &
exec 3> /tmp/keys
until grep -q 'guest: network=' /tmp/output || ! kill -0 $! 2> /tmp/gone; do look; sleep 0.2; done
look
echo >&3
wait $!
say status $?
cat /tmp/output
say rings "$(echo $rings | tr ' ' '\n' | sort -u | tr '\n' ' ')"
"#;

/// Low memory in a plan's JSON.
macro_rules! low_memory {
    ($kind:literal) => {
        concat!(
            "\"start\": 0,\n      \"end\": 655360,\n      \"kind\": \"",
            $kind,
            "\""
        )
    };
}

/// The second device is an e1000, and bound; `$e1000` are the options that a guest with it has.
pub const STEPS: &[Step] = &[
    Step {
        name: "low-old-bzimage",
        command: "pinvisor -v plan --json $e1000 --kernel /testbed/old-bzimage",
        says: &[
            "the kernel is Linux 5.10, older than 5.13: reservelow=640K",
            low_memory!("ram"),
        ],
        ..STEP
    },
    Step {
        name: "low-new-bzimage",
        command: "pinvisor -v plan --json $e1000 --kernel /testbed/kernel",
        says: &[
            "the kernel is Linux 6.1, which does not give it to drivers",
            low_memory!("ram"),
        ],
        ..STEP
    },
    Step {
        name: "low-unknown",
        command: "pinvisor -v plan --json $e1000 --kernel /testbed/off",
        says: &[
            "not known to be Linux",
            "--low-memory ram",
            low_memory!("reserved"),
        ],
        ..STEP
    },
    Step {
        name: "low-unknown-ram",
        command: "pinvisor -v plan --json $e1000 --kernel /testbed/off --low-memory ram",
        says: &["RAM, as requested", low_memory!("ram")],
        ..STEP
    },
    Step {
        name: "low-reserved",
        command: "pinvisor -v plan --json $e1000 --kernel /testbed/old --low-memory reserved",
        says: &["reserved, as requested", low_memory!("reserved")],
        ..STEP
    },
    Step {
        name: "low-conventional",
        command: "pinvisor plan --json $e1000,dma=translate --kernel /testbed/off",
        says: &["\"conventional\"", low_memory!("ram")],
        ..STEP
    },
    Step {
        name: "low-image",
        command: "pinvisor run $e1000 --kernel /testbed/low",
        status: "4",
        error: "place",
        says: &["it is linked in the first MiB", "link the kernel above"],
        ..STEP
    },
];

/// Debian 11's kernel on two CPUs with a device of 32 bits, whose only memory in reach is the first
/// MiB: the driver gets none of it. Then the reports for other kernels.
pub fn old_guest() -> Result<CaseResult> {
    let kernel = setup::old_guest_kernel()?;
    let rig = Rig::with_initramfs(14, |path| {
        guest::write_initramfs_of(&kernel, path, &["e1000"], GUEST)
    })?;
    let low = rig.disk().with_file_name("low");
    write_low_image(&low)?;
    let machine = refusal::machine(&rig)?
        .qemu_arg("-netdev")
        .qemu_arg("user,id=net")
        .device("e1000,netdev=net")
        .file("old", kernel.vmlinux())
        .file("old-bzimage", kernel.packaged())
        .file("low", low);
    let steps: String = STEPS.iter().map(Step::script).collect();
    let script = [
        PRELUDE,
        step::PRELUDE,
        "testbed-bind $TESTBED_BDF_1 || exit 1\n",
        "e1000=\"--noiommu --memory 256M --device $TESTBED_BDF_1\"\n",
        &steps,
        RUN,
        "say_hugepages after\nsay_processes\n",
    ]
    .concat();
    let outcome = machine.run(&script)?;
    let mut findings = Findings::default();
    let facts = script::facts(&outcome.output);
    check::left_clean(&mut findings, &outcome, &facts);
    findings.expect_eq("status", facts.get("status").copied(), Some("0"));
    let rings = facts.get("rings").copied().map(str::trim);
    findings.expect_eq("rings of the device", rings, Some(""));
    let guest = guest::facts(&outcome.output);
    for (key, wanted) in [
        ("cpus", "0-1"),
        ("network", "not up"),
        (
            "cmdline",
            "console=ttyS0 quiet reservelow=64K reservelow=640K -- init",
        ),
    ] {
        findings.expect_eq(key, guest.get(key).copied(), Some(wanted));
    }
    let flags = guest.get("flags").copied().unwrap_or_default();
    findings.expect_eq("pages that are not reserved", not_reserved(flags), Some(0));
    for step in STEPS {
        step.judge(&mut findings, &outcome);
    }
    Ok(findings.into_result(&outcome))
}

/// Writes an ELF file with a PVH entry point whose segment is linked in the first MiB.
fn write_low_image(path: &Path) -> Result<()> {
    const ADDRESS: u64 = 0x8_0000;
    const NOTE: u64 = 64 + 2 * 56;
    const NOTE_LENGTH: u64 = 20;
    const LENGTH: u64 = 4096;
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // e_type ET_EXEC, e_machine EM_X86_64.
    bytes.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    // e_entry, e_phoff, e_shoff.
    for value in [ADDRESS, 64, 0] {
        bytes.extend(value.to_le_bytes());
    }
    bytes.extend([0; 4]);
    for value in [64_u16, 56, 2, 64, 0, 0] {
        bytes.extend(value.to_le_bytes());
    }
    // PT_LOAD of all of the file, PT_NOTE.
    for (kind, offset, length) in [(1_u32, 0, LENGTH), (4, NOTE, NOTE_LENGTH)] {
        bytes.extend(kind.to_le_bytes());
        bytes.extend(5_u32.to_le_bytes());
        let address = ADDRESS + offset;
        for value in [offset, address, address, length, length, 4] {
            bytes.extend(value.to_le_bytes());
        }
    }
    // XEN_ELFNOTE_PHYS32_ENTRY.
    for value in [4, 4, 18_u32] {
        bytes.extend(value.to_le_bytes());
    }
    bytes.extend(b"Xen\0");
    bytes.extend(u32::try_from(ADDRESS).unwrap_or_default().to_le_bytes());
    bytes.resize(usize::try_from(LENGTH).unwrap_or_default(), 0);
    std::fs::write(path, bytes).at("write", path)
}
