// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The capabilities by which a guest programs message-signalled interrupts, one file for each kind.

mod capability;
mod msi;
mod msix;

use super::report::Reporter;

pub(super) use capability::{Device, MessageCapability, Part, Structure, Written};

type Finder = fn(Device<'_>, &mut Reporter) -> capability::Found;

/// One for each kind. Where a guest has turned several on, the first counts.
const FINDERS: [Finder; 2] = [msix::find, msi::find];

/// The capabilities that `device` has.
pub(super) fn find(device: Device<'_>, reporter: &mut Reporter) -> Vec<Box<dyn MessageCapability>> {
    let finders = FINDERS.into_iter();
    finders.filter_map(|find| find(device, reporter)).collect()
}
