// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What `dma=auto` is for devices without an IOMMU: decided once for a guest, before any of them is touched.

use address::Bdf;
use iommufd_backend::CdevKind;
use iommufd_backend::hugepages::HugepageSize;

use crate::facts::device::cdev_kind;
use crate::facts::dma_mode::{DmaMode, ResolvedDma};
use crate::facts::guarded::{guard_obstacle, is_nvme};
use crate::sys_root::SysRoot;
use crate::wanted::WantedMemory;

/// What [`DmaMode::Auto`] is for the devices of a guest that have no IOMMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoDma {
    /// Memory at its physical addresses.
    Identity,
    /// Guarded NVMe: the pool does not have the hugepages for an identity layout, no device needs one, and all that
    /// leave the choice are NVMe controllers that can be guarded.
    Guarded(TooFewHugepages),
}

/// The pool does not have the hugepages that an identity layout is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "an identity layout requires {need} free hugepages of {size}, of which {available} are available"
)]
pub struct TooFewHugepages {
    /// Their size.
    pub size: HugepageSize,
    /// How many are required.
    pub need: u64,
    /// How many are free and not reserved.
    pub available: u64,
}

impl AutoDma {
    /// Decides for `devices`, each with the mode that was asked for, in a guest with this memory, as far as it is known.
    pub fn decide(
        root: &SysRoot,
        devices: impl IntoIterator<Item = (Bdf, DmaMode)>,
        memory: Option<&WantedMemory>,
    ) -> Self {
        let mut leaves_choice = false;
        for (bdf, dma) in devices {
            if cdev_kind(root, bdf) == CdevKind::Iommu {
                continue;
            }
            let is_guardable = || is_nvme(root, bdf) && guard_obstacle(root, bdf).is_none();
            match dma {
                DmaMode::Auto if is_guardable() => leaves_choice = true,
                DmaMode::Auto | DmaMode::Identity => return Self::Identity,
                DmaMode::Iommu | DmaMode::Translate | DmaMode::Mediate => {}
            }
        }
        match missing(root, memory).filter(|_| leaves_choice) {
            Some(missing) => Self::Guarded(missing),
            None => Self::Identity,
        }
    }

    /// The mode that it is.
    pub(crate) fn mode(&self) -> ResolvedDma {
        match self {
            Self::Identity => ResolvedDma::Identity,
            Self::Guarded(_) => ResolvedDma::Mediate,
        }
    }
}

