// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How a run opens its devices and pins memory for those that no IOMMU translates: one way for all of them.

use std::sync::Arc;

use address::Bdf;
use host::Backend;
use iommufd_backend::{
    Cdev, CdevKind, Error, GroupNode, Groups, Iommufd, NoiommuSpace, PciSysfs, VfioDevice,
};

/// An interface of the kernel, open.
#[derive(Clone, Debug)]
pub(crate) enum KernelPath {
    /// Character devices are bound to this, which pins memory.
    Cdev(Arc<Iommufd>),
    /// The run opens devices through these groups, and pins memory by io_uring. It supports devices in noiommu mode only.
    /// The groups stay open at least as long as this exists.
    Group(Arc<Groups>),
}

impl KernelPath {
    /// Opens what `backend` requires besides the devices' own nodes. Returns an error if it is not available.
    ///
    /// # Errors
    /// [`Error::OpenIommufd`]; [`Error::IoUring`], [`Error::AddressesHidden`], [`Error::Read`]
    pub fn open(backend: Backend) -> Result<Self, Error> {
        Ok(match backend {
            Backend::Cdev => Self::Cdev(Arc::new(Iommufd::open()?)),
            Backend::Group => {
                // Before any device is touched.
                NoiommuSpace::check_groups()?;
                Self::Group(Arc::default())
            }
        })
    }

    /// Which one it is.
    pub fn backend(&self) -> Backend {
        match self {
            Self::Cdev(_) => Backend::Cdev,
            Self::Group(_) => Backend::Group,
        }
    }

    /// Whether an IOMMU translates for `bdf`, by its node, which is not opened.
    ///
    /// # Errors
    /// [`Error::NoDevice`], [`Error::NotBound`], [`Error::NoCdev`], [`Error::NoGroup`]
    pub fn find(&self, sysfs: &PciSysfs, bdf: Bdf) -> Result<CdevKind, Error> {
        match self {
            Self::Cdev(_) => Ok(Cdev::find(sysfs, bdf)?.kind()),
            Self::Group(_) => GroupNode::find(sysfs, bdf).map(|_| CdevKind::Noiommu),
        }
    }

    /// Opens `bdf`, of which [`find`](Self::find) reported `kind`. The kernel resets it then.
    ///
    /// # Errors
    /// As [`find`](Self::find); those of [`Cdev::open`], [`VfioDevice::bind`] and [`VfioDevice::open`];
    /// [`Error::DeviceUnusable`] if it has another kind by now.
    pub fn open_device(
        &self,
        sysfs: &PciSysfs,
        bdf: Bdf,
        kind: CdevKind,
    ) -> Result<VfioDevice, Error> {
        match self {
            Self::Cdev(iommufd) => {
                let cdev = Cdev::open(sysfs, bdf)?;
                if cdev.kind() != kind {
                    return Err(Error::DeviceUnusable {
                        bdf,
                        reason: "its driver or IOMMU group changed while it was being bound".into(),
                    });
                }
                VfioDevice::bind(cdev, Arc::clone(iommufd))
            }
            Self::Group(groups) => {
                let node = GroupNode::find(sysfs, bdf)?;
                VfioDevice::open(sysfs, bdf, node, Arc::clone(groups))
            }
        }
    }

    /// An empty address space for devices that no IOMMU translates.
    ///
    /// # Errors
    /// Those of [`NoiommuSpace::new`] and [`NoiommuSpace::of_groups`].
    pub fn noiommu_space(&self) -> Result<NoiommuSpace, Error> {
        match self {
            Self::Cdev(iommufd) => NoiommuSpace::new(Arc::clone(iommufd)),
            Self::Group(_) => NoiommuSpace::of_groups(),
        }
    }

    /// What pins memory in the kernel; `None` where processes pin it.
    pub fn iommufd(&self) -> Option<&Arc<Iommufd>> {
        match self {
            Self::Cdev(iommufd) => Some(iommufd),
            Self::Group(_) => None,
        }
    }
}
