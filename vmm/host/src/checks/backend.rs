// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Checks the kernel's interface for devices that no IOMMU translates.

use iommufd_backend::container_node;

use crate::checks::id::Id;
use crate::checks::line::Line;
use crate::facts::backend::{Backend, BackendDecision, BackendReason, Route, io_uring_disabled};
use crate::facts::privilege::{Privilege, SYS_ADMIN};
use crate::sys_root::SysRoot;

/// [`Id::Backend`]
pub(crate) fn check(root: &SysRoot, decision: &BackendDecision, route: Route) -> Line {
    let id = Id::Backend;
    if route.is_group() && !container_node(root.pci()).exists() {
        return Line::fail(
            id,
            format!(
                "{}. But /dev/vfio/vfio does not exist: the host kernel has no VFIO containers \
                 (CONFIG_VFIO_CONTAINER or CONFIG_IOMMUFD_VFIO_CONTAINER), or its module is not loaded",
                sentence(decision)
            ),
            "modprobe vfio",
        );
    }
    Line::ok(id, sentence(decision))
}

/// Which interface a run uses, and why.
#[must_use]
pub fn sentence(decision: &BackendDecision) -> String {
    let nodes = match decision.backend {
        Backend::Cdev => "cdev (/dev/vfio/devices and /dev/iommu)",
        Backend::Group => "group (/dev/vfio/noiommu-… and io_uring)",
    };
    let why = match &decision.reason {
        BackendReason::Requested => "as requested by --backend".to_owned(),
        BackendReason::Iommu => "an IOMMU translates".to_owned(),
        BackendReason::AllHaveCdev => {
            "all devices without an IOMMU have a character device".to_owned()
        }
        BackendReason::OnlyGroup(bdf) => {
            format!("{bdf} has a group and no character device")
        }
        BackendReason::BuiltWithoutCdev => {
            "the host kernel was built without CONFIG_VFIO_DEVICE_CDEV".to_owned()
        }
        BackendReason::Release(release) => match decision.backend {
            Backend::Cdev => format!("the host runs Linux {release}"),
            Backend::Group => {
                format!("the host runs Linux {release}, and the other one requires 7.3")
            }
        },
    };
    format!("Backend {nodes}: {why}")
}

/// [`Id::IoUring`]
pub(crate) fn check_io_uring(root: &SysRoot, route: Route) -> Line {
    const SWITCH: &str = "sysctl kernel.io_uring_disabled=0";
    let id = Id::IoUring;
    if !route.is_group() {
        return Line::ok(id, "Not needed: /dev/iommu pins memory");
    }
    match io_uring_disabled(root) {
        Some(2) => Line::fail(
            id,
            "io_uring, by which guest memory is pinned, is switched off (kernel.io_uring_disabled is 2)",
            SWITCH,
        ),
        Some(1) if !Privilege::of_caller(root).has(SYS_ADMIN) => Line::fail(
            id,
            "io_uring, by which guest memory is pinned, is for callers with CAP_SYS_ADMIN only \
             (kernel.io_uring_disabled is 1)",
            SWITCH,
        ),
        _ => Line::ok(id, "io_uring, by which guest memory is pinned, is on"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::line::Verdict;
    use crate::sys_root::tests::Fake;

    const GROUP: Route = Route::Noiommu(Backend::Group);

    fn decision(backend: Backend, reason: BackendReason) -> BackendDecision {
        BackendDecision { backend, reason }
    }

    #[test]
    fn the_line_names_the_interface_and_why() {
        let fake = Fake::new();
        let old = decision(Backend::Group, BackendReason::Release("6.12.57".into()));
        let missing = check(&fake.root, &old, GROUP);
        assert_eq!(missing.verdict, Verdict::Fail);
        assert!(missing.text.contains("/dev/vfio/vfio does not exist"));
        fake.write("dev/vfio/vfio", "");
        let line = check(&fake.root, &old, GROUP);
        assert_eq!(line.verdict, Verdict::Ok);
        assert!(line.text.contains("group") && line.text.contains("6.12.57"));
        let requested = decision(Backend::Cdev, BackendReason::Requested);
        let line = check(&fake.root, &requested, Route::Noiommu(Backend::Cdev));
        assert!(line.text.starts_with("Backend cdev "), "{}", line.text);
        assert!(line.text.contains("--backend"));
    }

    #[test]
    fn io_uring_matters_to_groups_only() {
        let fake = Fake::new();
        let verdict = |route| check_io_uring(&fake.root, route).verdict;
        assert_eq!(verdict(GROUP), Verdict::Ok, "before Linux 6.6");
        fake.write("proc/self/status", "CapEff:\t0000000000000000\n");
        for (value, wanted) in [
            ("0\n", Verdict::Ok),
            ("1\n", Verdict::Fail),
            ("2\n", Verdict::Fail),
            ("", Verdict::Ok),
        ] {
            fake.write("proc/sys/kernel/io_uring_disabled", value);
            assert_eq!(verdict(GROUP), wanted, "{value}");
            assert_eq!(verdict(Route::Iommu), Verdict::Ok);
            assert_eq!(verdict(Route::Noiommu(Backend::Cdev)), Verdict::Ok);
        }
        fake.write("proc/self/status", "CapEff:\tffffffffffffffff\n");
        fake.write("proc/sys/kernel/io_uring_disabled", "1\n");
        assert_eq!(verdict(GROUP), Verdict::Ok);
    }
}
