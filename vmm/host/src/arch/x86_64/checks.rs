// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Checks the CPU: virtualisation, and whether memory is encrypted.

use std::fmt;

use crate::checks::id::Id;
use crate::checks::line::Line;
use crate::sys_root::SysRoot;

use super::cpu::{Encryption, EncryptionUnknown, flags, memory_encryption};

impl Encryption {
    /// What is on, and what it means, in a sentence.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Sme => {
                "AMD memory encryption (SME) is active on the host: a device that uses plain \
                 physical addresses, without the encryption bit, reads and writes ciphertext"
            }
            Self::Sev => {
                "This host is itself an AMD SEV guest: its memory is encrypted, and devices cannot \
                 reach it"
            }
            Self::Tdx => {
                "This host is itself an Intel TDX guest: its memory is encrypted, and devices cannot \
                 reach it"
            }
        }
    }

    /// What the user can do about it.
    #[must_use]
    pub fn hint(self) -> &'static str {
        match self {
            Self::Sme => {
                "boot the host with mem_encrypt=off on its kernel's command line, or disable SME in its firmware"
            }
            Self::Sev | Self::Tdx => "run Pinvisor on a host that is not a confidential guest",
        }
    }
}

impl fmt::Display for EncryptionUnknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flags => {
                "Cannot determine whether memory is encrypted: /proc/cpuinfo lists no CPU flags"
            }
            Self::Register => {
                "Cannot determine whether memory is encrypted: the CPU may encrypt this virtual \
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

/// [`Id::CpuVirtualisation`]
pub(crate) fn check_virtualisation(root: &SysRoot) -> Line {
    let id = Id::CpuVirtualisation;
    let flags = flags(root).unwrap_or_default();
    if let Some(flag) = ["svm", "vmx"]
        .into_iter()
        .find(|flag| flags.contains(*flag))
    {
        return Line::ok(id, format!("The CPU supports virtualisation ({flag})"));
    }
    if root.exists("dev/kvm") {
        return Line::warn(
            id,
            "The CPU does not support virtualisation (neither svm nor vmx); KVM is available \
             nevertheless, so guests run, but stock kernels may be too slow to boot",
            "cargo demo",
        );
    }
    let hint = if flags.contains("hypervisor") {
        "enable nested virtualisation in the hypervisor of this host (QEMU: -cpu host)"
    } else {
        "enable virtualisation (VT-x, AMD-V, SVM) in the host's firmware: systemctl reboot \
         --firmware-setup"
    };
    Line::fail(
        id,
        "The CPU does not support virtualisation (neither svm nor vmx in /proc/cpuinfo)",
        hint,
    )
}

/// [`Id::MemoryEncryption`]
pub(crate) fn check_encryption(root: &SysRoot, noiommu: bool) -> Line {
    let id = Id::MemoryEncryption;
    match memory_encryption(root) {
        Ok(None) => Line::ok(id, "Host memory is not encrypted by address"),
        Ok(Some(Encryption::Sme)) if !noiommu => {
            Line::ok(id, "AMD memory encryption is active; the IOMMU handles it")
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
    fn an_iommu_handles_sme() {
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
