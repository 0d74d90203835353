// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The groups by which kernels before 7.3 give away devices that no IOMMU translates: VFIO makes one up for each device
//! (drivers/vfio/group.c vfio_noiommu_group_alloc).

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use address::Bdf;

use crate::cdev::is_vfio_driver;
use crate::error::Error;
use crate::operation::Operation;
use crate::pci_sysfs::PciSysfs;
use crate::retry::retried;
use crate::sys;

/// Where the kernel puts the nodes of groups and that of containers, in `/dev`.
const NODES: &str = "vfio";
/// The node of containers, in [`NODES`].
const CONTAINER: &str = "vfio";

/// The node of the group that VFIO made up for a device: `/dev/vfio/noiommu-N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupNode(u32);

impl GroupNode {
    /// The node of group `number`.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number of the group.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The node of the group of `bdf`, if sysfs lists one that VFIO made up.
    ///
    /// # Errors
    /// [`Error::NoDevice`]
    pub fn of(sysfs: &PciSysfs, bdf: Bdf) -> Result<Option<Self>, Error> {
        let group = sysfs.iommu_group(bdf)?.filter(|group| group.is_made_up);
        Ok(group.and_then(|group| group.number.parse().ok().map(Self)))
    }

    /// Finds the node of the group of `bdf` through `sysfs`, without opening it.
    ///
    /// # Errors
    /// [`Error::NoDevice`]; [`Error::NotBound`] if another driver than a VFIO one holds the
    /// device; [`Error::NoGroup`] if the kernel made none.
    pub fn find(sysfs: &PciSysfs, bdf: Bdf) -> Result<Self, Error> {
        let driver = sysfs.driver(bdf)?;
        let found = Self::of(sysfs, bdf)?.filter(|node| node.exists(sysfs));
        match (found, driver) {
            (Some(node), Some(driver)) if is_vfio_driver(&driver) => Ok(node),
            (None, Some(driver)) if is_vfio_driver(&driver) => Err(Error::NoGroup { bdf, driver }),
            (_, driver) => Err(Error::NotBound {
                bdf,
                driver,
                unsafe_mode: sysfs.unsafe_noiommu_mode(),
            }),
        }
    }

    /// Whether the node is there.
    #[must_use]
    pub fn exists(self, sysfs: &PciSysfs) -> bool {
        self.path(sysfs).exists()
    }

    fn path(self, sysfs: &PciSysfs) -> PathBuf {
        sysfs.nodes().join(NODES).join(self.name())
    }

    fn name(self) -> String {
        format!("noiommu-{}", self.0)
    }

    /// Opens the group of `bdf`, which no one else can do as long as it is open.
    ///
    /// # Errors
    /// [`Error::OpenGroup`], with `EBUSY` if it is open, or the device bound to a `/dev/iommu`; `EPERM` without
    /// CAP_SYS_RAWIO.
    pub(crate) fn open(self, sysfs: &PciSysfs, bdf: Bdf) -> Result<File, Error> {
        let path = self.path(sysfs);
        open(&path).map_err(|source| Error::OpenGroup { bdf, path, source })
    }
}

/// The absolute path of the node.
impl fmt::Display for GroupNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = Path::new("/dev").join(NODES).join(self.name());
        path.display().fmt(f)
    }
}

