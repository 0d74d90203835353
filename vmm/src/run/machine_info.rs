// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A description of a machine, for reports.

use std::ops::Range;
use std::sync::Arc;

use address::{Gpa, Hpa};

use crate::memory::table::RamTable;

/// Where things are in a machine.
#[derive(Clone, Debug)]
pub struct MachineInfo {
    /// How devices access memory.
    pub backend: &'static str,
    /// Guest RAM above the first MiB, as far as its physical addresses are known.
    pub ram: Arc<RamTable>,
    /// Memory BARs, each with its device's name.
    pub bars: Vec<(String, Range<Gpa>)>,
    /// The kernel's own memory.
    pub kernel: Range<Gpa>,
}

/// `bars` as the guest has them: where the host does.
#[must_use]
pub fn in_guest(bars: Vec<(String, Range<Hpa>)>) -> Vec<(String, Range<Gpa>)> {
    let identity = |range: Range<Hpa>| Gpa(range.start.0)..Gpa(range.end.0);
    bars.into_iter()
        .map(|(name, range)| (name, identity(range)))
        .collect()
}
