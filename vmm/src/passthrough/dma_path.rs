//! How the DMA of a device reaches guest memory, once that is decided.

use devices::mediate::Profile;
use iommufd_backend::CdevKind;

use crate::config::DmaMode;

/// The way of a device's DMA to guest memory: what a [`DmaMode`] comes to on this host.
#[derive(Clone, Debug)]
pub enum DmaPath {
    /// An IOMMU translates.
    Iommu,
    /// Guest-physical addresses are host-physical ones.
    Identity,
    /// The guest translates.
    Translate,
    /// The monitor translates, by this profile or by the shipped one that fits.
    Mediate(Option<Profile>),
}

impl DmaPath {
    /// What `mode` comes to for a device of this `kind`, with the profile that it was given.
    pub fn of(kind: CdevKind, mode: DmaMode, profile: Option<Profile>) -> Self {
        match (kind, mode) {
            (CdevKind::Iommu, _) => Self::Iommu,
            (CdevKind::Noiommu, DmaMode::Translate) => Self::Translate,
            (CdevKind::Noiommu, DmaMode::Mediate) => Self::Mediate(profile),
            (CdevKind::Noiommu, DmaMode::Auto | DmaMode::Iommu | DmaMode::Identity) => {
                Self::Identity
            }
        }
    }

    /// Its name, as options and reports have it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Iommu => "iommu",
            Self::Identity => "identity",
            Self::Translate => "translate",
            Self::Mediate(_) => "mediate",
        }
    }
}
