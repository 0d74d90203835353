// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Why memory stays pinned, or could not be kept.

use address::Bdf;
use host::Id;
use keeper::KeeperError;
use strum::{EnumDiscriminants, EnumIter, IntoEnumIterator, IntoStaticStr};

use crate::error::explain::{ExitCode, Explain, Limits};

/// What keeps memory pinned that a device may still write to.
#[derive(Debug, thiserror::Error, EnumDiscriminants)]
#[strum_discriminants(
    name(KeepErrorKind),
    derive(EnumIter, IntoStaticStr),
    strum(serialize_all = "kebab-case"),
    doc = "The kinds of [`KeepError`]; their names stay."
)]
pub enum KeepError {
    /// There is no evidence that a device has ended its DMA, so guest memory was not released.
    #[error(
        "PCI device {bdf} could not be stopped from doing DMA, so guest memory stays pinned: \
         process {process} holds {status}"
    )]
    MemoryKept {
        /// The first such device.
        bdf: Bdf,
        /// The process that keeps it.
        process: u32,
        /// What it keeps.
        status: keeper::Status,
    },
    /// The process that keeps memory.
    #[error(transparent)]
    Keeper(#[from] KeeperError),
}

impl Explain for KeepError {
    fn ids() -> Vec<&'static str> {
        KeepErrorKind::iter().map(Into::into).collect()
    }

    fn id(&self) -> &'static str {
        KeepErrorKind::from(self).into()
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::MemoryKept { .. } => ExitCode::Device,
            Self::Keeper(_) => ExitCode::Host,
        }
    }

    fn hint(&self, _: Limits) -> Option<String> {
        match self {
            Self::MemoryKept { bdf, process, .. } => Some(format!(
                "pinvisor release {bdf} resets the device and then releases the memory; do not kill \
                 process {process}: the device could then write to memory that the host reuses"
            )),
            Self::Keeper(KeeperError::Silent { pid, .. }) => Some(format!(
                "check whether process {pid} was killed (dmesg | grep -i 'killed process'), then \
                 run pinvisor list as root"
            )),
            Self::Keeper(_) => None,
        }
    }

    fn check(&self, _: Limits) -> Option<Id> {
        match self {
            Self::MemoryKept { .. } => Some(Id::KeptMemory),
            Self::Keeper(_) => None,
        }
    }
}
