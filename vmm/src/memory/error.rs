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
use crate::error::explain::{ExitCode, Explain, Limits, REPORT_BUG};

/// What makes memory less fragmented.
pub const FRAGMENTED: &str = "reserve hugepages on the host kernel's command line (hugepages=N), before \
                              host memory gets fragmented, or use larger ones there \
                              (hugepagesz=1G hugepages=N) and in --memory SIZE,hugepage_size=1G";

/// How guest memory comes to have addresses that can be laid out.
fn other_addresses(error: &PlanError) -> Option<&'static str> {
    match error {
        PlanError::TooFragmented { .. } => Some(FRAGMENTED),
        PlanError::TooHigh { .. } | PlanError::NoRoom { .. } => Some(
            "use a smaller --memory; on a nested host, give the host's virtual CPU more address \
             bits (QEMU: -cpu host,host-phys-bits=on)",
        ),
        PlanError::NothingToSwap => Some("use a larger --memory, or omit --break"),
        PlanError::Overlap { .. } | PlanError::NotPhysical => Some(REPORT_BUG),
    }
}

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
        "The page of guest memory at GPA {gpa} was at HPA {planned} and {}",
        found.map_or("is no longer present".to_owned(), |hpa| format!("is now at HPA {hpa}"))
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
            Self::Moved { .. } => Some(
                "devices may have written to the former address (HPA), so host memory may be \
                 damaged. First run dmesg | grep -i 'memory failure': if it shows a memory error, \
                 that is the cause; if it does not, please report a bug with uname -r and this \
                 error. Then reboot the host"
                    .to_owned(),
            ),
            Self::Plan(error) => other_addresses(error).map(str::to_owned),
            Self::Physical(_) | Self::GuestRam(_) => Some(REPORT_BUG.to_owned()),
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
