// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which of the kernel's two interfaces a run uses for devices that no IOMMU translates, and why: decided once, before
//! any of them is touched.

use address::Bdf;
use iommufd_backend::{CdevKind, CdevNode, GroupNode};
use strum::{EnumIter, IntoStaticStr};

use crate::facts::device::cdev_kind;
use crate::facts::kernel::{config, release, version};
use crate::sys_root::SysRoot;

/// The first kernel that gives devices in noiommu mode a character device, and reports physical addresses.
pub(crate) const FIRST_CDEV: (u32, u32) = (7, 3);

/// Which interface is to be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum BackendChoice {
    /// [`Backend::Cdev`] if the host has it, else [`Backend::Group`].
    #[default]
    Auto,
    /// [`Backend::Cdev`]
    Cdev,
    /// [`Backend::Group`]
    Group,
}

/// An interface of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum Backend {
    /// A character device bound to `/dev/iommu`, which pins memory and reports where it is.
    Cdev,
    /// A group in a container. The monitor and its keeper pin memory by io_uring, and `/proc/self/pagemap` shows where it
    /// is.
    Group,
}

impl Backend {
    /// The name by which it is selected.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// How often a run pins its memory, each of which counts against the limit on locked memory.
    #[must_use]
    pub fn pins(self) -> u64 {
        match self {
            Self::Cdev => 1,
            Self::Group => 2,
        }
    }
}

/// Why it is this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendReason {
    /// It was asked for.
    Requested,
    /// An IOMMU translates for all devices.
    Iommu,
    /// All devices have a character device.
    AllHaveCdev,
    /// This device has a group and no character device.
    OnlyGroup(Bdf),
    /// The kernel's release, where no node is there to decide.
    Release(String),
    /// The kernel's configuration, which has groups and no character devices, where no node is there to decide.
    BuiltWithoutCdev,
}

/// The interface that a run uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendDecision {
    /// Which.
    pub backend: Backend,
    /// Why.
    pub reason: BackendReason,
}

impl BackendDecision {
    /// Decides for a run with `devices`, all of them by the same interface.
    pub fn new(
        root: &SysRoot,
        choice: BackendChoice,
        devices: impl IntoIterator<Item = Bdf>,
    ) -> Self {
        let requested = |backend| Self {
            backend,
            reason: BackendReason::Requested,
        };
        match choice {
            BackendChoice::Cdev => requested(Backend::Cdev),
            BackendChoice::Group => requested(Backend::Group),
            BackendChoice::Auto => Self::auto(root, &Vec::from_iter(devices)),
        }
    }

    fn auto(root: &SysRoot, devices: &[Bdf]) -> Self {
        let is_noiommu = |bdf: &&Bdf| cdev_kind(root, **bdf) == CdevKind::Noiommu;
        let noiommu: Vec<_> = devices.iter().filter(is_noiommu).collect();
        let nodes = noiommu.iter().map(|bdf| (**bdf, node(root, **bdf)));
        let nodes: Vec<_> = nodes.collect();
        let only_group = nodes
            .iter()
            .find(|(_, node)| matches!(node, Some(Node::Group(_))));
        let have_cdev = nodes
            .iter()
            .all(|(_, node)| matches!(node, Some(Node::Cdev(_))));
        let (backend, reason) = match only_group {
            Some((bdf, _)) => (Backend::Group, BackendReason::OnlyGroup(*bdf)),
            None if !devices.is_empty() && noiommu.is_empty() => {
                (Backend::Cdev, BackendReason::Iommu)
            }
            None if !noiommu.is_empty() && have_cdev => (Backend::Cdev, BackendReason::AllHaveCdev),
            None => return Self::of_kernel(root),
        };
        Self { backend, reason }
    }

    /// By what the kernel can offer, before there is a node.
    fn of_kernel(root: &SysRoot) -> Self {
        let release = release(root);
        let is_old = version(&release).is_some_and(|version| version < FIRST_CDEV);
        if !is_old && is_built_without_cdev(root) {
            return Self {
                backend: Backend::Group,
                reason: BackendReason::BuiltWithoutCdev,
            };
        }
        Self {
            backend: if is_old {
                Backend::Group
            } else {
                Backend::Cdev
            },
            reason: BackendReason::Release(release),
        }
    }
}

