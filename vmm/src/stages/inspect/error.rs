// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Why a host cannot run a guest, if known before any device is touched.

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
        "No IOMMU isolates PCI device {bdf}: its driver can read and write all memory of this \
         machine, so its guest must be trusted like root"
    )]
    NoiommuNotAccepted {
        /// The device.
        bdf: Bdf,
    },
    /// A machine in software has no place for a real device, which uses real addresses only.
    #[error("PCI device {bdf} cannot use synthetic physical memory")]
    DeviceWithSoftware {
        /// The device.
        bdf: Bdf,
    },
    /// `--break identity` without identity-mapped memory.
    #[error("No device uses identity-mapped guest memory, so --break identity has no effect")]
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
        "PCI device {bdf}: BAR{} is at {:#x} on its bus and at {:#x} for the CPU, so the device \
         and the CPU use different addresses",
        found.bar, found.bus, found.cpu
    )]
    BusAddresses {
        /// The device.
        bdf: Bdf,
        /// The first BAR that shows it.
        found: TranslatedBar,
    },
    /// Identity was asked for where an IOMMU translates.
    #[error("PCI device {bdf} is behind an IOMMU, so it cannot use physical addresses")]
    BehindIommu {
        /// The device.
        bdf: Bdf,
    },
    /// An IOMMU was asked for where there is none.
    #[error("No IOMMU translates for PCI device {bdf}")]
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
                "use a slot whose bridge does not translate addresses, or disable a controller \
                 such as VMD in the firmware"
            }
            Self::BehindIommu { .. } => "omit dma=: the IOMMU translates for the device",
            Self::NotBehindIommu { .. } => "omit dma=iommu, and read what --noiommu means",
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
