// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Errors of an option's value, and of combinations.

use std::fmt;

use address::Bdf;
use host::{DmaMode, Id};
use iommufd_backend::hugepages::HugepageSize;
use strum::{EnumDiscriminants, EnumIter, IntoEnumIterator, IntoStaticStr};

use crate::bus::slots::TooManyDevices;
use crate::error::explain::{ExitCode, Explain, Limits};

/// An option's value cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The text is not in the option's grammar.
    #[error("{0}")]
    Text(String),
    /// Not a whole number of hugepages.
    #[error(
        "the size must be a multiple of the hugepage size {page_size} and not 0, found {size} bytes"
    )]
    NotWholePages {
        /// The size in bytes.
        size: u64,
        /// The hugepage size.
        page_size: HugepageSize,
    },
    /// A profile for a device whose registers are not mediated.
    #[error("profile=FILE requires dma=mediate")]
    ProfileWithoutMediate,
    /// Polling of a device that is not guarded.
    #[error("poll=auto|on|off requires dma=mediate without profile=FILE")]
    PollWithoutGuard,
    /// The guest could not be told where memory is for devices.
    #[error(
        "layout=packed requires a guest with a device tree, that is an aarch64 guest: no other is told where its memory \
         is for devices"
    )]
    PackedWithoutTree,
    /// A virtual IOMMU.
    #[error(
        "iommu=on: guests get no IOMMU, because nothing would enforce its mappings on the device, \
         which would use the guest's I/O virtual addresses as physical ones"
    )]
    GuestIommu,
}

impl serde::de::Error for ConfigError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Text(message.to_string())
    }
}

/// What was asked for does not fit together, whatever the host is.
#[derive(Debug, thiserror::Error, EnumDiscriminants)]
#[strum_discriminants(
    name(ValidateErrorKind),
    derive(EnumIter, IntoStaticStr),
    strum(serialize_all = "kebab-case"),
    doc = "The kinds of [`ValidateError`]; their names stay."
)]
pub enum ValidateError {
    /// A value that no parser refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The same device was named twice.
    #[error("PCI device {bdf} is named twice")]
    DeviceTwice {
        /// The device.
        bdf: Bdf,
    },
    /// Guest memory cannot be laid out for both of two devices.
    #[error(
        "PCI device {other} (dma={}) cannot share a guest with PCI device {translate} \
         (dma=translate): dma=translate can be combined only with dma=translate and dma=mediate",
        mode.name()
    )]
    MixedModes {
        /// The device whose guest translates.
        translate: Bdf,
        /// The other one.
        other: Bdf,
        /// The mode of the other one.
        mode: DmaMode,
    },
    /// The bus has too few slots.
    #[error(transparent)]
    TooManyDevices(#[from] TooManyDevices),
}

impl Explain for ValidateError {
    fn ids() -> Vec<&'static str> {
        let own =
            ValidateErrorKind::iter().filter(|kind| *kind != ValidateErrorKind::TooManyDevices);
        let own = own.map(Into::into);
        TooManyDevices::ids().into_iter().chain(own).collect()
    }

    fn id(&self) -> &'static str {
        match self {
            Self::TooManyDevices(error) => error.id(),
            _ => ValidateErrorKind::from(self).into(),
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Config(_) | Self::DeviceTwice { .. } | Self::MixedModes { .. } => ExitCode::Usage,
            Self::TooManyDevices(error) => error.exit_code(),
        }
    }

    fn hint(&self, limits: Limits) -> Option<String> {
        match self {
            Self::MixedModes { .. } => {
                Some("run them in separate guests, or use dma=translate for both".to_owned())
            }
            Self::DeviceTwice { .. } => Some(
                "name the device once, on the command line or in the file of --config".to_owned(),
            ),
            Self::Config(_) => None,
            Self::TooManyDevices(error) => error.hint(limits),
        }
    }

    fn check(&self, limits: Limits) -> Option<Id> {
        match self {
            Self::MixedModes { .. } => Some(Id::DeviceDmaMode),
            Self::Config(_) | Self::DeviceTwice { .. } => None,
            Self::TooManyDevices(error) => error.check(limits),
        }
    }
}