/// Whether the kernel's configuration is known to have groups and their containers, and no character devices. Linux 7.3
/// has noiommu groups beside `VFIO_CONTAINER` alone, not beside iommufd's containers (drivers/vfio/Kconfig).
fn is_built_without_cdev(root: &SysRoot) -> bool {
    config(root).is_some_and(|(_, options)| {
        let has = |name| options.contains_key(name);
        has("VFIO_GROUP") && has("VFIO_CONTAINER") && !has("VFIO_DEVICE_CDEV")
    })
}

/// A node by which a function can be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    /// Its character device.
    Cdev(CdevNode),
    /// Its group, which is one that VFIO made up.
    Group(GroupNode),
}

impl Node {
    /// Its path.
    pub(crate) fn path(&self) -> String {
        match self {
            Self::Cdev(node) => node.to_string(),
            Self::Group(node) => node.to_string(),
        }
    }

    /// The interface that it belongs to.
    pub(crate) fn backend(&self) -> Backend {
        match self {
            Self::Cdev(_) => Backend::Cdev,
            Self::Group(_) => Backend::Group,
        }
    }

    /// Whether an IOMMU translates for the function.
    pub(crate) fn kind(&self) -> CdevKind {
        match self {
            Self::Cdev(node) => node.kind(),
            Self::Group(_) => CdevKind::Noiommu,
        }
    }
}

/// The node of a function that is there and that [`BackendChoice::Auto`] uses.
pub(crate) fn node(root: &SysRoot, bdf: Bdf) -> Option<Node> {
    present_cdev(root, bdf)
        .map(Node::Cdev)
        .or_else(|| present_group(root, bdf).map(Node::Group))
}

/// The function's character device, if its node is there.
pub(crate) fn present_cdev(root: &SysRoot, bdf: Bdf) -> Option<CdevNode> {
    let listed = CdevNode::of(root.pci(), bdf).ok().flatten();
    listed.filter(|node| node.exists(root.pci()))
}

/// The function's group in noiommu mode, if its node is there.
pub(crate) fn present_group(root: &SysRoot, bdf: Bdf) -> Option<GroupNode> {
    let listed = GroupNode::of(root.pci(), bdf).ok().flatten();
    listed.filter(|node| node.exists(root.pci()))
}

/// How devices are kept from memory that is not the guest's, and if nothing does, by which interface they are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// An IOMMU translates for all.
    Iommu,
    /// Nothing translates for one of them at least.
    Noiommu(Backend),
}

impl Route {
    /// Whether nothing translates.
    pub(crate) fn is_noiommu(self) -> bool {
        self != Self::Iommu
    }

    /// How often guest memory is pinned.
    pub(crate) fn pins(self) -> u64 {
        match self {
            Self::Iommu => 1,
            Self::Noiommu(backend) => backend.pins(),
        }
    }

    /// Whether devices are opened through their groups.
    pub(crate) fn is_group(self) -> bool {
        self == Self::Noiommu(Backend::Group)
    }
}

