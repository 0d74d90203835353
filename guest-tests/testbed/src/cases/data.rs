// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A stock kernel reads and rewrites a whole NVMe disk, on memory of several shapes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::check::{self, Findings};
use super::rig::{ARGUMENTS, Rig};
use super::script::{self, PRELUDE};
use crate::error::Result;
use crate::machine::{Machine, Outcome};
use crate::order::{self, Verdict};
use crate::runner::CaseResult;
use crate::setup::{self, Arch, Flavour, GuestKernel};
use crate::trace::Extent;
use crate::{guest, image, trace};

/// Bytes that the device moves at least: the disk read once, half of it read again, half of it written.
pub const MIN_DMA: u64 = 128 << 20;

/// In the guest: hash the whole disk, write the second half with every byte one higher over the
/// first, use all memory, and report it.
pub const GUEST: &str = r#"
hash() { sha256sum | cut -d' ' -f1; }
say() { echo "guest: $1=$2"; }
say disk "$(dd if=/dev/nvme0n1 bs=1M iflag=direct 2>/dev/null | hash)"
dd if=/dev/nvme0n1 bs=1M skip=32 count=32 iflag=direct 2>/dev/null |
    tr '\000-\376\377' '\001-\377\000' |
    dd of=/dev/nvme0n1 bs=1M count=32 iflag=fullblock oflag=direct conv=notrunc 2>/dev/null
say written $?
say flags "$(dd if=/proc/kpageflags bs=2048 count=1 2>/dev/null | xxd -p -c 4096)"
say present "$(dmesg | sed -n 's|.*Memory: [0-9]*K/\([0-9]*\)K available.*|\1|p')"
say memory "$(sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo)"
echo guest: ram=$(sed -n 's/^\([0-9a-f-]*\) : System RAM/\1/p' /proc/iomem)
"#;

/// What differs between the cases.
#[derive(Debug)]
pub struct Variant {
    /// Seed of the disk.
    pub seed: u64,
    /// The file of the guest's kernel.
    pub kernel: fn(&GuestKernel) -> PathBuf,
    /// The machine's memory and kernel.
    pub machine: fn(Machine) -> Machine,
    /// Command before `pinvisor`, with a blank behind it.
    pub wrapper: &'static str,
    /// `--memory` of the guest.
    pub memory: &'static str,
    /// Other options.
    pub options: &'static str,
    /// The guest's memory in MiB.
    pub mib: u64,
    /// Script lines before the run.
    pub before: &'static str,
    /// What must hold of the addresses of its extents.
    pub addresses: fn(&mut Findings, &[Extent]),
}

/// 512 MiB of 2 MiB hugepages.
pub const PLAIN: Variant = Variant {
    seed: 1,
    kernel: GuestKernel::unpacked,
    machine: |machine| machine.hugepages_2m(300),
    wrapper: "",
    memory: "512M",
    options: "",
    mib: 512,
    before: "",
    addresses: are_identity,
};

/// 512 MiB of 2 MiB hugepages, and the kernel as Debian ships it.
pub fn stock_kernel(arch: Arch) -> Result<CaseResult> {
    let variant = Variant {
        kernel: GuestKernel::packaged,
        ..PLAIN
    };
    let (outcome, findings) = run(arch, &variant)?;
    Ok(findings.into_result(&outcome))
}

/// A machine whose kernel has no VFIO groups.
pub fn no_groups() -> Result<CaseResult> {
    let machine = |machine: Machine| machine.hugepages_2m(300).flavour(Flavour::NoGroups);
    let variant = Variant {
        seed: 2,
        machine,
        ..PLAIN
    };
    let (outcome, findings) = run(Arch::X86_64, &variant)?;
    Ok(findings.into_result(&outcome))
}

/// Two hugepages of 1 GiB above 4 GiB; a size that is not a multiple of it is refused.
pub fn giant_pages(arch: Arch) -> Result<CaseResult> {
    let variant = Variant {
        seed: 3,
        machine: |machine| machine.memory("6G").hugepages_1g(2),
        memory: "2G,hugepage_size=1G",
        mib: 2048,
        before: "pinvisor run --noiommu --device $TESTBED_BDF_0 --kernel /testbed/kernel \
                 --memory 1536M,hugepage_size=1G; say refused $?\n",
        ..PLAIN
    };
    let (outcome, mut findings) = run(arch, &variant)?;
    let extents = trace::extents(&outcome.output);
    let is_high = |extent: &Extent| extent.hpa.start >= 4 << 30;
    findings.expect(
        extents.iter().all(is_high),
        format!("not above 4 GiB: {extents:x?}"),
    );
    let facts = script::facts(&outcome.output);
    findings.expect(
        facts.get("refused").is_some_and(|status| *status != "0"),
        "1536 MiB of 1 GiB pages were not refused",
    );
    Ok(findings.into_result(&outcome))
}

