// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Why guest memory is not, or does not stay, at the addresses that devices and the guest use.

use address::{Gpa, Hpa};
use devices::guest_table::TableError;
use host::Id;
use iommufd_backend::Error as Backend;
use strum::{EnumDiscriminants, EnumIter, IntoEnumIterator, IntoStaticStr};

use super::guest::GuestRamError;
use super::pieces::TooManyPieces;
use super::plan::PlanError;
use crate::error::explain::{ExitCode, Explain, Limits};

/// What makes memory less fragmented.
pub const FRAGMENTED: &str = "reserve hugepages on the kernel's command line (hugepages=N), before memory \
                              gets fragmented, or use larger ones (hugepagesz=1G hugepages=N)";

/// Guest memory has no layout that suits, or left it.
#[derive(Debug, thiserror::Error, EnumDiscriminants)]
#[strum_discriminants(
    name(LayoutErrorKind),
    derive(EnumIter, IntoStaticStr),
    strum(serialize_all = "kebab-case"),
    doc = "The kinds of [`LayoutError`]; their names stay."
)]
pub enum LayoutError {
    /// The layout of guest memory.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Identity memory in more pieces than are safe.
    #[error(transparent)]
    TooManyPieces(#[from] TooManyPieces),
    /// Physical addresses that no table can hold.
    #[error(transparent)]
    Physical(#[from] TableError),
    /// Guest memory in this process.
    #[error(transparent)]
    GuestRam(#[from] GuestRamError),
    /// A page of guest memory is not at the address that devices use.
    #[error(
        "The page of guest memory at {gpa} was at {planned} and {}",
        found.map_or("is gone".to_owned(), |hpa| format!("is now at {hpa}"))
    )]
    Moved {
        /// Where the guest has it.
        gpa: Gpa,
        /// Where it was when it was pinned.
        planned: Hpa,
        /// Where it is, if there is a page.
        found: Option<Hpa>,
    },
    /// The kernel refuses a mapping.
    #[error(transparent)]
    Backend(#[from] Backend),
}

impl Explain for LayoutError {
    fn ids() -> Vec<&'static str> {
        let own = LayoutErrorKind::iter().filter(|kind| *kind != LayoutErrorKind::Backend);
        own.map(Into::into).collect()
    }

    fn id(&self) -> &'static str {
        match self {
            Self::Backend(error) => error.id(),
            _ => LayoutErrorKind::from(self).into(),
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::TooManyPieces(_) | Self::Plan(_) | Self::Physical(_) | Self::GuestRam(_) => {
                ExitCode::Memory
            }
            Self::Moved { .. } => ExitCode::Device,
            Self::Backend(error) => error.exit_code(),
        }
    }

    fn hint(&self, limits: Limits) -> Option<String> {
        match self {
            Self::TooManyPieces(error) => Some(error.hint()),
            Self::Plan(PlanError::TooFragmented { .. }) => Some(FRAGMENTED.to_owned()),
            Self::Moved { .. } => Some(
                "devices continued to use the page at its former address: restart this machine. A \
                 process removed the page from the memory file, or memory failed (dmesg | grep -i \
                 'memory failure'); otherwise please report it"
                    .to_owned(),
            ),
            Self::Plan(_) | Self::Physical(_) | Self::GuestRam(_) => None,
            Self::Backend(error) => Explain::hint(error, limits),
        }
    }

    fn check(&self, limits: Limits) -> Option<Id> {
        match self {
            Self::Backend(error) => error.check(limits),
            _ => None,
        }
    }
}
