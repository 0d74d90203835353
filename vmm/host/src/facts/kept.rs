// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Guest memory that a keeper keeps pinned, because a device could not be made quiet.

use address::Bdf;
use keeper::Found;

use crate::sys_root::SysRoot;

/// All keepers that the caller may ask, in the order of their process numbers.
pub(crate) fn keepers(root: &SysRoot) -> Vec<Found> {
    let directory = keeper::DIRECTORY.trim_start_matches('/');
    keeper::find(&root.path(directory))
}

/// The keepers that keep memory for `bdf`.
#[must_use]
pub fn of_device(root: &SysRoot, bdf: Bdf) -> Vec<Found> {
    let mut keepers = keepers(root);
    keepers.retain(|found| found.status.devices.iter().any(|device| device.bdf == bdf));
    keepers
}
