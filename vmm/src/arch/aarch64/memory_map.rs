// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What of its memory a guest is told: where RAM is, and nothing else.

use std::ops::Range;

use address::Gpa;

use crate::boot::release::Release;
use crate::bus::address_map::AddressMap;
use crate::config::LowMemory;
use crate::memory::plan::{MemoryPlan, PlanError};

/// Why more pieces of memory than the kernel lists are not safe.
pub const TOO_MANY_PIECES: &str = "memory in more pieces than the kernel lists before it can allocate (mm/memblock.c) is lost to \
     the guest";

/// What a range is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// For any use.
    Ram,
}

impl Kind {
    /// What reports call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ram => "ram",
        }
    }
}

/// A range of guest-physical addresses and its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The addresses.
    pub range: Range<Gpa>,
    /// What they are good for.
    pub kind: Kind,
}

/// The map of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryMap(Vec<Entry>);

impl MemoryMap {
    /// All entries, ascending.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.0.iter()
    }
}

/// What a guest is told of low memory: there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LowMemoryUse;

impl LowMemoryUse {
    /// For a guest whose devices do not use physical addresses.
    pub fn conventional(wanted: LowMemory) -> Self {
        if wanted != LowMemory::Auto {
            log::warn!("There is no low memory on this architecture: --low-memory changes nothing");
        }
        Self
    }

    /// For a guest in the identity layout.
    pub fn identity(wanted: LowMemory, _: Option<Release>) -> Self {
        Self::conventional(wanted)
    }

    /// The kernel's command line: the given one.
    pub fn command_line(self, given: &str) -> &str {
        let Self = self;
        given
    }
}

/// The memory map of a guest.
///
/// # Errors
/// None.
pub(crate) fn memory_map(
    plan: &MemoryPlan,
    _: Option<&AddressMap>,
    _: Gpa,
    _: LowMemoryUse,
) -> Result<MemoryMap, PlanError> {
    let entry = |range| Entry {
        range,
        kind: Kind::Ram,
    };
    Ok(MemoryMap(plan.ranges().into_iter().map(entry).collect()))
}

/// What may come of memory in as many pieces as `plan` has, of which the kernel lists `most`.
pub(crate) fn warnings(plan: &MemoryPlan, _: &MemoryMap, most: usize) -> Vec<String> {
    let pieces = plan.regions().len();
    if pieces <= most {
        return Vec::new();
    }
    vec![format!(
        "Guest memory is in {pieces} pieces, more than the {most} that are safe: {TOO_MANY_PIECES}"
    )]
}
