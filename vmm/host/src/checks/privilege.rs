// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Checks the caller's privileges.

use crate::checks::id::Id;
use crate::checks::line::Line;
use crate::checks::rebuild::rebuild;
use crate::checks::units::size;
use crate::facts::backend::Route;
use crate::facts::privilege::{IPC_LOCK, Privilege, SYS_ADMIN, SYS_RAWIO, memlock};
use crate::sys_root::SysRoot;

/// [`Id::Seccomp`]
pub(crate) fn check_seccomp(root: &SysRoot) -> Line {
    let id = Id::Seccomp;
    if Privilege::of_caller(root).has_seccomp_filter() {
        return Line::warn(
            id,
            "A seccomp filter applies to the caller: it may deny system calls that a run needs, as \
             containers' default filters do",
            "run without it (docker: --security-opt seccomp=unconfined), or allow ioctl, \
             memfd_create and fallocate in it",
        );
    }
    Line::ok(id, "No seccomp filter applies to the caller")
}

/// [`Id::CapabilityRawio`]
pub(crate) fn check_rawio(root: &SysRoot, noiommu: bool) -> Line {
    let id = Id::CapabilityRawio;
    let privilege = Privilege::of_caller(root);
    if privilege.has(SYS_RAWIO) {
        return Line::ok(id, "The caller has CAP_SYS_RAWIO");
    }
    if !noiommu {
        return Line::ok(id, "CAP_SYS_RAWIO is not needed: an IOMMU translates");
    }
    let why = if privilege.is_first_namespace {
        "The caller lacks CAP_SYS_RAWIO"
    } else {
        "The caller is not in the initial user namespace, so its CAP_SYS_RAWIO does not count, and the host kernel answers \
         EPERM"
    };
    Line::fail(
        id,
        format!(
            "{why}: the host kernel requires that capability to open a device in noiommu mode and, through /dev/iommu, \
             to report the HPA of pinned memory (IOMMU_IOAS_NOIOMMU_GET_PA)"
        ),
        "run as root outside a container: sudo pinvisor ...",
    )
}

/// [`Id::PageAddresses`]
pub(crate) fn check_page_addresses(root: &SysRoot, route: Route) -> Line {
    let id = Id::PageAddresses;
    if !route.is_noiommu() {
        return Line::ok(id, "They are not needed: an IOMMU translates");
    }
    // With groups a run knows no other source.
    let (missing, judge): (_, fn(Id, String, String) -> Line) = match route.is_group() {
        true => (
            "devices with groups cannot be given addresses of guest memory",
            Line::fail,
        ),
        false => (
            "a run does not verify that guest memory stays at the addresses that devices use",
            Line::warn,
        ),
    };
    if !root.exists("proc/self/pagemap") {
        return judge(
            id,
            format!("/proc/self/pagemap does not exist (CONFIG_PROC_PAGE_MONITOR): {missing}"),
            rebuild("-e PROC_PAGE_MONITOR"),
        );
    }
    if Privilege::of_caller(root).has(SYS_ADMIN) {
        return Line::ok(
            id,
            "/proc/self/pagemap shows them (CAP_SYS_ADMIN): every run compares the addresses of \
             all guest pages with them",
        );
    }
    judge(
        id,
        format!("/proc/self/pagemap hides them from a caller without CAP_SYS_ADMIN: {missing}"),
        "run as root outside a container: sudo pinvisor ...".to_owned(),
    )
}

