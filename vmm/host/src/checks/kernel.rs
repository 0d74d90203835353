// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Checks the running kernel: version, configuration, taint, lockdown.

use std::collections::BTreeMap;

use crate::arch::KVM_OPTIONS;
use crate::checks::id::Id;
use crate::checks::line::Line;
use crate::checks::rebuild::rebuild;
use crate::facts::backend::{Backend, FIRST_CDEV, Route};
use crate::facts::kernel::{config, lockdown, release, taint, version};
use crate::sys_root::SysRoot;

/// The first kernel whose sysfs lets the reset of a device be chosen (`reset_method`, drivers/pci/pci.c
/// reset_method_store). io_uring fills free slots for buffers from 5.13 on.
const FIRST_GROUP: (u32, u32) = (5, 15);

/// The first kernel with `IOMMU_IOAS_MAP_FILE`, by which guest memory is pinned. VFIO character devices
/// came with 6.6.
const FIRST_MAP_FILE: (u32, u32) = (6, 13);

/// Options that are needed whether there is an IOMMU or not (Linux Kconfig).
const ALWAYS: [&str; 3] = ["VFIO", "VFIO_PCI", "KVM"];

/// Those for character devices.
const CDEV: [&str; 3] = ["IOMMU_SUPPORT", "IOMMUFD", "VFIO_DEVICE_CDEV"];

/// Those for devices that no IOMMU isolates: guest memory of hugepages, and the mode itself.
const NOIOMMU: [&str; 2] = ["HUGETLBFS", "VFIO_NOIOMMU"];

/// Those for character devices that no IOMMU isolates.
const NOIOMMU_CDEV: [&str; 1] = ["IOMMUFD_NOIOMMU"];

/// Those for groups: what pins memory, and what shows where it is.
const GROUP: [&str; 2] = ["IO_URING", "PROC_PAGE_MONITOR"];

/// The first kernels that can be built without groups, and without containers.
const FIRST_WITHOUT_GROUP: (u32, u32) = (6, 6);
const FIRST_WITHOUT_CONTAINER: (u32, u32) = (6, 2);

/// Bits of the taint that indicate a fault (include/linux/panic.h), with the kernel's letters.
const TROUBLE: [(u32, &str); 3] = [
    (4, "M, a machine check"),
    (5, "B, a bad page"),
    (7, "D, the kernel crashed and continued"),
];

/// `TAINT_USER`.
const TAINT_USER: u32 = 6;

/// [`Id::KernelVersion`]
pub(crate) fn check_version(root: &SysRoot, route: Route) -> Line {
    let id = Id::KernelVersion;
    let release = release(root);
    let (first, why) = match route {
        Route::Noiommu(Backend::Cdev) => (
            FIRST_CDEV,
            "the first that reports the HPA of pinned memory, which --backend cdev requires for devices in noiommu \
             mode",
        ),
        Route::Noiommu(Backend::Group) => (
            FIRST_GROUP,
            "the first in which the reset of a device can be selected (reset_method)",
        ),
        Route::Iommu => (
            FIRST_MAP_FILE,
            "the first that pins memory of a file (IOMMU_IOAS_MAP_FILE)",
        ),
    };
    let needed = format!("Linux {}.{}", first.0, first.1);
    match version(&release) {
        Some(version) if version >= first => Line::ok(
            id,
            format!("The host runs Linux {release}; {needed} or later is required"),
        ),
        Some(_) => Line::fail(
            id,
            format!(
                "The host runs Linux {release}, which is too old: {needed} or later is required, {why}"
            ),
            "apt install -t trixie-backports linux-source-7.3  # or build a later kernel",
        ),
        None => Line::warn(
            id,
            format!(
                "Cannot parse the host kernel's version {release:?}; {needed} or later is required"
            ),
            "uname -r",
        ),
    }
}

