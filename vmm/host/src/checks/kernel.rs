// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Checks the running kernel: version, configuration, taint, lockdown.

use std::collections::BTreeMap;

use crate::arch::KVM_OPTIONS;
use crate::checks::id::Id;
use crate::checks::line::Line;
use crate::checks::rebuild::rebuild;
use crate::facts::kernel::{config, lockdown, release, taint, version};
use crate::sys_root::SysRoot;

/// The first kernel with `IOMMU_IOAS_NOIOMMU_GET_PA`.
const FIRST_NOIOMMU: (u32, u32) = (7, 3);

/// The first kernel with `IOMMU_IOAS_MAP_FILE`, by which guest memory is pinned. VFIO character devices
/// came with 6.6.
const FIRST_MAP_FILE: (u32, u32) = (6, 13);

/// Options that are needed whether there is an IOMMU or not (Linux Kconfig).
const ALWAYS: [&str; 6] = [
    "IOMMU_SUPPORT",
    "IOMMUFD",
    "VFIO",
    "VFIO_DEVICE_CDEV",
    "VFIO_PCI",
    "KVM",
];

/// Those for devices that no IOMMU isolates: guest memory of hugepages, and the mode itself.
const NOIOMMU: [&str; 3] = ["HUGETLBFS", "VFIO_NOIOMMU", "IOMMUFD_NOIOMMU"];

/// Bits of the taint that indicate a fault (include/linux/panic.h), with the kernel's letters.
const TROUBLE: [(u32, &str); 3] = [
    (4, "M, a machine check"),
    (5, "B, a bad page"),
    (7, "D, the kernel crashed and continued"),
];

/// `TAINT_USER`.
const TAINT_USER: u32 = 6;

/// [`Id::KernelVersion`]
pub(crate) fn check_version(root: &SysRoot, noiommu: bool) -> Line {
    let id = Id::KernelVersion;
    let release = release(root);
    let (first, why) = if noiommu {
        (
            FIRST_NOIOMMU,
            "the first that reports the HPA of pinned memory, which every device in noiommu mode \
             requires",
        )
    } else {
        (
            FIRST_MAP_FILE,
            "the first that pins memory of a file (IOMMU_IOAS_MAP_FILE)",
        )
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

/// What of the needed options is missing.
fn missing(options: &BTreeMap<String, String>, noiommu: bool) -> Vec<String> {
    let has = |name: &&str| matches!(options.get(*name).map(String::as_str), Some("y" | "m"));
    let named = |names: &[&str]| -> Vec<String> {
        let lacking = names.iter().filter(|name| !has(name));
        lacking.map(ToString::to_string).collect()
    };
    let mut missing = named(&ALWAYS);
    if !KVM_OPTIONS.iter().any(has) {
        missing.push(KVM_OPTIONS.join(" or "));
    }
    if noiommu {
        let backends = ["VFIO_CONTAINER", "IOMMUFD_VFIO_CONTAINER"];
        if has(&"VFIO_GROUP") && !backends.iter().any(has) {
            missing.push("VFIO_CONTAINER".to_owned());
        }
        missing.extend(named(&NOIOMMU));
    }
    missing
}

/// [`Id::KernelConfig`]
pub(crate) fn check_config(root: &SysRoot, noiommu: bool) -> Line {
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
    let mut missing = missing(&options, noiommu);
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

    #[test]
    fn versions_are_compared_by_number() {
        let judge = |release: &str, noiommu| {
            let fake = Fake::new();
            fake.write("proc/sys/kernel/osrelease", release);
            check_version(&fake.root, noiommu).verdict
        };
        assert_eq!(judge("7.3.4-1~bpo13+1\n", true), Verdict::Ok);
        assert_eq!(judge("7.10.0", true), Verdict::Ok);
        assert_eq!(judge("7.2.9", true), Verdict::Fail);
        assert_eq!(judge("6.13.0", false), Verdict::Ok);
        assert_eq!(judge("6.12.57+deb13-amd64", false), Verdict::Fail);
        for strange in ["", "x", "7", "99999999999.1"] {
            assert_eq!(judge(strange, true), Verdict::Warn, "{strange}");
        }
    }

    #[test]
    fn each_missing_option_is_named() {
        let fake = Fake::new();
        fake.write("proc/sys/kernel/osrelease", "7.3.4\n");
        let line = check_config(&fake.root, true);
        assert_eq!(line.verdict, Verdict::Warn);
        assert!(line.text.contains("/boot/config-7.3.4"), "{}", line.text);
        fake.write("boot/config-7.3.4", FULL);
        assert_eq!(check_config(&fake.root, true).verdict, Verdict::Ok);
        for option in FULL.lines() {
            let name = option.split_once('=').unwrap().0;
            let without = FULL.replace(option, &format!("# {name} is not set"));
            fake.write("boot/config-7.3.4", &without);
            let line = check_config(&fake.root, true);
            assert_eq!(line.verdict, Verdict::Fail, "{option}");
            assert!(line.text.contains(name), "{name} not in {}", line.text);
        }
        fake.write("boot/config-7.3.4", &FULL.replace("NOIOMMU", "X"));
        assert_eq!(check_config(&fake.root, false).verdict, Verdict::Ok);
    }

    #[test]
    fn groups_need_a_container() {
        let found = |more: &str| missing(&options(&[FULL, more].concat()), true);
        assert_eq!(found("CONFIG_VFIO_GROUP=y\n"), ["VFIO_CONTAINER"]);
        assert!(found("CONFIG_VFIO_GROUP=y\nCONFIG_VFIO_CONTAINER=y\n").is_empty());
        assert!(found("CONFIG_VFIO_GROUP=y\nCONFIG_IOMMUFD_VFIO_CONTAINER=y\n").is_empty());
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
        assert_eq!(check_config(&fake.root, true).verdict, Verdict::Ok);
        let with_name = [&[0x1f, 0x8b, 8, 8], &packed[4..]].concat();
        for odd in [&b"no gzip"[..], b"", &packed[..40], &with_name] {
            std::fs::write(&path, odd).unwrap();
            assert_eq!(check_config(&fake.root, true).verdict, Verdict::Warn);
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
            check_version(&fake.root, true);
            check_taint(&fake.root, false);
            check_lockdown(&fake.root);
            missing(&options(&text), true);
        }
    }
}
