// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How the DMA of devices reaches guest memory: the request and its resolved form.

use address::Bdf;
use iommufd_backend::CdevKind;
use iommufd_backend::hugepages::HugepageSize;
use strum::{EnumIter, IntoStaticStr};

use crate::facts::auto_dma::AutoDma;

/// How a device's DMA is to reach guest memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum DmaMode {
    /// By the IOMMU if there is one, else as [`AutoDma`] decides.
    #[default]
    Auto,
    /// An IOMMU translates guest-physical addresses.
    Iommu,
    /// Guest-physical addresses are host-physical ones.
    Identity,
    /// The guest looks physical addresses up in a table that it is shown.
    Translate,
    /// The monitor checks and translates what the guest writes to the device's registers.
    Mediate,
}

/// How a device's DMA reaches guest memory in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum ResolvedDma {
    /// An IOMMU translates guest-physical addresses.
    Iommu,
    /// Guest-physical addresses are host-physical ones.
    Identity,
    /// The guest looks physical addresses up in a table that it is shown.
    Translate,
    /// The monitor checks and translates what the guest writes to the device's registers.
    Mediate,
}

/// Why a device cannot have the mode that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DmaConflict {
    /// It is to be translated by an IOMMU, and none does.
    NotBehindIommu,
    /// It is to use physical addresses, which its IOMMU does not let through.
    BehindIommu,
}

impl DmaMode {
    /// The name by which it is selected.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// What a run uses for a device of this `kind`; `auto` was decided for the devices of its guest that have no IOMMU.
    ///
    /// # Errors
    /// Why such a device cannot have it.
    pub fn resolve(self, kind: CdevKind, auto: &AutoDma) -> Result<ResolvedDma, DmaConflict> {
        match (kind, self) {
            (CdevKind::Iommu, Self::Auto | Self::Iommu) => Ok(ResolvedDma::Iommu),
            (CdevKind::Iommu, _) => Err(DmaConflict::BehindIommu),
            (CdevKind::Noiommu, Self::Iommu) => Err(DmaConflict::NotBehindIommu),
            (CdevKind::Noiommu, Self::Auto) => Ok(auto.mode()),
            (CdevKind::Noiommu, Self::Identity) => Ok(ResolvedDma::Identity),
            (CdevKind::Noiommu, Self::Translate) => Ok(ResolvedDma::Translate),
            (CdevKind::Noiommu, Self::Mediate) => Ok(ResolvedDma::Mediate),
        }
    }
}

impl ResolvedDma {
    /// Its name, as options and reports have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// Whether devices of the two modes cannot go to one guest. The layout of memory belongs to all devices
    /// together: one whose guest translates has memory at addresses that are wrong for one that takes
    /// guest-physical addresses as they are.
    #[must_use]
    pub fn conflicts_with(self, other: Self) -> bool {
        let is_fixed = |mode| matches!(mode, Self::Identity | Self::Iommu);
        (self == Self::Translate && is_fixed(other)) || (other == Self::Translate && is_fixed(self))
    }
}

/// The first of `devices` with a mode that conflicts with `mode`.
pub fn conflicting(
    mode: ResolvedDma,
    devices: impl IntoIterator<Item = (Bdf, ResolvedDma)>,
) -> Option<Bdf> {
    let mut devices = devices.into_iter();
    let found = devices.find(|(_, other)| mode.conflicts_with(*other));
    found.map(|(bdf, _)| bdf)
}

/// Whether guest memory has to be made of hugepages: where a device of `modes` uses it at its physical
/// addresses, or where a `size` was asked for.
pub fn needs_hugepages(
    modes: impl IntoIterator<Item = ResolvedDma>,
    size: Option<HugepageSize>,
) -> bool {
    size.is_some() || modes.into_iter().any(|mode| mode == ResolvedDma::Identity)
}

#[cfg(test)]
mod tests {
    use strum::IntoEnumIterator;

    use super::*;
    use crate::facts::auto_dma::TooFewHugepages;

    #[test]
    fn a_mode_follows_from_the_kind_of_device() {
        use DmaConflict::{BehindIommu, NotBehindIommu};
        for (mode, behind, without) in [
            (DmaMode::Auto, Ok("iommu"), Ok("identity")),
            (DmaMode::Iommu, Ok("iommu"), Err(NotBehindIommu)),
            (DmaMode::Identity, Err(BehindIommu), Ok("identity")),
            (DmaMode::Translate, Err(BehindIommu), Ok("translate")),
            (DmaMode::Mediate, Err(BehindIommu), Ok("mediate")),
        ] {
            let name = |kind| {
                let resolved = mode.resolve(kind, &AutoDma::Identity);
                resolved.map(ResolvedDma::name)
            };
            assert_eq!(name(CdevKind::Iommu), behind, "{mode:?}");
            assert_eq!(name(CdevKind::Noiommu), without, "{mode:?}");
        }
        let guarded = AutoDma::Guarded(TooFewHugepages {
            size: HugepageSize::Mib2,
            need: 1,
            available: 0,
        });
        for (mode, wanted) in [
            (DmaMode::Auto, ResolvedDma::Mediate),
            (DmaMode::Identity, ResolvedDma::Identity),
        ] {
            assert_eq!(mode.resolve(CdevKind::Noiommu, &guarded), Ok(wanted));
        }
        assert_eq!(
            DmaMode::Auto.resolve(CdevKind::Iommu, &guarded),
            Ok(ResolvedDma::Iommu)
        );
        let names: Vec<_> = DmaMode::iter().map(DmaMode::name).collect();
        assert_eq!(names, ["auto", "iommu", "identity", "translate", "mediate"]);
    }

    #[test]
    fn translation_by_the_guest_and_fixed_memory_exclude_one_another() {
        use ResolvedDma::{Identity, Iommu, Translate};
        for a in ResolvedDma::iter() {
            for b in ResolvedDma::iter() {
                let pair = [a, b];
                let wanted = pair.contains(&Translate)
                    && (pair.contains(&Identity) || pair.contains(&Iommu));
                assert_eq!(a.conflicts_with(b), wanted, "{a:?} {b:?}");
            }
        }
        let [first, second, third] = [1, 2, 3].map(|device| Bdf::new(0, 1, device, 0).unwrap());
        let all = [(first, Translate), (second, Identity), (third, Iommu)];
        assert_eq!(conflicting(Translate, all), Some(second));
        assert_eq!(conflicting(Iommu, all), Some(first));
        assert_eq!(conflicting(ResolvedDma::Mediate, all), None);
    }

    #[test]
    fn only_identity_memory_has_to_be_of_hugepages() {
        use ResolvedDma::{Identity, Iommu, Mediate, Translate};
        assert!(needs_hugepages([Mediate, Identity], None));
        assert!(!needs_hugepages([Iommu, Translate, Mediate], None));
        assert!(needs_hugepages([Mediate], Some(HugepageSize::Gib1)));
    }
}