/// What of the needed options is missing in a kernel of this version, if it is known.
fn missing(
    options: &BTreeMap<String, String>,
    route: Route,
    version: Option<(u32, u32)>,
) -> Vec<String> {
    let has = |name: &&str| matches!(options.get(*name).map(String::as_str), Some("y" | "m"));
    let named = |names: &[&str]| -> Vec<String> {
        let lacking = names.iter().filter(|name| !has(name));
        lacking.map(ToString::to_string).collect()
    };
    let is_option_from = |first| version.is_none_or(|version| version >= first);
    let mut missing = named(&ALWAYS);
    if !KVM_OPTIONS.iter().any(has) {
        missing.push(KVM_OPTIONS.join(" or "));
    }
    if !route.is_group() {
        missing.extend(named(&CDEV));
    }
    let Route::Noiommu(backend) = route else {
        return missing;
    };
    missing.extend(named(&NOIOMMU));
    let has_groups = has(&"VFIO_GROUP") || !is_option_from(FIRST_WITHOUT_GROUP);
    match backend {
        Backend::Cdev => missing.extend(named(&NOIOMMU_CDEV)),
        Backend::Group => {
            missing.extend(named(&GROUP));
            if !has_groups {
                missing.push("VFIO_GROUP".to_owned());
            }
        }
    }
    let containers = ["VFIO_CONTAINER", "IOMMUFD_VFIO_CONTAINER"];
    let needs_container = has_groups && is_option_from(FIRST_WITHOUT_CONTAINER);
    if needs_container && !containers.iter().any(has) {
        missing.push("VFIO_CONTAINER".to_owned());
    }
    missing
}

/// [`Id::KernelConfig`]
pub(crate) fn check_config(root: &SysRoot, route: Route) -> Line {
    let id = Id::KernelConfig;
    let Some((file, options)) = config(root) else {
        return Line::warn(
            id,
            format!(
                "Neither /proc/config.gz nor /boot/config-{} can be read, so the host \
                 kernel's configuration is unknown",
                release(root)
            ),
            "modprobe configs && pinvisor check",
        );
    };
    let mut missing = missing(&options, route, version(&release(root)));
    // It may come from elsewhere than this kernel's own tree.
    if root.exists("dev/kvm") {
        missing.retain(|name| !name.starts_with("KVM"));
    }
    if missing.is_empty() {
        return Line::ok(id, format!("{file} has every required option"));
    }
    let mut text = format!(
        "The host kernel was built without CONFIG_{} ({file})",
        missing.join(", CONFIG_").replace(" or ", " or CONFIG_")
    );
    if missing.iter().any(|name| name == "VFIO_CONTAINER") {
        text += "; with VFIO_GROUP the kernel offers VFIO_NOIOMMU only beside VFIO_CONTAINER";
    }
    // IOMMUFD_NOIOMMU has no prompt, and one of KVM's two follows from the CPU.
    let enable: Vec<_> = missing
        .iter()
        .filter(|name| *name != "IOMMUFD_NOIOMMU")
        .map(|name| format!("-e {}", name.replace(" or ", " -e ")))
        .collect();
    let enable = match enable.as_slice() {
        [] => "-e VFIO_NOIOMMU".to_owned(),
        list => list.join(" "),
    };
    Line::fail(id, text, rebuild(&enable))
}

/// [`Id::Taint`]
pub(crate) fn check_taint(root: &SysRoot, noiommu: bool) -> Line {
    let id = Id::Taint;
    let taint = match taint(root) {
        Ok(taint) => taint,
        Err(word) => {
            return Line::warn(
                id,
                format!("Cannot parse the host kernel's taint {word:?}"),
                "cat /proc/sys/kernel/tainted",
            );
        }
    };
    let has = |bit: u32| taint & (1 << bit) != 0;
    let user = if has(TAINT_USER) {
        "; U means that a device was bound in noiommu mode since boot: such a device may have \
         changed any memory, so kernel developers reject bug reports from this kernel"
    } else {
        ""
    };
    let trouble: Vec<_> = TROUBLE
        .iter()
        .filter_map(|(bit, name)| has(*bit).then_some(*name))
        .collect();
    if !trouble.is_empty() {
        return Line::warn(
            id,
            format!(
                "The host kernel has reported a fault: {} (taint {taint}){user}",
                trouble.join("; ")
            ),
            "dmesg --level=emerg,alert,crit,err  # then reboot the host",
        );
    }
    match (taint, user) {
        (0, _) if noiommu => Line::ok(
            id,
            "The host kernel is not tainted; binding a device taints it (U)",
        ),
        (0, _) => Line::ok(id, "The host kernel is not tainted"),
        _ => Line::ok(id, format!("Taint {taint}{user}")),
    }
}