/// At least 140 extents in no order, and one of 128 MiB for the kernel. No spare pages are taken, and more pieces
/// than are safe accepted: what scatter does is to be seen, not how it is avoided.
pub fn shaped_hugepages(arch: Arch) -> Result<CaseResult> {
    let variant = Variant {
        seed: 4,
        machine: |machine| machine.hugepages_2m(460),
        wrapper: "testbed inside shape --singles 150 --block 64 -- ",
        memory: "420M,spare=0,pieces=any",
        mib: 420,
        ..PLAIN
    };
    let (outcome, mut findings) = run(arch, &variant)?;
    let extents = trace::extents(&outcome.output);
    findings.expect(
        extents.len() >= 140,
        format!("only {} extents", extents.len()),
    );
    let largest = extents
        .iter()
        .map(|extent| extent.hpa.end - extent.hpa.start)
        .max();
    findings.expect(
        largest >= Some(128 << 20),
        format!("largest extent: {largest:x?}"),
    );
    Ok(findings.into_result(&outcome))
}

/// Runs a variant and judges what all of them have in common.
pub fn run(arch: Arch, variant: &Variant) -> Result<(Outcome, Findings)> {
    let rig = Rig::on(arch, variant.seed, &["nvme"], GUEST)?;
    let machine = (variant.machine)(rig.machine((variant.kernel)(&setup::guest_kernel_of(arch)?)));
    let script = [
        PRELUDE,
        "say bdf $TESTBED_BDF_0\ntestbed-bind $TESTBED_BDF_0 || exit 1\n",
        variant.before,
        order::START,
        &script::pinvisor(
            "status",
            variant.wrapper,
            &format!(
                "{ARGUMENTS} --memory {} {}",
                variant.memory, variant.options
            ),
        ),
        order::SHOW,
        "say_hugepages after\nsay_processes\nsay_disk disk\n",
    ]
    .concat();
    let outcome = machine.run(&script)?;
    let mut findings = Findings::default();
    let facts = script::facts(&outcome.output);
    findings.expect_eq("pinvisor's status", facts.get("status"), Some(&"0"));
    data_is_right(&mut findings, &outcome, &rig)?;
    memory_is_there(&mut findings, arch, &outcome, variant.mib);
    (variant.addresses)(&mut findings, &trace::extents(&outcome.output));
    check::left_clean(&mut findings, &outcome, &facts);
    check::quiet_before_release(&mut findings, &outcome, &[Verdict::QuietFirst]);
    check::device_saw_quiet(&mut findings, &outcome, facts.get("bdf"));
    check::dma_inside(&mut findings, &outcome, MIN_DMA);
    Ok((outcome, findings))
}

/// The guest read what is on the disk, and the disk holds what the guest wrote.
pub(super) fn data_is_right(findings: &mut Findings, outcome: &Outcome, rig: &Rig) -> Result<()> {
    let facts = script::facts(&outcome.output);
    let guest = guest::facts(&outcome.output);
    let before = image::sha256(&rig.contents);
    let after = image::sha256(&image::after_guest_write(&rig.contents));
    findings.expect_eq("guest's write", guest.get("written"), Some(&"0"));
    for (what, found, wanted) in [
        (
            "disk as the guest read it",
            guest.get("disk").copied(),
            &before,
        ),
        (
            "disk afterwards, by the machine's own driver",
            facts.get("disk").copied(),
            &after,
        ),
        (
            "disk afterwards, the image",
            Some(image::sha256_of_file(&rig.disk())?).as_deref(),
            &after,
        ),
    ] {
        findings.expect_eq(what, found, Some(wanted.as_str()));
    }
    Ok(())
}

/// The guest's memory is at its physical addresses, all of it, and nothing below 1 MiB is given to drivers.
pub(super) fn memory_is_right(findings: &mut Findings, arch: Arch, outcome: &Outcome, mib: u64) {
    memory_is_there(findings, arch, outcome, mib);
    are_identity(findings, &trace::extents(&outcome.output));
}

fn are_identity(findings: &mut Findings, extents: &[Extent]) {
    findings.expect(
        extents.iter().all(|extent| extent.gpa == extent.hpa),
        "an extent is not identity",
    );
}

/// The guest's memory is where `pinvisor` reports the extents, all of it, and nothing below 1 MiB
/// is given to drivers.
fn memory_is_there(findings: &mut Findings, arch: Arch, outcome: &Outcome, mib: u64) {
    let extents = trace::extents(&outcome.output);
    let guest: BTreeMap<&str, &str> = guest::facts(&outcome.output);
    let total: u64 = extents
        .iter()
        .map(|extent| extent.hpa.end - extent.hpa.start)
        .sum();
    findings.expect_eq("bytes in extents", total, mib << 20);
    let seen = ram_ranges(guest.get("ram").copied().unwrap_or_default());
    let missing: Vec<_> = extents
        .iter()
        .filter(|extent| {
            !seen
                .iter()
                .any(|ram| ram.start <= extent.gpa.start && extent.gpa.end <= ram.end)
        })
        .collect();
    findings.expect(
        missing.is_empty(),
        format!("/proc/iomem in the guest lacks {missing:x?}"),
    );
    has_all_memory(findings, &guest, mib);
    // Another architecture has no such memory.
    if arch != Arch::X86_64 {
        return;
    }
    let most = if extents.len() <= KEPT_REGIONS {
        0
    } else {
        LIST_PAGES
    };
    let flags = guest.get("flags").copied().unwrap_or_default();
    findings.expect(
        not_reserved(flags).is_some_and(|pages| pages <= most),
        format!("pages below 1 MiB that are not reserved (at most {most} expected): {flags:?}"),
    );
}

