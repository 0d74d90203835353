// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Why a kernel cannot be loaded.

use std::error::Error;
use std::path::PathBuf;

use host::Id;
use strum::{EnumDiscriminants, EnumIter, IntoEnumIterator, IntoStaticStr};

use super::kernel::KernelError;
use super::place::PlaceError;
use crate::arch::{RELOCATABLE_KERNELS, low};
use crate::error::explain::{ExitCode, Explain, FileError, Limits};
use crate::memory::FRAGMENTED;

/// Guest memory does not take what is to be loaded.
#[derive(Debug, thiserror::Error)]
#[error("Cannot load {what} into guest memory")]
pub struct LoadError {
    /// What was to be loaded.
    pub what: &'static str,
    /// Why not.
    pub source: Box<dyn Error + Send + Sync>,
}

impl Explain for LoadError {
    fn ids() -> Vec<&'static str> {
        vec!["load"]
    }

    fn id(&self) -> &'static str {
        "load"
    }

    fn exit_code(&self) -> ExitCode {
        ExitCode::Usage
    }

    fn hint(&self, _: Limits) -> Option<String> {
        Some(
            "name a regular file that does not change while the guest starts; dmesg on the host \
             shows disk errors"
                .to_owned(),
        )
    }
}

/// A kernel cannot be booted.
#[derive(Debug, thiserror::Error, EnumDiscriminants)]
#[strum_discriminants(
    name(BootErrorKind),
    derive(EnumIter, IntoStaticStr),
    strum(serialize_all = "kebab-case"),
    doc = "The kinds of [`BootError`]; their names stay."
)]
pub enum BootError {
    /// The kernel.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// Places for kernel and initramfs.
    #[error("Cannot load kernel {}", kernel.display())]
    Place {
        /// The kernel.
        kernel: PathBuf,
        /// Why it has no place, or its initramfs.
        source: PlaceError,
    },
    /// Memory does not take the initramfs.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A file does not open.
    #[error(transparent)]
    File(#[from] FileError),
}

impl Explain for BootError {
    fn ids() -> Vec<&'static str> {
        let own = BootErrorKind::iter()
            .filter(|kind| !matches!(kind, BootErrorKind::Load | BootErrorKind::File));
        let own = own.map(Into::into);
        LoadError::ids().into_iter().chain(own).collect()
    }

    fn id(&self) -> &'static str {
        match self {
            Self::Load(error) => error.id(),
            Self::File(error) => error.id(),
            _ => BootErrorKind::from(self).into(),
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Kernel(_) => ExitCode::Usage,
            Self::Place { .. } => ExitCode::Memory,
            Self::Load(error) => error.exit_code(),
            Self::File(error) => error.exit_code(),
        }
    }

    fn hint(&self, limits: Limits) -> Option<String> {
        match self {
            Self::Kernel(error) => usable_kernel(error),
            Self::Place { source, .. } => Some(other_place(source)),
            Self::Load(error) => error.hint(limits),
            Self::File(error) => error.hint(limits),
        }
    }

    fn check(&self, limits: Limits) -> Option<Id> {
        match self {
            Self::Kernel(_) | Self::Place { .. } => None,
            Self::Load(error) => error.check(limits),
            Self::File(error) => error.check(limits),
        }
    }
}

/// How to get a kernel that can be booted.
fn usable_kernel(error: &KernelError) -> Option<String> {
    match error {
        KernelError::NotKernel {
            unpack: Some(command),
            ..
        } => Some(command.clone()),
        KernelError::NotKernel {
            unpack: None, path, ..
        } => Some(format!(
            "name {RELOCATABLE_KERNELS} with --kernel, for example /boot/vmlinuz-VERSION; this \
             shows what the file is: file {}",
            path.display()
        )),
        KernelError::Truncated { path, .. } => {
            Some(format!("copy or build {} again", path.display()))
        }
        KernelError::Unsupported { .. } => Some(format!(
            "boot {RELOCATABLE_KERNELS} of a distribution, for example /boot/vmlinuz-VERSION"
        )),
        KernelError::Read { .. } | KernelError::Load { .. } => None,
    }
}

/// How a kernel comes to have a place.
fn other_place(error: &PlaceError) -> String {
    let hint = match error {
        PlaceError::TooLarge { .. } => "give the guest more memory: --memory SIZE",
        PlaceError::OutOfReach { from, .. } if from.0 < low::SIZE => {
            "link the kernel above the first MiB, or give it a 64-bit entry point, which lets \
             Pinvisor load it anywhere"
        }
        PlaceError::OutOfReach { .. } => {
            return format!(
                "boot a relocatable kernel, such as {RELOCATABLE_KERNELS}; or use dma=iommu, \
                 translate or mediate instead of identity for all devices: guest memory then \
                 begins at GPA 2 MiB"
            );
        }
        PlaceError::TooFragmented { .. } => FRAGMENTED,
    };
    hint.to_owned()
}