/// [`Id::Lockdown`]
pub(crate) fn check_lockdown(root: &SysRoot) -> Line {
    let id = Id::Lockdown;
    match lockdown(root) {
        None => Line::ok(id, "The host kernel is not locked down"),
        Some(mode) => Line::warn(
            id,
            format!(
                "The host kernel is locked down ({mode}). That does not prevent a run, but a guest \
                 with a device without an IOMMU can change the host kernel regardless"
            ),
            "pinvisor run --noiommu ...  # if you trust the guest as you trust root on the host",
        ),
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::checks::line::Verdict;
    use crate::facts::kernel::options;
    use crate::sys_root::tests::Fake;

    const FULL: &str = "\
    CONFIG_IOMMU_SUPPORT=y\nCONFIG_IOMMUFD=y\nCONFIG_VFIO=m\nCONFIG_VFIO_DEVICE_CDEV=y\n\
    CONFIG_VFIO_PCI=m\nCONFIG_KVM=y\nCONFIG_KVM_AMD=m\nCONFIG_HUGETLBFS=y\nCONFIG_VFIO_NOIOMMU=y\n\
    CONFIG_IOMMUFD_NOIOMMU=y\n";

    const WITH_GROUPS: &str = "\
    CONFIG_VFIO=m\nCONFIG_VFIO_GROUP=y\nCONFIG_VFIO_CONTAINER=y\nCONFIG_VFIO_PCI=m\nCONFIG_KVM=y\nCONFIG_KVM_AMD=m\n\
    CONFIG_HUGETLBFS=y\nCONFIG_VFIO_NOIOMMU=y\nCONFIG_IO_URING=y\nCONFIG_PROC_PAGE_MONITOR=y\n";

    const CDEV: Route = Route::Noiommu(Backend::Cdev);
    const GROUP: Route = Route::Noiommu(Backend::Group);

    #[test]
    fn versions_are_compared_by_number() {
        let judge = |release: &str, route| {
            let fake = Fake::new();
            fake.write("proc/sys/kernel/osrelease", release);
            check_version(&fake.root, route).verdict
        };
        assert_eq!(judge("7.3.4-1~bpo13+1\n", CDEV), Verdict::Ok);
        assert_eq!(judge("7.10.0", CDEV), Verdict::Ok);
        assert_eq!(judge("7.2.9", CDEV), Verdict::Fail);
        assert_eq!(judge("5.15.0-91-generic", GROUP), Verdict::Ok);
        assert_eq!(judge("5.14.21", GROUP), Verdict::Fail);
        assert_eq!(judge("6.13.0", Route::Iommu), Verdict::Ok);
        assert_eq!(judge("6.12.57+deb13-amd64", Route::Iommu), Verdict::Fail);
        for strange in ["", "x", "7", "99999999999.1"] {
            assert_eq!(judge(strange, CDEV), Verdict::Warn, "{strange}");
        }
    }

    #[test]
    fn each_missing_option_is_named() {
        let fake = Fake::new();
        fake.write("proc/sys/kernel/osrelease", "7.3.4\n");
        let line = check_config(&fake.root, CDEV);
        assert_eq!(line.verdict, Verdict::Warn);
        assert!(line.text.contains("/boot/config-7.3.4"), "{}", line.text);
        for (full, route) in [(FULL, CDEV), (WITH_GROUPS, GROUP)] {
            fake.write("boot/config-7.3.4", full);
            assert_eq!(check_config(&fake.root, route).verdict, Verdict::Ok);
            for option in full.lines() {
                let name = option.split_once('=').unwrap().0;
                let without = full.replace(option, &format!("# {name} is not set"));
                fake.write("boot/config-7.3.4", &without);
                let line = check_config(&fake.root, route);
                assert_eq!(line.verdict, Verdict::Fail, "{option}");
                assert!(line.text.contains(name), "{name} not in {}", line.text);
            }
        }
        fake.write("boot/config-7.3.4", &FULL.replace("NOIOMMU", "X"));
        let line = check_config(&fake.root, Route::Iommu);
        assert_eq!(line.verdict, Verdict::Ok);
    }

    #[test]
    fn groups_need_a_container() {
        let found = |more: &str| {
            let options = options(&[FULL, more].concat());
            missing(&options, CDEV, Some((7, 3)))
        };
        assert_eq!(found("CONFIG_VFIO_GROUP=y\n"), ["VFIO_CONTAINER"]);
        assert!(found("CONFIG_VFIO_GROUP=y\nCONFIG_VFIO_CONTAINER=y\n").is_empty());
        assert!(found("CONFIG_VFIO_GROUP=y\nCONFIG_IOMMUFD_VFIO_CONTAINER=y\n").is_empty());
    }

    #[test]
    fn older_kernels_have_groups_and_containers_without_options() {
        let without = |names: &[&str]| {
            let lines = WITH_GROUPS.lines();
            let left = lines.filter(|line| !names.iter().any(|name| line.contains(name)));
            options(&left.collect::<Vec<_>>().join("\n"))
        };
        let both = without(&["VFIO_GROUP", "VFIO_CONTAINER"]);
        let found = |version| missing(&both, GROUP, version);
        assert!(found(Some((5, 15))).is_empty());
        assert_eq!(found(Some((6, 2))), ["VFIO_CONTAINER"]);
        assert_eq!(found(Some((6, 6))), ["VFIO_GROUP"]);
        assert_eq!(found(None), ["VFIO_GROUP"]);
    }

    #[test]
    fn a_packed_configuration_is_preferred() {
        let fake = Fake::new();
        // What `gzip -n` writes before and after the data; the checksum is not read.
        let mut packed = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
        packed.extend(miniz_oxide::deflate::compress_to_vec(FULL.as_bytes(), 1));
        packed.extend([0; 8]);
        fake.directory("proc");
        let path = fake.dir.path().join("proc/config.gz");
        std::fs::write(&path, &packed).unwrap();
        assert_eq!(check_config(&fake.root, CDEV).verdict, Verdict::Ok);
        let with_name = [&[0x1f, 0x8b, 8, 8], &packed[4..]].concat();
        for odd in [&b"no gzip"[..], b"", &packed[..40], &with_name] {
            std::fs::write(&path, odd).unwrap();
            assert_eq!(check_config(&fake.root, CDEV).verdict, Verdict::Warn);
        }
    }

    #[test]
    fn taint_u_is_explained_and_trouble_is_a_warning() {
        let judge = |text: &str| {
            let fake = Fake::new();
            fake.write("proc/sys/kernel/tainted", text);
            check_taint(&fake.root, true)
        };
        assert_eq!(judge("0\n").verdict, Verdict::Ok);
        assert!(judge("0\n").text.contains("taints it"));
        let user = judge("64\n");
        assert_eq!(user.verdict, Verdict::Ok);
        assert!(user.text.contains("noiommu mode"));
        let both = judge("192\n");
        assert_eq!(both.verdict, Verdict::Warn);
        assert!(both.text.contains("D, the kernel crashed") && both.text.contains("; U"));
        assert_eq!(judge("").verdict, Verdict::Warn);
    }

    #[test]
    fn lockdown_is_read_from_the_brackets() {
        let judge = |text: &str| {
            let fake = Fake::new();
            fake.write("sys/kernel/security/lockdown", text);
            check_lockdown(&fake.root).verdict
        };
        assert_eq!(judge("[none] integrity confidentiality\n"), Verdict::Ok);
        assert_eq!(judge("none [integrity] confidentiality\n"), Verdict::Warn);
        assert_eq!(judge("]["), Verdict::Ok);
        assert_eq!(check_lockdown(&Fake::new().root).verdict, Verdict::Ok);
    }

    proptest::proptest! {
        // A tree of files is made for each.
        #![proptest_config(proptest::test_runner::Config::with_cases(32))]

        #[test]
        fn no_text_makes_it_panic(text in "\\PC*") {
            let fake = Fake::new();
            fake.write("proc/sys/kernel/osrelease", &text);
            fake.write("proc/sys/kernel/tainted", &text);
            fake.write("sys/kernel/security/lockdown", &text);
            check_version(&fake.root, CDEV);
            check_taint(&fake.root, false);
            check_lockdown(&fake.root);
            missing(&options(&text), GROUP, version(&text));
        }
    }
}