/// The guest's kernel knows of all `mib` MiB, and of no more than a PC's first MiB besides; it gives most of it to
/// programs, and has the rest itself.
fn has_all_memory(findings: &mut Findings, guest: &BTreeMap<&str, &str>, mib: u64) {
    let kib = |key: &str| guest.get(key).and_then(|text| text.parse::<u64>().ok());
    let (present, total) = (kib("present"), kib("memory"));
    let given = mib << 10;
    findings.expect(
        present.is_some_and(|present| (given..=given + 1024).contains(&present)),
        format!("the guest's kernel knows of {present:?} KiB, of {given} KiB given"),
    );
    findings.expect(
        total.is_some_and(|total| (given * 3 / 5..=given).contains(&total)),
        format!("the guest's MemTotal is {total:?} KiB, of {given} KiB given"),
    );
}

/// `/proc/iomem`'s ranges, `START-LAST` in hexadecimal.
fn ram_ranges(text: &str) -> Vec<std::ops::Range<u64>> {
    let number = |digits: &str| u64::from_str_radix(digits, 16).ok();
    let range = |word: &str| {
        let (start, last) = word.split_once('-')?;
        Some(number(start)?..number(last)?.checked_add(1)?)
    };
    text.split_whitespace().filter_map(range).collect()
}

/// Pieces of memory that a guest's memblock holds in a list of fixed length, low memory besides
/// (Linux mm/memblock.c, INIT_MEMBLOCK_MEMORY_REGIONS).
const KEPT_REGIONS: usize = 127;
/// With more, the list moves to pages below 1 MiB, which may be free once it is not needed any more.
const LIST_PAGES: usize = 2;

/// How many of the 256 entries of `/proc/kpageflags`, little-endian in hexadecimal, lack KPF_RESERVED, bit 32
/// (Linux fs/proc/page.c); `None` if they are not 256.
pub fn not_reserved(hex: &str) -> Option<usize> {
    let entries: Vec<&str> = (0..hex.len() / 16)
        .filter_map(|at| hex.get(at * 16..at * 16 + 16))
        .collect();
    let is_reserved =
        |entry: &&&str| u8::from_str_radix(&entry[8..10], 16).is_ok_and(|byte| byte & 1 != 0);
    let reserved = entries.iter().filter(is_reserved).count();
    (entries.len() == 256).then(|| 256 - reserved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_page_that_is_not_reserved_is_seen() {
        let reserved = "0000000001000000";
        assert_eq!(not_reserved(&reserved.repeat(256)), Some(0));
        assert_eq!(not_reserved(&reserved.repeat(255)), None);
        let one = reserved.repeat(255) + "0008000000000000";
        assert_eq!(not_reserved(&one), Some(1));
        assert_eq!(not_reserved(""), None);
    }

    #[test]
    fn ranges_of_iomem_end_behind_their_last_byte() {
        assert_eq!(
            ram_ranges("00001000-0009ffff 100000000-1001fffff x"),
            [0x1000..0xa0000, 1 << 32..0x1_0020_0000]
        );
    }

    fn outcome(output: &str) -> Outcome {
        Outcome {
            status: crate::machine::Status::Exited(0),
            output: output.into(),
            console: String::new(),
            trace: String::new(),
        }
    }

    #[test]
    fn memory_that_the_guests_kernel_lost_is_found() {
        let verdict = |present: &str, memory: &str| {
            let mut findings = Findings::default();
            let guest = BTreeMap::from([("present", present), ("memory", memory)]);
            has_all_memory(&mut findings, &guest, 100);
            findings.into_result(&outcome("")).is_ok()
        };
        assert!(verdict("102400", "81920"));
        assert!(verdict("103420", "81920"));
        assert!(!verdict("100352", "81920"), "2 MiB are lost");
        assert!(!verdict("102400", "40960"));
        assert!(!verdict("", ""));
    }

    #[test]
    fn memory_that_the_guest_does_not_see_is_found() {
        let flags = "0000000001000000".repeat(256);
        let text = |ram: &str, hpa: &str| {
            format!(
                "extent gpa=0x200000 hpa={hpa} len=0x200000\nguest: flags={flags}\nguest: ram={ram}\n\
                 guest: present=2048\nguest: memory=1500\n"
            )
        };
        let verdict = |ram: &str, hpa: &str| {
            let outcome = outcome(&text(ram, hpa));
            let mut findings = Findings::default();
            memory_is_right(&mut findings, Arch::X86_64, &outcome, 2);
            findings.into_result(&outcome).is_ok()
        };
        assert!(verdict("00200000-003fffff", "0x200000"));
        assert!(!verdict("00200000-003ffffe", "0x200000"));
        assert!(!verdict("", "0x200000"));
        assert!(!verdict("00200000-003fffff", "0x400000"));
    }
}