/// [`Id::Memlock`], for `bytes` of guest memory where that is known.
pub(crate) fn check_memlock(root: &SysRoot, bytes: Option<u64>, route: Route) -> Line {
    let id = Id::Memlock;
    let pins = route.pins();
    let need = bytes.map(|bytes| bytes.saturating_mul(pins));
    let often = match pins {
        1 => "once for all devices".to_owned(),
        _ => format!("{pins} times the guest's memory, as the keeper pins it, too"),
    };
    let needs = need.map_or_else(
        || format!("A guest needs the size of its memory: {often}"),
        |bytes| format!("{} are required, {often}", size(bytes)),
    );
    if Privilege::of_caller(root).has(IPC_LOCK) {
        return Line::ok(id, format!("{needs}; no limit applies (CAP_IPC_LOCK)"));
    }
    match (memlock(root), need) {
        (Some(None), _) => Line::ok(id, format!("{needs}; the limit is unlimited")),
        (Some(Some(limit)), Some(need)) if limit < need => Line::fail(
            id,
            format!("{needs}, but the limit on locked memory is {}", size(limit)),
            format!(
                "ulimit -l {}  # in KiB; or run with CAP_IPC_LOCK",
                need.div_ceil(1024)
            ),
        ),
        (Some(Some(limit)), _) => Line::ok(id, format!("{needs}; the limit is {}", size(limit))),
        (None, _) => Line::warn(
            id,
            format!("{needs}; the limit cannot be read from /proc/self/limits"),
            "ulimit -l",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::line::Verdict;
    use crate::facts::backend::Backend;
    use crate::facts::privilege::{effective, limit_in};
    use crate::sys_root::tests::Fake;

    fn caller(capabilities: u64, uid_map: &str, limits: &str) -> Fake {
        let fake = Fake::new();
        fake.write(
            "proc/self/status",
            &format!("Name:\tx\nCapPrm:\tffff\nCapEff:\t{capabilities:016x}\n"),
        );
        fake.write("proc/self/uid_map", uid_map);
        fake.write("proc/self/limits", limits);
        fake
    }

    const CDEV: Route = Route::Noiommu(Backend::Cdev);
    const GROUP: Route = Route::Noiommu(Backend::Group);

    const FIRST: &str = "         0          0 4294967295\n";

    const OTHER: &str = "         0       1000          1\n";

    const LIMIT: &str =
        "Max locked memory         8388608              8388608              bytes     \n";

    #[test]
    fn only_the_first_namespaces_capability_counts() {
        let judge = |bits, map| check_rawio(&caller(bits, map, "").root, true);
        assert_eq!(judge(1 << SYS_RAWIO, FIRST).verdict, Verdict::Ok);
        assert_eq!(judge(1 << SYS_RAWIO, "").verdict, Verdict::Ok);
        assert_eq!(judge(!(1 << SYS_RAWIO), FIRST).verdict, Verdict::Fail);
        let elsewhere = judge(u64::MAX, OTHER);
        assert_eq!(elsewhere.verdict, Verdict::Fail);
        assert!(elsewhere.text.contains("user namespace"));
        let in_namespace = |name: &str| {
            let fake = caller(u64::MAX, FIRST, "");
            let link = fake.dir.path().join("proc/self/ns/user");
            std::fs::create_dir_all(link.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(name, link).unwrap();
            check_rawio(&fake.root, true).verdict
        };
        assert_eq!(in_namespace("user:[4026531837]"), Verdict::Ok);
        // One that has every ID, but is another one.
        assert_eq!(in_namespace("user:[4026532191]"), Verdict::Fail);
        assert_eq!(
            check_rawio(&caller(0, FIRST, "").root, false).verdict,
            Verdict::Ok
        );
    }

    #[test]
    fn a_filter_is_seen_in_the_status() {
        let judge = |status: &str| {
            let fake = Fake::new();
            fake.write("proc/self/status", status);
            check_seccomp(&fake.root).verdict
        };
        assert_eq!(
            judge("Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n"),
            Verdict::Warn
        );
        assert_eq!(
            judge("Name:\tx\nSeccomp:\t0\nSeccomp_filters:\t0\n"),
            Verdict::Ok
        );
        assert_eq!(judge("Seccomp_filters:\t2\n"), Verdict::Ok);
        assert_eq!(judge(""), Verdict::Ok);
    }

    #[test]
    fn page_addresses_need_a_file_and_a_capability() {
        let judge = |bits, map, route| {
            let fake = caller(bits, map, "");
            fake.write("proc/self/pagemap", "");
            check_page_addresses(&fake.root, route).verdict
        };
        let none = |route| check_page_addresses(&caller(u64::MAX, FIRST, "").root, route);
        for (route, hidden) in [(CDEV, Verdict::Warn), (GROUP, Verdict::Fail)] {
            assert_eq!(judge(1 << SYS_ADMIN, FIRST, route), Verdict::Ok);
            assert_eq!(judge(!(1 << SYS_ADMIN), FIRST, route), hidden);
            assert_eq!(judge(u64::MAX, OTHER, route), hidden);
            assert_eq!(none(route).verdict, hidden);
            assert!(none(route).text.contains("CONFIG_PROC_PAGE_MONITOR"));
        }
        assert_eq!(judge(0, FIRST, Route::Iommu), Verdict::Ok);
    }

    #[test]
    fn the_need_is_compared_with_the_limit() {
        let judge = |limits: &str, need| check_memlock(&caller(0, FIRST, limits).root, need, CDEV);
        assert_eq!(judge(LIMIT, Some(8 << 20)).verdict, Verdict::Ok);
        let over = judge(LIMIT, Some((8 << 20) + 1));
        assert_eq!(over.verdict, Verdict::Fail);
        assert!(over.text.contains("8388609 bytes") && over.text.contains("8 MiB"));
        assert!(over.hint.unwrap().starts_with("ulimit -l 8193 "));
        assert_eq!(judge(LIMIT, None).verdict, Verdict::Ok);
        let twice = |need| check_memlock(&caller(0, FIRST, LIMIT).root, Some(need), GROUP);
        assert_eq!(twice(4 << 20).verdict, Verdict::Ok);
        let over = twice((4 << 20) + 4096);
        assert_eq!(over.verdict, Verdict::Fail);
        assert!(over.hint.unwrap().starts_with("ulimit -l 8200 "));
        let unlimited = LIMIT.replace("8388608", "unlimited");
        assert!(judge(&unlimited, Some(1 << 40)).text.contains("unlimited"));
        assert_eq!(judge("", Some(1)).verdict, Verdict::Warn);
        let lifted = caller(1 << IPC_LOCK, FIRST, LIMIT);
        assert_eq!(
            Privilege::of_caller(&lifted.root).locked_memory_limit(&lifted.root),
            None
        );
        let limited = caller(0, FIRST, LIMIT);
        assert_eq!(
            Privilege::of_caller(&limited.root).locked_memory_limit(&limited.root),
            Some(8 << 20)
        );
        assert_eq!(
            check_memlock(&lifted.root, Some(1 << 40), GROUP).verdict,
            Verdict::Ok
        );
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC*") {
            effective(&text);
            effective(&format!("CapEff:{text}"));
            limit_in(&text, "Max locked memory");
            limit_in(&format!("Max locked memory{text}"), "Max locked memory");
        }
    }
}
