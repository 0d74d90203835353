// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How the DMA of a device reaches guest memory, once that is decided.

use devices::mediate::Profile;
use host::ResolvedDma;

use crate::config::Poll;

/// The way of a device's DMA to guest memory: a [`ResolvedDma`] and what it takes.
#[derive(Clone, Debug)]
pub enum DmaPath {
    /// An IOMMU translates.
    Iommu,
    /// Guest-physical addresses are host-physical ones.
    Identity,
    /// The guest translates.
    Translate,
    /// The monitor translates, by this profile, without which no device is mediated.
    Mediate(Option<Profile>),
    /// The monitor checks and translates the commands of an NVMe controller.
    Guarded(Poll),
}

impl DmaPath {
    /// The path of a device in `mode`, with the profile that it was given. `nvme` is how an NVMe controller would be
    /// polled.
    pub fn of(mode: ResolvedDma, profile: Option<Profile>, nvme: Option<Poll>) -> Self {
        match mode {
            ResolvedDma::Iommu => Self::Iommu,
            ResolvedDma::Identity => Self::Identity,
            ResolvedDma::Translate => Self::Translate,
            ResolvedDma::Mediate => match (profile, nvme) {
                (None, Some(poll)) => Self::Guarded(poll),
                (profile, _) => Self::Mediate(profile),
            },
        }
    }

    /// The mode, without a profile.
    pub fn mode(&self) -> ResolvedDma {
        match self {
            Self::Iommu => ResolvedDma::Iommu,
            Self::Identity => ResolvedDma::Identity,
            Self::Translate => ResolvedDma::Translate,
            Self::Mediate(_) | Self::Guarded(_) => ResolvedDma::Mediate,
        }
    }

    /// Its name, as options and reports have it.
    pub fn name(&self) -> &'static str {
        self.mode().name()
    }
}
