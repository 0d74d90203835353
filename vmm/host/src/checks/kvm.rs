// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Checks KVM.

use std::fmt;
use std::io;

use iommufd_backend::host_page_size;
use kvm_bindings::KVM_API_VERSION;

use crate::arch::{KVM_MODULES, KVM_OPTIONS};
use crate::checks::id::Id;
use crate::checks::line::Line;
use crate::checks::units::size;
use crate::facts::kvm::{KvmObstacle, kvm_suffices, open};
use crate::sys_root::SysRoot;

impl fmt::Display for KvmObstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ApiVersion(version) => {
                write!(f, "KVM's API is version {version}, not {KVM_API_VERSION}")
            }
            Self::Lacks(cap) => write!(f, "KVM lacks the capability {cap:?}"),
            Self::NoGic => f.write_str(
                "guests require a GICv3 with an ITS, or a GICv2, of which KVM emulates the kind that the host has; this \
                 host has neither",
            ),
        }
    }
}

impl KvmObstacle {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(self) -> String {
        match self {
            Self::ApiVersion(_) | Self::Lacks(_) => format!(
                "boot Linux 7.3 or later on the host, with CONFIG_{}",
                KVM_OPTIONS.join(" or CONFIG_")
            ),
            Self::NoGic => {
                "dmesg | grep GIC  # use a host with a GICv2 or GICv3 that has virtualisation"
                    .to_owned()
            }
        }
    }
}

/// [`Id::Kvm`]
pub(crate) fn check(root: &SysRoot) -> Line {
    match open(root) {
        Ok(kvm) => line(kvm_suffices(&kvm), host_page_size()),
        Err(error) => unopened(&error),
    }
}

/// The line for KVM that gave this `answer`, on a host whose pages have `page` bytes.
fn line(answer: Result<(), KvmObstacle>, page: u64) -> Line {
    const USUAL: u64 = 4096;
    let id = Id::Kvm;
    match answer {
        Ok(()) => {
            let enough = "/dev/kvm can be opened, and KVM has all capabilities that a guest needs";
            match page {
                USUAL => Line::ok(id, enough),
                _ => Line::ok(
                    id,
                    format!(
                        "{enough}; the host kernel's pages have {}, so that only dma=identity and dma=iommu work",
                        size(page)
                    ),
                ),
            }
        }
        Err(obstacle) => Line::fail(
            id,
            format!("/dev/kvm can be opened, but {obstacle}"),
            obstacle.hint(),
        ),
    }
}

fn unopened(error: &io::Error) -> Line {
    let id = Id::Kvm;
    match error.kind() {
        io::ErrorKind::NotFound => Line::fail(
            id,
            "/dev/kvm does not exist: virtualisation is disabled in the host's firmware, or the \
             host kernel lacks KVM, or its module is not loaded",
            format!("modprobe -a {KVM_MODULES}; dmesg | grep -i kvm"),
        ),
        io::ErrorKind::PermissionDenied => Line::fail(
            id,
            "Cannot open /dev/kvm: permission denied",
            "usermod -aG kvm $USER  # and log in again, or run as root",
        ),
        _ => Line::fail(
            id,
            format!("Cannot open /dev/kvm: {error}"),
            "ls -l /dev/kvm",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::NEEDED_OF_KVM;
    use crate::checks::line::Verdict;
    use crate::facts::kvm::suffices;
    use crate::sys_root::tests::Fake;

    #[test]
    fn what_does_not_open_is_reported_by_cause() {
        let fake = Fake::new();
        assert!(check(&fake.root).text.contains("/dev/kvm does not exist"));
        fake.directory("dev/kvm");
        assert!(check(&fake.root).text.contains("Cannot open"));
        let denied = unopened(&io::ErrorKind::PermissionDenied.into());
        assert!(denied.hint.unwrap().starts_with("usermod"));
    }

    #[test]
    fn a_node_that_is_not_kvms_is_refused() {
        let fake = Fake::new();
        fake.write("dev/kvm", "");
        let line = check(&fake.root);
        assert_eq!(line.verdict, Verdict::Fail);
        assert!(line.text.contains("version -1"), "{}", line.text);
    }

    #[test]
    fn every_needed_capability_is_asked_for() {
        let version = KVM_API_VERSION.cast_signed();
        assert_eq!(suffices(version, |_| true), Ok(()));
        assert_eq!(line(Ok(()), 4096).verdict, Verdict::Ok);
        for &cap in NEEDED_OF_KVM {
            let answer = suffices(version, |asked| asked != cap);
            assert_eq!(answer, Err(KvmObstacle::Lacks(cap)));
            let line = line(answer, 4096);
            assert_eq!(line.verdict, Verdict::Fail);
            assert!(line.text.contains(&format!("{cap:?}")), "{}", line.text);
        }
        let old = suffices(11, |_| true);
        assert_eq!(old, Err(KvmObstacle::ApiVersion(11)));
    }

    #[test]
    fn larger_pages_are_told() {
        assert!(!line(Ok(()), 4096).text.contains("pages"));
        let large = line(Ok(()), 0x4000);
        assert_eq!(large.verdict, Verdict::Ok);
        assert!(large.text.contains("pages have 16 KiB"), "{}", large.text);
    }

    #[test]
    fn a_host_that_no_guest_runs_on_is_told_why() {
        let judge = |obstacle| {
            let line = line(Err(obstacle), 4096);
            assert_eq!(line.verdict, Verdict::Fail);
            [line.text, line.hint.unwrap()].join("\n")
        };
        let none = judge(KvmObstacle::NoGic);
        assert!(none.contains("GICv3 with an ITS, or a GICv2"), "{none}");
    }
}