/// The path of the node of containers.
#[must_use]
pub fn container_node(sysfs: &PciSysfs) -> PathBuf {
    sysfs.nodes().join(NODES).join(CONTAINER)
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

/// The groups that this process has open for the devices of one guest. A group is closed once no device has them any
/// more.
#[derive(Debug, Default)]
pub struct Groups(Mutex<BTreeMap<GroupNode, OpenGroup>>);

/// A group in a container of its own, which pins nothing and translates nothing.
#[derive(Debug)]
struct OpenGroup {
    group: File,
    _container: File,
}

impl Groups {
    /// Opens `bdf` through its group `node` (`VFIO_GROUP_GET_DEVICE_FD`), upon which the kernel resets the function and
    /// turns its bus mastering off (drivers/vfio/pci/vfio_pci_core.c vfio_pci_core_enable).
    ///
    /// # Errors
    /// [`Error::OpenGroup`], [`Error::OpenContainer`], [`Error::Device`]
    pub(crate) fn open_device(
        &self,
        sysfs: &PciSysfs,
        bdf: Bdf,
        node: GroupNode,
    ) -> Result<OwnedFd, Error> {
        let failed = |operation| {
            move |source| Error::Device {
                bdf,
                operation,
                source,
            }
        };
        let group = node.open(sysfs, bdf)?;
        let path = container_node(sysfs);
        let container = open(&path).map_err(|source| Error::OpenContainer { path, source })?;
        sys::set_container(group.as_fd(), container.as_fd())
            .map_err(failed(Operation::SetContainer))?;
        sys::set_noiommu(container.as_fd()).map_err(failed(Operation::SetNoiommu))?;
        let name = CString::new(bdf.to_string())
            .map_err(|error| failed(Operation::OpenThroughGroup)(error.into()))?;
        let device = retried(|| sys::device_of_group(group.as_fd(), &name))
            .map_err(failed(Operation::OpenThroughGroup))?;
        let opened = OpenGroup {
            group,
            _container: container,
        };
        self.all().insert(node, opened);
        Ok(device)
    }

    /// Whether the group is one of these.
    pub(crate) fn has(&self, node: GroupNode) -> bool {
        self.all().contains_key(&node)
    }

    /// Calls `act` with those of the groups that `wanted` names, each once.
    pub(crate) fn with<R>(
        &self,
        wanted: &[GroupNode],
        act: impl FnOnce(&[BorrowedFd<'_>]) -> R,
    ) -> R {
        let all = self.all();
        let found = all.iter().filter(|(node, _)| wanted.contains(node));
        let files: Vec<_> = found.map(|(_, open)| open.group.as_fd()).collect();
        act(&files)
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<GroupNode, OpenGroup>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A machine with a device that VFIO's driver has.
    fn machine() -> (tempfile::TempDir, PciSysfs, Bdf) {
        let root = tempfile::tempdir().unwrap();
        let sysfs = PciSysfs::at(&root.path().join("sys"));
        let device = root.path().join("sys/bus/pci/devices/0000:01:00.0");
        fs::create_dir_all(&device).unwrap();
        symlink("drivers/vfio-pci", device.join("driver")).unwrap();
        (root, sysfs, "01:00.0".parse().unwrap())
    }

    fn make_group(root: &tempfile::TempDir, name: &str) {
        let group = root.path().join("sys/kernel/iommu_groups/7");
        fs::create_dir_all(&group).unwrap();
        fs::write(group.join("name"), name).unwrap();
        let device = root.path().join("sys/bus/pci/devices/0000:01:00.0");
        symlink(&group, device.join("iommu_group")).unwrap();
    }

    #[test]
    fn only_a_group_that_vfio_made_up_has_such_a_node() {
        let (root, sysfs, bdf) = machine();
        let find = || GroupNode::find(&sysfs, bdf);
        assert_eq!(GroupNode::of(&sysfs, bdf).unwrap(), None);
        assert!(matches!(find(), Err(Error::NoGroup { .. })));
        make_group(&root, "");
        assert_eq!(GroupNode::of(&sysfs, bdf).unwrap(), None);
        fs::write(
            root.path().join("sys/kernel/iommu_groups/7/name"),
            "vfio-noiommu\n",
        )
        .unwrap();
        let node = GroupNode::of(&sysfs, bdf).unwrap().unwrap();
        assert_eq!(node.to_string(), "/dev/vfio/noiommu-7");
        assert!(matches!(find(), Err(Error::NoGroup { .. })), "no node");
        fs::create_dir_all(root.path().join("dev/vfio")).unwrap();
        fs::write(root.path().join("dev/vfio/noiommu-7"), "").unwrap();
        assert_eq!(find().unwrap(), node);
        let driver = root.path().join("sys/bus/pci/devices/0000:01:00.0/driver");
        fs::remove_file(&driver).unwrap();
        symlink("drivers/nvme", driver).unwrap();
        assert!(matches!(find(), Err(Error::NotBound { .. })));
    }

    #[test]
    fn what_does_not_open_is_named() {
        let (root, sysfs, bdf) = machine();
        let groups = Groups::default();
        let node = GroupNode::new(7);
        let opened = || groups.open_device(&sysfs, bdf, node).unwrap_err();
        assert!(matches!(opened(), Error::OpenGroup { .. }));
        fs::create_dir_all(root.path().join("dev/vfio")).unwrap();
        fs::write(root.path().join("dev/vfio/noiommu-7"), "").unwrap();
        assert!(matches!(opened(), Error::OpenContainer { .. }));
        fs::write(root.path().join("dev/vfio/vfio"), "").unwrap();
        let refused = opened();
        let operation = Operation::SetContainer;
        assert!(
            matches!(refused, Error::Device { operation: found, .. } if found == operation),
            "{refused:?}"
        );
        assert!(!groups.has(node));
        assert_eq!(groups.with(&[node], |files| files.len()), 0);
    }
}
