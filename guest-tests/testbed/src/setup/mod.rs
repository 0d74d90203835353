// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Installs, downloads and builds what the testbed is made of.
//!
//! Everything that is not a package of the machine's own lies under [`paths::cache`]. A complete
//! cache needs no network: versions are chosen once, noted in `selection`, and chosen again only on
//! request. Kernels that few cases need are built when a machine first boots them, and so is QEMU for
//! machines that count instructions.

mod apt;
mod arch;
mod busybox;
mod compile;
mod flavour;
mod guest_kernel;
mod kernel;
mod qemu;
mod root;
mod selection;
mod tools;

use std::fs::File;

pub use arch::Arch;
pub use busybox::installed as busybox;
pub use flavour::Flavour;
pub use guest_kernel::{
    GuestKernel, installed as guest_kernel, new_installed as new_guest_kernel,
    of_arch as guest_kernel_of, old_installed as old_guest_kernel,
    old_of_arch as old_guest_kernel_of, write_pvh_only,
};
pub use kernel::installed as kernel;
pub use qemu::{FIRMWARE, installed as counting_qemu};
pub use root::installed as root;
pub use selection::Selection;
pub use tools::require_qemu;

use crate::error::{AtPath, Error, Result};
use crate::paths;
use crate::shell::progress;

/// Makes the testbed complete for machines of `arch`. With `update`, takes the newest versions on offer.
///
/// # Errors
/// The first step that failed; what was finished before it stays.
pub fn setup(arch: Arch, update: bool) -> Result<()> {
    let _lock = lock()?;
    tools::install_missing(arch)?;
    let mut selection = match Selection::load(arch)? {
        Some(selection) if !update => selection,
        _ => Selection::choose(arch)?,
    };
    selection.complete()?;
    busybox::install(&selection)?;
    guest_kernel::install(&selection)?;
    root::install(&selection)?;
    kernel::install(&selection)?;
    selection.save()?;
    progress("complete");
    Ok(())
}

/// Installs packages that few cases need, when the first of these runs.
///
/// # Errors
/// [`Error::Missing`] with the command if only root can.
pub fn programs(packages: &[&'static str]) -> Result<()> {
    let _lock = lock()?;
    tools::install(packages)
}

/// Keeps others from changing the cache until the file is closed; waits for them.
fn lock() -> Result<File> {
    let cache = paths::cache()?;
    paths::create_folder(&cache)?;
    let path = cache.join("lock");
    let lock = File::create(&path).at("create", &path)?;
    lock.lock().at("lock", &path)?;
    Ok(lock)
}

/// The error for something that [`setup`] makes.
fn not_set_up(arch: Arch, what: &str) -> Error {
    Error::Missing {
        what: what.into(),
        command: match arch {
            Arch::X86_64 => "cargo testbed setup".into(),
            Arch::Aarch64 => format!("cargo testbed setup --arch {}", arch.name()),
        },
    }
}
