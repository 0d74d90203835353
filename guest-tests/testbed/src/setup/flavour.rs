// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The kinds of test-machine kernel, and their configurations.

use super::arch::Arch;

const BASE: &str = include_str!("../../kernel/base.config");
const FULL: &str = include_str!("../../kernel/full.config");
const GROUPS: &str = include_str!("../../kernel/groups.config");
const GROUP_PATH: &str = include_str!("../../kernel/group-path.config");
const VFIO_CONTAINER: &str = include_str!("../../kernel/vfio-container.config");
const AARCH64: &str = include_str!("../../kernel/aarch64.config");

/// Parts of the names of options that other architectures do not have, or that mean nothing on the test machine.
const OF_X86: [&str; 12] = [
    "X86",
    "INTEL",
    "AMD",
    "PARAVIRT",
    "PVH",
    "KVM_GUEST",
    "HYPERVISOR_GUEST",
    "KERNEL_GZIP",
    "CPU_MITIGATIONS",
    "ACPI",
    "PCI_MMCONFIG",
    "IRQ_REMAP",
];

/// A kind of test-machine kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Flavour {
    /// VFIO groups and character devices.
    Groups,
    /// Character devices only.
    NoGroups,
    /// No noiommu mode.
    NoNoiommu,
    /// No KVM, no `/dev/iommu`, no VFIO, no hugepages.
    Bare,
    /// Debian 13's Linux: VFIO groups only, no iommufd.
    Old,
    /// Debian 13's Linux, where iommufd serves the container of VFIO groups. Built when first used.
    OldIommufd,
    /// VFIO groups only, no iommufd. Built when first used.
    NoIommufd,
    /// The first one with pages of 64 KiB, for aarch64. Built when first used.
    #[value(name = "pages-64k")]
    Pages64k,
}

/// Which sources a kernel is built from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// The newest, with noiommu mode of character devices.
    New,
    /// Those of a release of Debian, without it.
    Old,
}

impl Flavour {
    /// All of them, in the order in which they are built.
    pub const ALL: [Self; 8] = [
        Self::Groups,
        Self::NoGroups,
        Self::NoNoiommu,
        Self::Bare,
        Self::Old,
        Self::OldIommufd,
        Self::NoIommufd,
        Self::Pages64k,
    ];

    /// Those that the set-up builds for machines of `arch`.
    pub fn of_setup(arch: Arch) -> &'static [Self] {
        match arch {
            Arch::X86_64 => &[
                Self::Groups,
                Self::NoGroups,
                Self::NoNoiommu,
                Self::Bare,
                Self::Old,
            ],
            Arch::Aarch64 => &[Self::Groups],
        }
    }

    /// Whether it is built when a machine first boots it, not by the set-up.
    pub fn is_built_when_used(self, arch: Arch) -> bool {
        !Self::of_setup(arch).contains(&self)
    }

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Groups => "groups",
            Self::NoGroups => "no-groups",
            Self::NoNoiommu => "no-noiommu",
            Self::Bare => "bare",
            Self::Old => "old",
            Self::OldIommufd => "old-iommufd",
            Self::NoIommufd => "no-iommufd",
            Self::Pages64k => "pages-64k",
        }
    }

    /// Its sources.
    pub fn age(self) -> Age {
        match self {
            Self::Groups
            | Self::NoGroups
            | Self::NoNoiommu
            | Self::Bare
            | Self::NoIommufd
            | Self::Pages64k => Age::New,
            Self::Old | Self::OldIommufd => Age::Old,
        }
    }

    /// What building it takes on two cores, after the flavours before it: objects are shared.
    pub fn expected(self) -> &'static str {
        match self {
            Self::Groups | Self::Pages64k => "7 minutes",
            Self::NoGroups | Self::NoNoiommu => "30 seconds",
            Self::Bare | Self::NoIommufd => "3 minutes",
            Self::Old => "6 minutes",
            Self::OldIommufd => "4 minutes",
        }
    }

    /// The lines of its configuration that are not the default.
    pub fn config(self, arch: Arch) -> String {
        let all = self.config_of_pc();
        match arch {
            Arch::X86_64 => all,
            Arch::Aarch64 => {
                let is_common = |line: &&str| !OF_X86.iter().any(|part| line.contains(part));
                let common: Vec<_> = all.lines().filter(is_common).collect();
                [&common.join("\n"), "\n", AARCH64].concat()
            }
        }
    }

    fn config_of_pc(self) -> String {
        let parts: &[&str] = match self {
            Self::Groups => &[BASE, FULL, GROUPS],
            Self::Pages64k => &[
                BASE,
                FULL,
                GROUPS,
                include_str!("../../kernel/pages-64k.config"),
            ],
            Self::NoGroups => &[BASE, FULL, include_str!("../../kernel/no-groups.config")],
            Self::NoNoiommu => &[BASE, FULL, include_str!("../../kernel/no-noiommu.config")],
            Self::Bare => &[BASE, include_str!("../../kernel/bare.config")],
            Self::Old | Self::NoIommufd => &[BASE, GROUP_PATH, VFIO_CONTAINER],
            Self::OldIommufd => &[
                BASE,
                GROUP_PATH,
                include_str!("../../kernel/iommufd-container.config"),
            ],
        };
        parts.concat()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn flavours_differ() {
        let made: HashSet<_> = Flavour::ALL
            .map(|flavour| (flavour.age() == Age::Old, flavour.config(Arch::X86_64)))
            .into();
        assert_eq!(made.len(), Flavour::ALL.len());
    }

    #[test]
    fn every_flavour_of_a_pc_is_built_at_one_time() {
        for flavour in Flavour::ALL {
            let is_of_setup = Flavour::of_setup(Arch::X86_64).contains(&flavour);
            assert_ne!(is_of_setup, flavour.is_built_when_used(Arch::X86_64));
        }
    }

    #[test]
    fn nothing_of_a_pc_is_asked_of_another_architecture() {
        let config = Flavour::Groups.config(Arch::Aarch64);
        for (line, expected) in [
            ("CONFIG_KVM_AMD=y", false),
            ("CONFIG_ACPI=y", false),
            ("CONFIG_KVM=y", true),
            ("CONFIG_IOMMUFD_NOIOMMU=y", true),
            ("CONFIG_ARM_GIC_V3_ITS=y", true),
        ] {
            assert_eq!(
                config.lines().any(|found| found == line),
                expected,
                "{line}"
            );
        }
    }
}
