// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Why a host does not run a guest, as far as is known before any device is touched.

use address::Bdf;
use host::{Encryption, Id};
use iommufd_backend::TranslatedBar;
use strum::{EnumDiscriminants, EnumIter, IntoEnumIterator, IntoStaticStr};

use crate::error::explain::{ExitCode, Explain, Limits};

/// What was asked for does not fit this machine.
#[derive(Debug, thiserror::Error, EnumDiscriminants)]
#[strum_discriminants(
    name(InspectErrorKind),
    derive(EnumIter, IntoStaticStr),
    strum(serialize_all = "kebab-case"),
    doc = "The kinds of [`InspectError`]; their names stay."
)]
pub enum InspectError {
    /// The user has not accepted what passing a device through without an IOMMU means.
    #[error(
        "No IOMMU stands between PCI device {bdf} and memory: its driver can read and \
         write all memory of this machine, so its guest must be trusted like root"
    )]
    NoiommuNotAccepted {
        /// The device.
        bdf: Bdf,
    },
    /// A machine in software has no place for a real device, which knows only real addresses.
    #[error("PCI device {bdf} cannot use synthetic physical memory")]
    DeviceWithSoftware {
        /// The device.
        bdf: Bdf,
    },
    /// A layout was asked to be broken that there is not.
    #[error(
        "No device here needs guest memory at its physical addresses, so that cannot be broken"
    )]
    NoIdentity,
    /// Memory is encrypted by address.
    #[error("{}; PCI device {bdf} cannot be used without an IOMMU", encryption.meaning())]
    MemoryEncrypted {
        /// The device.
        bdf: Bdf,
        /// By what.
        encryption: Encryption,
    },
    /// The addresses on a device's bus are others than the CPU's.
    #[error(
        "PCI device {bdf}: BAR{} is at {:#x} on its bus and at {:#x} for the CPU, so addresses \
         mean something else to the device",
        found.bar, found.bus, found.cpu
    )]
    BusAddresses {
        /// The device.
        bdf: Bdf,
        /// The first BAR that shows it.
        found: TranslatedBar,
    },
    /// Identity was asked for where an IOMMU translates.
    #[error("PCI device {bdf} is behind an IOMMU, which does not let physical addresses through")]
    BehindIommu {
        /// The device.
        bdf: Bdf,
    },
    /// An IOMMU was asked for where there is none.
    #[error("No IOMMU stands between PCI device {bdf} and memory")]
    NotBehindIommu {
        /// The device.
        bdf: Bdf,
    },
}

impl Explain for InspectError {
    fn ids() -> Vec<&'static str> {
        InspectErrorKind::iter().map(Into::into).collect()
    }

    fn id(&self) -> &'static str {
        InspectErrorKind::from(self).into()
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::NoiommuNotAccepted { .. }
            | Self::DeviceWithSoftware { .. }
            | Self::NoIdentity => ExitCode::Usage,
            Self::MemoryEncrypted { .. } => ExitCode::Host,
            Self::BehindIommu { .. } | Self::NotBehindIommu { .. } | Self::BusAddresses { .. } => {
                ExitCode::Device
            }
        }
    }

    fn hint(&self, _: Limits) -> Option<String> {
        let text = match self {
            Self::NoiommuNotAccepted { .. } => "if you accept that, add --noiommu",
            Self::MemoryEncrypted { encryption, .. } => encryption.hint(),
            Self::BusAddresses { .. } => {
                "put the device behind a bridge that does not translate: another slot, or a \
                 controller such as VMD turned off in the firmware"
            }
            Self::BehindIommu { .. } => "leave dma= out: the IOMMU translates for the device",
            Self::NotBehindIommu { .. } => "leave dma=iommu out and read what --noiommu means",
            Self::NoIdentity | Self::DeviceWithSoftware { .. } => return None,
        };
        Some(text.to_owned())
    }

    fn check(&self, _: Limits) -> Option<Id> {
        match self {
            Self::MemoryEncrypted { .. } => Some(Id::MemoryEncryption),
            Self::BusAddresses { .. } => Some(Id::DeviceBars),
            Self::BehindIommu { .. } | Self::NotBehindIommu { .. } => Some(Id::DeviceDmaMode),
            Self::NoiommuNotAccepted { .. }
            | Self::NoIdentity
            | Self::DeviceWithSoftware { .. } => None,
        }
    }
}
