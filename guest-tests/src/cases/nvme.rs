//! A stock kernel drives an NVMe disk.

use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use super::check::{self, Findings};
use super::script::{self, PRELUDE};
use crate::machine::Machine;
use crate::order::{self, Verdict};
use crate::runner::CaseResult;
use crate::{guest, image, setup};

/// The disk: 64 MiB, of which the guest reads all and overwrites half.
const DISK_MIB: usize = 64;

/// After this a machine is taken to hang.
const LIMIT: Duration = Duration::from_secs(200);

/// Bytes that the device moves at least: the disk read once, a half read again, a half written.
const LEAST_DMA: u64 = 128 << 20;

/// In the guest: hash the whole disk, write the second half with every byte one higher over the first,
/// and tell about memory.
const GUEST: &str = r#"
hash() { sha256sum | cut -d' ' -f1; }
say() { echo "guest: $1=$2"; }
say disk "$(dd if=/dev/nvme0n1 bs=1M iflag=direct 2>/dev/null | hash)"
dd if=/dev/nvme0n1 bs=1M skip=32 count=32 iflag=direct 2>/dev/null |
    tr '\000-\376\377' '\001-\377\000' |
    dd of=/dev/nvme0n1 bs=1M count=32 iflag=fullblock oflag=direct conv=notrunc 2>/dev/null
say written $?
say flags "$(dd if=/proc/kpageflags bs=2048 count=1 2>/dev/null | xxd -p -c 4096)"
say interrupts "$(grep -c nvme0q /proc/interrupts)"
say memory "$(sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo)"
sed -n 's/^\([0-9a-f-]*\) : System RAM/guest: ram \1/p' /proc/iomem
"#;

/// Image, initramfs and machine of a case.
pub struct Rig {
    folder: TempDir,
    contents: Vec<u8>,
}

impl Rig {
    /// A disk image from a seed, and an initramfs that runs `guest`.
    pub fn new(seed: u64, guest: &str) -> crate::Result<Self> {
        let folder = tempfile::tempdir().map_err(|source| crate::Error::File {
            action: "create",
            path: "a temporary folder".into(),
            source,
        })?;
        let rig = Self {
            folder,
            contents: image::bytes(DISK_MIB, seed),
        };
        image::write(&rig.disk(), &rig.contents)?;
        guest::write_initramfs(&rig.path("initramfs"), &["nvme"], guest)?;
        Ok(rig)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn disk(&self) -> PathBuf {
        self.path("disk")
    }

    /// A machine with the disk, the kernel as `/testbed/kernel` and the initramfs, and the traces on.
    pub fn machine(&self, kernel: PathBuf) -> Machine {
        Machine::builder()
            .writable_disk("disk", self.disk())
            .device("nvme,drive=disk,serial=testbed")
            .file("kernel", kernel)
            .file("initramfs", self.path("initramfs"))
            .trace("pci_nvme_map_addr")
            .trace("pci_cfg_write")
            .timeout(LIMIT)
    }
}

/// The arguments of `pinvisor run` for the device and files of a [`Rig`].
pub const ARGUMENTS: &str = "--noiommu --device $TESTBED_BDF_0 --kernel /testbed/kernel \
                             --initramfs /testbed/initramfs --cmdline 'console=ttyS0 quiet'";

/// Case 1, and what must hold after every case.
pub fn stock_kernel() -> CaseResult {
    run().map_err(|error| error.to_string())?
}

fn run() -> crate::Result<CaseResult> {
    let rig = Rig::new(1, GUEST)?;
    let machine = rig
        .machine(setup::guest_kernel()?.bzimage())
        .hugepages_2m(300);
    let script = [
        PRELUDE,
        "say bdf $TESTBED_BDF_0\ntestbed-bind $TESTBED_BDF_0 || exit 1\n",
        order::START,
        &script::pinvisor("status", &format!("{ARGUMENTS} --memory 512M")),
        order::SHOW,
        "say_hugepages after\nsay_processes\nsay_disk disk\n",
    ]
    .concat();
    let outcome = machine.run(&script)?;
    let expected = image::after_guest_write(&rig.contents);
    let facts = script::facts(&outcome.output);
    let guest = guest::facts(&outcome.output);
    let mut findings = Findings::default();
    check::left_clean(&mut findings, &outcome, &facts);
    findings.expect_eq("pinvisor's status", facts.get("status"), Some(&"0"));
    findings.expect_eq(
        "disk as the guest read it",
        guest.get("disk"),
        Some(&&*image::sha256(&rig.contents)),
    );
    findings.expect_eq("guest's write", guest.get("written"), Some(&"0"));
    findings.expect_eq(
        "disk afterwards, on the test machine",
        facts.get("disk"),
        Some(&&*image::sha256(&expected)),
    );
    findings.expect_eq(
        "disk afterwards, image",
        image::sha256_of_file(&rig.disk())?,
        image::sha256(&expected),
    );
    findings.expect(
        guest.get("flags").is_some_and(|flags| all_reserved(flags)),
        format!(
            "not every page below 1 MiB is reserved: {:?}",
            guest.get("flags")
        ),
    );
    check::quiet_before_release(&mut findings, &outcome, &[Verdict::QuietFirst]);
    check::device_saw_quiet(&mut findings, &outcome, facts.get("bdf"));
    check::dma_inside(&mut findings, &outcome, LEAST_DMA);
    Ok(findings.into_result(&outcome))
}

/// Whether 256 entries of `/proc/kpageflags`, little-endian in hexadecimal, all have KPF_RESERVED, bit 32
/// (Linux include/uapi/linux/kernel-page-flags.h and fs/proc/page.c).
fn all_reserved(hex: &str) -> bool {
    let entries: Vec<&str> = (0..hex.len() / 16)
        .filter_map(|at| hex.get(at * 16..at * 16 + 16))
        .collect();
    let is_reserved =
        |entry: &&str| u8::from_str_radix(&entry[8..10], 16).is_ok_and(|byte| byte & 1 != 0);
    entries.len() == 256 && entries.iter().all(is_reserved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_page_that_is_not_reserved_is_seen() {
        let reserved = "0000000001000000";
        assert!(all_reserved(&reserved.repeat(256)));
        assert!(!all_reserved(&reserved.repeat(255)));
        assert!(!all_reserved(&(reserved.repeat(255) + "0008000000000000")));
        assert!(!all_reserved(""));
    }
}
