//! What is to be run, as far as a host has to have something for it.

use address::Bdf;
use iommufd_backend::hugepages::HugepageSize;
use iommufd_backend::{Cdev, CdevKind};
use strum::{EnumIter, IntoStaticStr};

use crate::facts::iommu::iommus;
use crate::sys_root::SysRoot;

/// How a device's DMA reaches guest memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum DmaMode {
    /// By the IOMMU if there is one, else by identity.
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

impl DmaMode {
    /// The name by which it is selected.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// The mode that a run uses for a device of this `kind`, never [`Auto`](Self::Auto); `None` if such a
    /// device cannot have it.
    #[must_use]
    pub fn resolve(self, kind: CdevKind) -> Option<Self> {
        match (kind, self) {
            (CdevKind::Iommu, Self::Auto | Self::Iommu) => Some(Self::Iommu),
            (CdevKind::Noiommu, Self::Auto) => Some(Self::Identity),
            (CdevKind::Iommu, _) | (CdevKind::Noiommu, Self::Iommu) => None,
            (CdevKind::Noiommu, mode) => Some(mode),
        }
    }
}

/// A device that a run is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedDevice {
    /// Its name on the host.
    pub bdf: Bdf,
    /// How its DMA is to reach guest memory.
    pub dma: DmaMode,
    /// Why it has no register profile; only [`DmaMode::Mediate`] needs one.
    pub no_profile: Option<String>,
    /// Whether it may be used although it cannot be reset.
    pub allow_no_reset: bool,
}

impl From<Bdf> for WantedDevice {
    fn from(bdf: Bdf) -> Self {
        Self {
            bdf,
            dma: DmaMode::Auto,
            no_profile: None,
            allow_no_reset: false,
        }
    }
}

impl WantedDevice {
    /// Its mode in a run; `None` if it cannot have the one that is wanted.
    pub(crate) fn mode(&self, root: &SysRoot) -> Option<DmaMode> {
        self.dma.resolve(kind(root, self.bdf))
    }
}

/// Whether an IOMMU translates for a device: as its node says, or before it has one, its group.
fn kind(root: &SysRoot, bdf: Bdf) -> CdevKind {
    match Cdev::name(root.pci(), bdf).ok().flatten() {
        Some((_, kind)) => kind,
        None if root.is_behind_iommu(bdf) => CdevKind::Iommu,
        None => CdevKind::Noiommu,
    }
}

/// Guest memory that a run is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WantedMemory {
    /// Bytes.
    pub bytes: u64,
    /// What it is made of, where that was said.
    pub hugepage_size: Option<HugepageSize>,
}

/// What is to be run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Devices to pass through.
    pub devices: Vec<WantedDevice>,
    /// Guest memory, if known.
    pub memory: Option<WantedMemory>,
}

impl Wanted {
    /// The devices' names.
    pub(crate) fn names(&self) -> Vec<Bdf> {
        self.devices.iter().map(|device| device.bdf).collect()
    }

    /// Whether guest memory has to be made of hugepages: where it is at its physical addresses, or
    /// where that was asked for. Without any device, what the machine has decides.
    pub(crate) fn needs_hugepages(&self, root: &SysRoot) -> bool {
        let is_asked_for = self
            .memory
            .is_some_and(|memory| memory.hugepage_size.is_some());
        let is_identity = |device: &WantedDevice| device.mode(root) == Some(DmaMode::Identity);
        is_asked_for
            || match self.devices.as_slice() {
                [] => iommus(root).is_empty(),
                devices => devices.iter().any(is_identity),
            }
    }
}

#[cfg(test)]
mod tests {
    use strum::IntoEnumIterator;

    use super::*;
    use crate::sys_root::tests::Fake;

    #[test]
    fn a_mode_follows_from_the_kind_of_device() {
        use DmaMode::{Auto, Identity, Iommu, Mediate, Translate};
        for (mode, behind, without) in [
            (Auto, Some(Iommu), Some(Identity)),
            (Iommu, Some(Iommu), None),
            (Identity, None, Some(Identity)),
            (Translate, None, Some(Translate)),
            (Mediate, None, Some(Mediate)),
        ] {
            assert_eq!(mode.resolve(CdevKind::Iommu), behind, "{mode:?}");
            assert_eq!(mode.resolve(CdevKind::Noiommu), without, "{mode:?}");
        }
        let names: Vec<_> = DmaMode::iter().map(DmaMode::name).collect();
        assert_eq!(names, ["auto", "iommu", "identity", "translate", "mediate"]);
    }

    #[test]
    fn a_node_says_more_than_a_group() {
        let fake = Fake::new();
        let disk = fake.disk();
        let mode = || WantedDevice::from(disk).mode(&fake.root);
        assert_eq!(mode(), Some(DmaMode::Identity));
        fake.write("sys/kernel/iommu_groups/7/type", "DMA\n");
        fake.link(
            "sys/bus/pci/devices/0000:01:00.0/iommu_group",
            "sys/kernel/iommu_groups/7",
        );
        assert_eq!(mode(), Some(DmaMode::Iommu));
        fake.directory("sys/bus/pci/devices/0000:01:00.0/vfio-dev/noiommu-vfio0");
        assert_eq!(mode(), Some(DmaMode::Identity));
    }

    #[test]
    fn only_identity_memory_has_to_be_of_hugepages() {
        let fake = Fake::new();
        let disk = fake.disk();
        let needs = |modes: &[DmaMode], hugepage_size| {
            let device = |dma: &DmaMode| WantedDevice {
                dma: *dma,
                ..disk.into()
            };
            let wanted = Wanted {
                devices: modes.iter().map(device).collect(),
                memory: Some(WantedMemory {
                    bytes: 1 << 30,
                    hugepage_size,
                }),
            };
            wanted.needs_hugepages(&fake.root)
        };
        assert!(needs(&[], None));
        assert!(needs(&[DmaMode::Auto], None));
        assert!(!needs(&[DmaMode::Mediate], None));
        assert!(!needs(&[DmaMode::Translate], None));
        assert!(needs(&[DmaMode::Mediate, DmaMode::Identity], None));
        assert!(needs(&[DmaMode::Mediate], Some(HugepageSize::Gib1)));
        fake.directory("sys/class/iommu/dmar0");
        assert!(!needs(&[], None));
    }
}