/// The hugepages that are missing for an identity layout. Memory that was asked for in hugepages of a certain size needs
/// them in every layout. Where its size is not known, one page of any size shows that there is a pool. A pool that cannot
/// be read is an error of the run, not a missing one.
fn missing(root: &SysRoot, memory: Option<&WantedMemory>) -> Option<TooFewHugepages> {
    let short = |size: HugepageSize, need: u64| {
        let available = root.hugepages(size).ok()?.available();
        (available < need).then_some(TooFewHugepages {
            size,
            need,
            available,
        })
    };
    match memory {
        Some(memory) if memory.hugepage_size.is_some() => None,
        Some(memory) => short(
            HugepageSize::Mib2,
            HugepageSize::Mib2.pages_for(memory.bytes),
        ),
        None => {
            let missing = HugepageSize::ALL.map(|size| short(size, 1));
            let is_all = missing.iter().all(Option::is_some);
            missing.into_iter().next().flatten().filter(|_| is_all)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys_root::tests::Fake;

    const MEMORY: WantedMemory = WantedMemory {
        bytes: 64 << 20,
        hugepage_size: None,
    };

    fn pool(fake: &Fake, kib: u64, free: u64, reserved: u64) {
        let pool = format!("sys/kernel/mm/hugepages/hugepages-{kib}kB");
        for (name, count) in [
            ("nr_hugepages", free),
            ("free_hugepages", free),
            ("resv_hugepages", reserved),
        ] {
            fake.write(&format!("{pool}/{name}"), &count.to_string());
        }
    }

    /// A machine with an NVMe controller, and a device of another class.
    fn machine() -> (Fake, Bdf, Bdf) {
        let fake = Fake::new();
        let disk = fake.disk();
        let real = "sys/devices/pci0000:00/0000:00:04.0";
        fake.write(&format!("{real}/class"), "0x020000\n");
        fake.link("sys/bus/pci/devices/0000:00:04.0", real);
        (fake, disk, "00:04.0".parse().unwrap())
    }

    #[test]
    fn the_pool_of_hugepages_decides_for_nvme_controllers() {
        let (fake, disk, _) = machine();
        let decide = || AutoDma::decide(&fake.root, [(disk, DmaMode::Auto)], Some(&MEMORY));
        let missing = |available| {
            AutoDma::Guarded(TooFewHugepages {
                size: HugepageSize::Mib2,
                need: 32,
                available,
            })
        };
        assert_eq!(decide(), missing(0), "a kernel without hugepages");
        pool(&fake, 2048, 33, 2);
        assert_eq!(decide(), missing(31), "those that others reserved");
        assert_eq!(decide().mode(), ResolvedDma::Mediate);
        pool(&fake, 2048, 33, 1);
        assert_eq!(decide(), AutoDma::Identity);
        pool(&fake, 2048, 0, 0);
        pool(&fake, 1_048_576, 1, 0);
        assert_eq!(decide(), missing(0), "memory is of the smaller ones");
        let unknown = AutoDma::decide(&fake.root, [(disk, DmaMode::Auto)], None);
        assert_eq!(unknown, AutoDma::Identity, "there is a pool");
        pool(&fake, 1_048_576, 0, 0);
        let unknown = AutoDma::decide(&fake.root, [(disk, DmaMode::Auto)], None);
        assert_eq!(unknown.mode(), ResolvedDma::Mediate);
        fake.write(
            "sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages",
            "many",
        );
        assert_eq!(decide(), AutoDma::Identity, "the run returns the error");
    }

    #[test]
    fn memory_of_hugepages_needs_them_whatever_the_mode() {
        let (fake, disk, _) = machine();
        let memory = WantedMemory {
            hugepage_size: Some(HugepageSize::Mib2),
            ..MEMORY
        };
        let auto = AutoDma::decide(&fake.root, [(disk, DmaMode::Auto)], Some(&memory));
        assert_eq!(auto, AutoDma::Identity);
    }

    #[test]
    fn a_device_that_needs_an_identity_layout_decides_for_all() {
        use DmaMode::{Auto, Identity, Iommu, Mediate, Translate};
        let (fake, disk, card) = machine();
        let decide = |devices: &[(Bdf, DmaMode)]| {
            let devices = devices.iter().copied();
            AutoDma::decide(&fake.root, devices, Some(&MEMORY)).mode()
        };
        let guarded = ResolvedDma::Mediate;
        for (card_has, wanted) in [
            (Auto, ResolvedDma::Identity),
            (Identity, ResolvedDma::Identity),
            (Mediate, guarded),
            (Translate, guarded),
            (Iommu, guarded),
        ] {
            let found = decide(&[(disk, Auto), (card, card_has)]);
            assert_eq!(found, wanted, "{card_has:?}");
        }
        assert_eq!(decide(&[(card, Auto)]), ResolvedDma::Identity);
        assert_eq!(decide(&[]), ResolvedDma::Identity);
        // An IOMMU translates for the card: it takes memory at any address.
        fake.directory("sys/bus/pci/devices/0000:00:04.0/vfio-dev/vfio0");
        assert_eq!(decide(&[(disk, Auto), (card, Auto)]), guarded);
    }

    #[test]
    fn a_controller_that_cannot_be_guarded_needs_an_identity_layout() {
        let (fake, disk, _) = machine();
        fake.directory("sys/bus/pci/devices/0000:01:00.0/physfn");
        let auto = AutoDma::decide(&fake.root, [(disk, DmaMode::Auto)], Some(&MEMORY));
        assert_eq!(auto, AutoDma::Identity);
    }
}
