// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Why a host cannot run a guest, if known before any device is touched.

use address::Bdf;
use host::{Encryption, Id, ResolvedDma};
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
        "No IOMMU isolates PCI device {bdf}: it can read and write all memory of the host, so you \
         must trust the guest that controls it as you trust root on the host"
    )]
    NoiommuNotAccepted {
        /// The device.
        bdf: Bdf,
    },
    /// A machine in software has no place for a real device, which uses real addresses only.
    #[error("PCI device {bdf} cannot be used with --software, whose physical memory is synthetic")]
    DeviceWithSoftware {
        /// The device.
        bdf: Bdf,
    },
    /// `--break identity` without identity-mapped memory.
    #[error(
        "--break identity has no effect: no device uses identity-mapped guest memory (dma=identity)"
    )]
    NoIdentity,
    /// The addresses of a device are not those that packed memory has on the bus.
    #[error(
        "PCI device {bdf} (dma={}) cannot be used with layout=packed, in which all devices use physical addresses \
         (dma=identity)",
        mode.name()
    )]
    NotPacked {
        /// The device.
        bdf: Bdf,
        /// Its mode.
        mode: ResolvedDma,
    },
    /// Memory is encrypted by address.
    #[error("{}, so PCI device {bdf} cannot be used without an IOMMU", encryption.meaning())]
    MemoryEncrypted {
        /// The device.
        bdf: Bdf,
        /// By what.
        encryption: Encryption,
    },
    /// The addresses on a device's bus are others than the CPU's.
    #[error(
        "PCI device {bdf}: BAR{} is at {:#x} on its bus and at {:#x} for the CPU: a bridge \
         translates addresses, so the device's DMA would access the wrong memory",
        found.bar, found.bus, found.cpu
    )]
    BusAddresses {
        /// The device.
        bdf: Bdf,
        /// The first BAR that shows it.
        found: TranslatedBar,
    },
    /// Identity was asked for where an IOMMU translates.
    #[error(
        "PCI device {bdf} is behind an IOMMU, which translates its addresses, so dma=identity, \
         translate and mediate do not apply to it"
    )]
    BehindIommu {
        /// The device.
        bdf: Bdf,
    },
    /// It would be opened through its group, which an IOMMU keeps.
    #[error(
        "PCI device {bdf} (dma=iommu) is behind an IOMMU, and the host kernel's group interface (--backend group) is \
         supported only for devices without one"
    )]
    NotOnGroupPath {
        /// The device.
        bdf: Bdf,
    },
    /// An IOMMU was asked for where there is none.
    #[error("PCI device {bdf} is not behind an IOMMU, which dma=iommu requires")]
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
            | Self::NotPacked { .. }
            | Self::NoIdentity => ExitCode::Usage,
            Self::MemoryEncrypted { .. } => ExitCode::Host,
            Self::BehindIommu { .. }
            | Self::NotBehindIommu { .. }
            | Self::NotOnGroupPath { .. }
            | Self::BusAddresses { .. } => ExitCode::Device,
        }
    }

    fn hint(&self, _: Limits) -> Option<String> {
        let text = match self {
            Self::NoiommuNotAccepted { .. } => {
                "if you accept that risk, add --noiommu to the command line"
            }
            Self::MemoryEncrypted { encryption, .. } => encryption.hint(),
            Self::BusAddresses { .. } => {
                "move the device to a slot whose bridge does not translate addresses, or disable \
                 the translating controller (such as Intel VMD) in the host's firmware"
            }
            Self::BehindIommu { .. } => {
                "omit dma=, or use dma=iommu: the IOMMU translates for the device"
            }
            Self::NotOnGroupPath { .. } => {
                "omit --backend group, and do not combine the device with devices that have only a group; devices behind \
                 an IOMMU require a host kernel with CONFIG_VFIO_DEVICE_CDEV"
            }
            Self::NotBehindIommu { .. } => {
                "enable the IOMMU in the host's firmware and on its kernel's command line \
                 (intel_iommu=on); or omit dma=iommu and add --noiommu, if you trust the guest as \
                 root on the host"
            }
            Self::NotPacked { .. } => {
                "omit layout=packed; or use dma=identity for all devices, which requires hugepages"
            }
            Self::NoIdentity => "use a device with dma=identity, or --software",
            Self::DeviceWithSoftware { .. } => "omit --device, or omit --software",
        };
        Some(text.to_owned())
    }

    fn check(&self, _: Limits) -> Option<Id> {
        match self {
            Self::MemoryEncrypted { .. } => Some(Id::MemoryEncryption),
            Self::BusAddresses { .. } => Some(Id::DeviceBars),
            Self::BehindIommu { .. } | Self::NotBehindIommu { .. } => Some(Id::DeviceDmaMode),
            Self::NotOnGroupPath { .. } => Some(Id::DeviceCdev),
            Self::NoiommuNotAccepted { .. }
            | Self::NoIdentity
            | Self::NotPacked { .. }
            | Self::DeviceWithSoftware { .. } => None,
        }
    }
}
