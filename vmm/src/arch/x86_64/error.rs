// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Why a guest cannot be described to its kernel, or its CPUs cannot be set up.

use host::Id;
use strum::{EnumDiscriminants, EnumIter, IntoEnumIterator, IntoStaticStr};

use super::acpi::AcpiError;
use super::boot::params::ParamsError;
use super::entry::EntryError;
use super::page_tables::NoRoomError;
use crate::boot::LoadError;
use crate::error::explain::{ExitCode, Explain, Limits, REPORT_BUG};
use crate::memory::{FRAGMENTED, LayoutError};

/// What a kernel begins with cannot be made.
#[derive(Debug, thiserror::Error, EnumDiscriminants)]
#[strum_discriminants(
    name(ArchErrorKind),
    derive(EnumIter, IntoStaticStr),
    strum(serialize_all = "kebab-case"),
    doc = "The kinds of [`ArchError`]; their names stay."
)]
pub enum ArchError {
    /// The command line for the kernel.
    #[error(transparent)]
    Params(#[from] ParamsError),
    /// vCPU state.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// Boot page tables.
    #[error(transparent)]
    PageTables(#[from] NoRoomError),
    /// ACPI tables.
    #[error(transparent)]
    Acpi(#[from] AcpiError),
    /// Memory does not take it.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Memory has no layout that can be described.
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

impl Explain for ArchError {
    fn ids() -> Vec<&'static str> {
        let own = ArchErrorKind::iter()
            .filter(|kind| !matches!(kind, ArchErrorKind::Load | ArchErrorKind::Layout));
        own.map(Into::into).collect()
    }

    fn id(&self) -> &'static str {
        match self {
            Self::Load(error) => error.id(),
            Self::Layout(error) => error.id(),
            _ => ArchErrorKind::from(self).into(),
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Params(_) => ExitCode::Usage,
            Self::Entry(_) | Self::PageTables(_) | Self::Acpi(_) => ExitCode::Host,
            Self::Load(error) => error.exit_code(),
            Self::Layout(error) => error.exit_code(),
        }
    }

    fn hint(&self, limits: Limits) -> Option<String> {
        match self {
            Self::Params(ParamsError::Unbootable { word, .. }) => {
                Some(format!("remove {word} from --cmdline"))
            }
            Self::Params(ParamsError::CommandLineTooLong { .. }) => {
                Some("shorten --cmdline; Pinvisor may add a few words to it".to_owned())
            }
            Self::Params(ParamsError::CommandLineNul) => {
                Some("remove the NUL character from --cmdline".to_owned())
            }
            Self::Params(ParamsError::MapTooLong { .. }) => Some(FRAGMENTED.to_owned()),
            Self::PageTables(_) | Self::Acpi(_) => Some(REPORT_BUG.to_owned()),
            Self::Params(ParamsError::Write(_)) | Self::Entry(_) => None,
            Self::Load(error) => error.hint(limits),
            Self::Layout(error) => error.hint(limits),
        }
    }

    fn check(&self, limits: Limits) -> Option<Id> {
        match self {
            Self::Params(_) | Self::Entry(_) | Self::PageTables(_) | Self::Acpi(_) => None,
            Self::Load(error) => error.check(limits),
            Self::Layout(error) => error.check(limits),
        }
    }
}
