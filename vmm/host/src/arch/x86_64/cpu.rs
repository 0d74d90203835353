// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The CPU: its flags, and whether memory is encrypted.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::__cpuid;
use std::collections::BTreeSet;
#[cfg(target_arch = "x86_64")]
use std::fs::File;
#[cfg(target_arch = "x86_64")]
use std::os::unix::fs::FileExt;

use crate::sys_root::SysRoot;

/// `MSR_AMD64_SEV`, by which an AMD guest detects that its memory is encrypted (AMD64 Architecture
/// Programmer's Manual, volume 2, 15.34.10); bit 0 is set then.
#[cfg(target_arch = "x86_64")]
const MSR_SEV: u64 = 0xc001_0131;

/// The highest extended CPUID leaf is asked for by leaf 0x80000000; encryption is in this one.
#[cfg(target_arch = "x86_64")]
const CPUID_ENCRYPTION: u32 = 0x8000_001f;

/// EAX of that leaf: SEV.
#[cfg(target_arch = "x86_64")]
const CPUID_SEV: u32 = 1 << 1;

/// Encryption by which the address that the kernel reports differs from the one that a device
/// needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// AMD SME: the kernel's own DMA addresses carry a bit (the C-bit) that those it reports about
    /// pinned memory lack.
    Sme,
    /// A guest of AMD SEV: devices cannot reach its memory.
    Sev,
    /// A guest of Intel TDX: devices cannot reach its memory.
    Tdx,
}

/// Why it is unknown whether memory is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncryptionUnknown {
    /// `/proc/cpuinfo` cannot be read, or has no flags.
    Flags,
    /// The CPU may encrypt a virtual machine's memory, and its register cannot be read.
    Register,
}

/// The flags of the first CPU; `None` if `/proc/cpuinfo` has none.
pub(crate) fn flags(root: &SysRoot) -> Option<BTreeSet<String>> {
    let text = root.text("proc/cpuinfo").ok()?;
    let (_, flags) = text
        .lines()
        .find_map(|line| line.strip_prefix("flags")?.split_once(':'))?;
    Some(flags.split_whitespace().map(str::to_owned).collect())
}

/// Whether memory is encrypted in a way that keeps devices without an IOMMU from it.
///
/// # Errors
/// [`EncryptionUnknown`]
#[cfg(target_arch = "x86_64")]
pub fn memory_encryption(root: &SysRoot) -> Result<Option<Encryption>, EncryptionUnknown> {
    // Every CPU has some.
    let flags = flags(root)
        .filter(|flags| !flags.is_empty())
        .ok_or(EncryptionUnknown::Flags)?;
    // Since Linux 6.0 the flag is cleared unless the kernel uses it (arch/x86/kernel/cpu/amd.c
    // early_detect_mem_encrypt).
    if flags.contains("sme") {
        return Ok(Some(Encryption::Sme));
    }
    if flags.contains("tdx_guest") {
        return Ok(Some(Encryption::Tdx));
    }
    // Exists in SEV-SNP guests only (arch/x86/coco/sev/core.c).
    if root.exists("sys/devices/system/cpu/sev/vmpl") {
        return Ok(Some(Encryption::Sev));
    }
    if !flags.contains("hypervisor") || !cpu_may_be_sev() {
        return Ok(None);
    }
    let mut status = [0; 8];
    match File::open(root.path("dev/cpu/0/msr"))
        .and_then(|msr| msr.read_exact_at(&mut status, MSR_SEV))
    {
        Ok(()) => Ok((status[0] & 1 != 0).then_some(Encryption::Sev)),
        Err(_) => Err(EncryptionUnknown::Register),
    }
}

/// Whether memory is encrypted in a way that keeps devices without an IOMMU from it: no CPU of this architecture does
/// that to a machine that has devices of its own.
///
/// # Errors
/// None.
#[cfg(not(target_arch = "x86_64"))]
pub fn memory_encryption(_: &SysRoot) -> Result<Option<Encryption>, EncryptionUnknown> {
    Ok(None)
}

#[cfg(target_arch = "x86_64")]
fn cpu_may_be_sev() -> bool {
    __cpuid(0x8000_0000).eax >= CPUID_ENCRYPTION && __cpuid(CPUID_ENCRYPTION).eax & CPUID_SEV != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys_root::tests::Fake;

    fn with_flags(flags: &str) -> Fake {
        let fake = Fake::new();
        fake.write(
            "proc/cpuinfo",
            &format!("processor\t: 0\nflags\t\t: fpu {flags}\nbugs\t\t:\n"),
        );
        fake
    }

    #[test]
    fn active_encryption_is_refused_and_capability_alone_is_not() {
        let judge = |flags| memory_encryption(&with_flags(flags).root);
        assert_eq!(judge("svm sev sev_es"), Ok(None));
        assert_eq!(judge("svm sme"), Ok(Some(Encryption::Sme)));
        assert_eq!(judge("hypervisor tdx_guest"), Ok(Some(Encryption::Tdx)));
        let snp = with_flags("hypervisor");
        snp.write("sys/devices/system/cpu/sev/vmpl", "0\n");
        assert_eq!(memory_encryption(&snp.root), Ok(Some(Encryption::Sev)));
    }
}
