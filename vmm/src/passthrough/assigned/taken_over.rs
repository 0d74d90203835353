// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Devices that another process has bound and attached, and for which it has pinned memory.

use std::sync::Arc;

use iommufd_backend::{Iommufd, Leftover, NoiommuIds};
use keeper::Keeper;

use super::{AddressSpaces, Assigned, AssignedDevice};

/// What such a process hands over.
#[derive(Debug)]
pub(crate) struct TakenOver {
    pub devices: Vec<AssignedDevice>,
    pub spaces: AddressSpaces,
    /// The keeper, if a device is in noiommu mode, which holds the memory already.
    pub keeper: Option<Keeper>,
    pub iommufd: Option<Arc<Iommufd>>,
    /// What the devices in noiommu mode may write to, in bytes.
    pub bytes: u64,
    /// The devices in noiommu mode, as they were before they were bound.
    pub known: Vec<Leftover>,
}

impl Assigned {
    /// All of it, for which this process is responsible from now on.
    pub fn taken_over(parts: TakenOver) -> Self {
        let TakenOver {
            devices,
            spaces,
            keeper,
            iommufd,
            bytes,
            known,
        } = parts;
        Self {
            devices,
            spaces,
            bytes: match keeper {
                Some(_) => bytes,
                None => 0,
            },
            keeper,
            iommufd,
            known,
            ..Self::default()
        }
    }

    /// The keeper, if there is one.
    pub fn keeper(&self) -> Option<&Keeper> {
        self.keeper.as_ref()
    }

    /// What pins memory in the kernel; `None` where processes pin it.
    pub fn iommufd(&self) -> Option<&Arc<Iommufd>> {
        self.iommufd.as_ref()
    }
}

impl AddressSpaces {
    /// The numbers of the space of devices in noiommu mode.
    pub fn noiommu_ids(&self) -> Option<NoiommuIds> {
        match self {
            Self::Noiommu(space) | Self::Mixed { noiommu: space, .. } => space.to_hand_over(),
            Self::None | Self::Iommu(_) | Self::Synthetic(_) => None,
        }
    }
}