/// The sysctl that switches io_uring off (Linux 6.6, io_uring/io_uring.c): 1 for callers without CAP_SYS_ADMIN and not
/// of a certain group, 2 for all. `None` where the kernel has none.
pub(crate) fn io_uring_disabled(root: &SysRoot) -> Option<u32> {
    root.word("proc/sys/kernel/io_uring_disabled").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys_root::tests::Fake;

    const DISK: &str = "sys/devices/pci0000:00/0000:00:08.0/0000:01:00.0";

    fn make_group(fake: &Fake, name: &str) {
        fake.write("sys/kernel/iommu_groups/7/name", name);
        fake.link(&format!("{DISK}/iommu_group"), "sys/kernel/iommu_groups/7");
    }

    #[test]
    fn nodes_decide_and_before_there_are_any_the_release() {
        let fake = Fake::new();
        let disk = fake.disk();
        let of = |devices: &[Bdf]| {
            BackendDecision::new(&fake.root, BackendChoice::Auto, devices.to_vec())
        };
        for (release, backend) in [
            ("6.12.57", Backend::Group),
            ("7.2.9", Backend::Group),
            ("7.3.0", Backend::Cdev),
            ("odd", Backend::Cdev),
        ] {
            fake.write("proc/sys/kernel/osrelease", release);
            for devices in [&[][..], &[disk]] {
                let wanted = BackendDecision {
                    backend,
                    reason: BackendReason::Release(release.to_owned()),
                };
                assert_eq!(of(devices), wanted);
            }
        }
        make_group(&fake, "vfio-noiommu\n");
        assert_eq!(of(&[disk]).backend, Backend::Cdev, "no node yet");
        fake.write("dev/vfio/noiommu-7", "");
        assert_eq!(of(&[disk]).reason, BackendReason::OnlyGroup(disk));
        fake.directory(&format!("{DISK}/vfio-dev/noiommu-vfio0"));
        assert_eq!(of(&[disk]).backend, Backend::Group, "listed, not there");
        fake.write("dev/vfio/devices/noiommu-vfio0", "");
        let both = of(&[disk]);
        assert_eq!(both.backend, Backend::Cdev);
        assert_eq!(both.reason, BackendReason::AllHaveCdev);
        fake.write("proc/sys/kernel/osrelease", "6.12.57");
        assert_eq!(of(&[disk]), both);
    }

    #[test]
    fn a_new_kernel_built_with_groups_alone_has_groups() {
        let fake = Fake::new();
        fake.write("proc/sys/kernel/osrelease", "7.3.0");
        for (options, backend) in [
            ("GROUP CONTAINER", Backend::Group),
            ("GROUP CONTAINER DEVICE_CDEV", Backend::Cdev),
            ("GROUP", Backend::Cdev),
            ("PCI", Backend::Cdev),
        ] {
            let lines = options
                .split(' ')
                .map(|name| format!("CONFIG_VFIO_{name}=y\n"));
            fake.write("boot/config-7.3.0", &lines.collect::<String>());
            let decided = BackendDecision::new(&fake.root, BackendChoice::Auto, []);
            assert_eq!(decided.backend, backend, "{options}");
        }
    }

    #[test]
    fn a_request_is_followed_whatever_there_is() {
        let fake = Fake::new();
        let disk = fake.disk();
        for (choice, backend) in [
            (BackendChoice::Cdev, Backend::Cdev),
            (BackendChoice::Group, Backend::Group),
        ] {
            let decided = BackendDecision::new(&fake.root, choice, [disk]);
            assert_eq!(decided.backend, backend);
            assert_eq!(decided.reason, BackendReason::Requested);
        }
    }

    #[test]
    fn the_listing_of_older_kernels_is_no_character_device() {
        let fake = Fake::new();
        let disk = fake.disk();
        make_group(&fake, "vfio-noiommu\n");
        fake.directory(&format!("{DISK}/vfio-dev/vfio0"));
        fake.write("dev/vfio/noiommu-7", "");
        assert_eq!(present_cdev(&fake.root, disk), None);
        let found = node(&fake.root, disk).unwrap();
        assert_eq!(found.path(), "/dev/vfio/noiommu-7");
        assert_eq!(found.kind(), CdevKind::Noiommu);
    }

    #[test]
    fn devices_behind_an_iommu_have_character_devices() {
        let fake = Fake::new();
        let disk = fake.disk();
        make_group(&fake, "");
        fake.write("dev/vfio/7", "");
        fake.write("proc/sys/kernel/osrelease", "6.12.57");
        let decided = BackendDecision::new(&fake.root, BackendChoice::Auto, [disk]);
        assert_eq!(decided.backend, Backend::Cdev);
        assert_eq!(decided.reason, BackendReason::Iommu);
        assert_eq!(present_group(&fake.root, disk), None);
    }
}
