//! The CPU: virtualisation, and whether memory is encrypted.

use std::arch::x86_64::__cpuid;
use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::checks::id::Id;
use crate::checks::line::Line;
use crate::sys_root::SysRoot;

/// `MSR_AMD64_SEV`, by which an AMD guest knows that its memory is encrypted (AMD64 Architecture
/// Programmer's Manual, volume 2, 15.34.10); bit 0 is set then.
const MSR_SEV: u64 = 0xc001_0131;
/// The highest extended CPUID leaf is asked for by leaf 0x80000000; encryption is in this one.
const CPUID_ENCRYPTION: u32 = 0x8000_001f;
/// EAX of that leaf: SEV.
const CPUID_SEV: u32 = 1 << 1;

/// Encryption by which the address that the kernel tells is not the one that a device needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// AMD SME: the kernel's own DMA addresses carry a bit (the C-bit) that those it tells about
    /// pinned memory lack.
    Sme,
    /// A guest of AMD SEV: devices cannot reach its memory.
    Sev,
    /// A guest of Intel TDX: devices cannot reach its memory.
    Tdx,
}

impl Encryption {
    /// What is on, and what it means, in a sentence.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Sme => {
                "AMD memory encryption (SME) is active: a device that is given the physical \
                 addresses which the kernel tells would read and write ciphertext"
            }
            Self::Sev => {
                "This machine is an AMD SEV guest: its memory is encrypted, and devices cannot \
                 reach it"
            }
            Self::Tdx => {
                "This machine is an Intel TDX guest: its memory is encrypted, and devices cannot \
                 reach it"
            }
        }
    }

    /// What the user can do about it.
    #[must_use]
    pub fn hint(self) -> &'static str {
        match self {
            Self::Sme => "boot this machine's kernel with mem_encrypt=off",
            Self::Sev | Self::Tdx => "run on a machine that is no confidential guest",
        }
    }
}

/// Why it is unknown whether memory is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncryptionUnknown {
    /// `/proc/cpuinfo` cannot be read, or has no flags.
    Flags,
    /// The CPU may encrypt a virtual machine's memory, and its register cannot be read.
    Register,
}

impl fmt::Display for EncryptionUnknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flags => {
                "It is unknown whether memory is encrypted: /proc/cpuinfo has no flags of a CPU"
            }
            Self::Register => {
                "It is unknown whether memory is encrypted: the CPU may encrypt this virtual \
                 machine's memory (SEV), and /dev/cpu/0/msr cannot be read"
            }
        })
    }
}

impl EncryptionUnknown {
    fn hint(self) -> &'static str {
        match self {
            Self::Flags => "ls -l /proc/cpuinfo",
            Self::Register => "modprobe msr && pinvisor check",
        }
    }
}

/// The flags of the first CPU; `None` if `/proc/cpuinfo` has none.
fn flags(root: &SysRoot) -> Option<BTreeSet<String>> {
    let text = root.text("proc/cpuinfo").ok()?;
    let (_, flags) = text
        .lines()
        .find_map(|line| line.strip_prefix("flags")?.split_once(':'))?;
    Some(flags.split_whitespace().map(str::to_owned).collect())
}

/// [`Id::CpuVirtualisation`]
pub(crate) fn check_virtualisation(root: &SysRoot) -> Line {
    let id = Id::CpuVirtualisation;
    let flags = flags(root).unwrap_or_default();
    if let Some(flag) = ["svm", "vmx"]
        .into_iter()
        .find(|flag| flags.contains(*flag))
    {
        return Line::ok(id, format!("The CPU offers virtualisation ({flag})"));
    }
    if root.exists("dev/kvm") {
        return Line::warn(
            id,
            "The CPU offers no virtualisation (neither svm nor vmx); KVM is there all the same, \
             so guests run, but stock kernels may be too slow to boot",
            "cargo demo",
        );
    }
    let hint = if flags.contains("hypervisor") {
        "switch nested virtualisation on in this machine's hypervisor (QEMU: -cpu host)"
    } else {
        "switch virtualisation (VT-x, AMD-V, SVM) on in the firmware: systemctl reboot \
         --firmware-setup"
    };
    Line::fail(
        id,
        "The CPU offers no virtualisation (neither svm nor vmx in /proc/cpuinfo)",
        hint,
    )
}

/// Whether memory is encrypted in a way that keeps devices without an IOMMU from it.
///
/// # Errors
/// [`EncryptionUnknown`]
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

fn cpu_may_be_sev() -> bool {
    __cpuid(0x8000_0000).eax >= CPUID_ENCRYPTION && __cpuid(CPUID_ENCRYPTION).eax & CPUID_SEV != 0
}

/// [`Id::MemoryEncryption`]
pub(crate) fn check_encryption(root: &SysRoot, noiommu: bool) -> Line {
    let id = Id::MemoryEncryption;
    match memory_encryption(root) {
        Ok(None) => Line::ok(id, "Memory is not encrypted by address"),
        Ok(Some(Encryption::Sme)) if !noiommu => {
            Line::ok(id, "AMD memory encryption is active; the IOMMU knows of it")
        }
        Ok(Some(encryption)) => Line::fail(id, encryption.meaning(), encryption.hint()),
        Err(unknown) => Line::warn(id, unknown.to_string(), unknown.hint()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::line::Verdict;
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
    fn virtualisation_is_a_flag_or_kvm_does_without() {
        assert_eq!(
            check_virtualisation(&with_flags("svm").root).verdict,
            Verdict::Ok
        );
        assert_eq!(
            check_virtualisation(&with_flags("vmx").root).verdict,
            Verdict::Ok
        );
        let none = with_flags("vmx_other");
        let line = check_virtualisation(&none.root);
        assert_eq!(line.verdict, Verdict::Fail);
        assert!(line.hint.unwrap().contains("firmware"));
        none.write("dev/kvm", "");
        assert_eq!(check_virtualisation(&none.root).verdict, Verdict::Warn);
        let line = check_virtualisation(&with_flags("hypervisor").root);
        assert!(line.hint.unwrap().contains("nested"));
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

    #[test]
    fn what_cannot_be_read_is_unknown() {
        let judge = |fake: &Fake| check_encryption(&fake.root, true).verdict;
        let fake = Fake::new();
        assert_eq!(judge(&fake), Verdict::Warn);
        for text in ["", "processor\t: 0\n", "flags\t\t:\n"] {
            fake.write("proc/cpuinfo", text);
            let unknown = Err(EncryptionUnknown::Flags);
            assert_eq!(memory_encryption(&fake.root), unknown, "{text:?}");
            assert_eq!(judge(&fake), Verdict::Warn, "{text:?}");
        }
        assert_eq!(judge(&with_flags("svm sev")), Verdict::Ok);
    }

    #[test]
    fn an_iommu_knows_of_sme() {
        let fake = with_flags("sme");
        assert_eq!(check_encryption(&fake.root, true).verdict, Verdict::Fail);
        assert_eq!(check_encryption(&fake.root, false).verdict, Verdict::Ok);
    }

    proptest::proptest! {
        // A tree of files is made for each.
        #![proptest_config(proptest::test_runner::Config::with_cases(32))]

        #[test]
        fn no_text_makes_it_panic(text in "\\PC*") {
            let fake = Fake::new();
            fake.write("proc/cpuinfo", &text);
            check_virtualisation(&fake.root);
            let _ = memory_encryption(&fake.root);
        }
    }
}
