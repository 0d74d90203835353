// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What is worth knowing of a run without being a reason to fail.

use address::Gpa;
use thiserror::Error;

use crate::report::{Landed, Report};
use crate::units::{counted, hex};

/// A remark on a report.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Note {
    /// In identity mode, extents at an address that is not their host-physical one.
    #[error(
        "{count} of {} not at the host-physical address that the guest assumes: DMA to it \
         goes elsewhere",
        counted(*all as u64, "extent is", "extents are")
    )]
    NotIdentity {
        /// How many.
        count: usize,
        /// Of how many.
        all: usize,
    },
    /// The guest used memory for DMA that is in no extent and no BAR.
    #[error("DMA went to {}, which is neither RAM for DMA nor device memory", hex(gpa.0))]
    Outside {
        /// Where first.
        gpa: Gpa,
    },
    /// Tests that were left out.
    #[error("{} skipped", counted(*count as u64, "test was", "tests were"))]
    Skipped {
        /// How many.
        count: usize,
    },
    /// A list is not complete.
    #[error("{count} more {what} are not in this report")]
    Left {
        /// How many.
        count: u64,
        /// Of what.
        what: &'static str,
    },
    /// Lines that were too long.
    #[error("{} too long and cut", counted(*count, "line of the guest was", "lines of the guest were"))]
    CutLines {
        /// How many.
        count: u64,
    },
}

impl Report {
    /// Remarks, most important first.
    #[must_use]
    pub fn notes(&self) -> Vec<Note> {
        let mut notes = Vec::new();
        let extents = &self.setup.extents;
        let displaced = extents.iter().filter(|extent| !extent.is_identity());
        let (count, all) = (displaced.count(), extents.len());
        if count > 0 && self.wants_identity() {
            notes.push(Note::NotIdentity { count, all });
        }
        if let Some(landed) = self.landed.iter().find(|landed| self.is_stray(landed)) {
            notes.push(Note::Outside { gpa: landed.gpa });
        }
        let skipped = self.tests.iter().filter(|test| test.skipped.is_some());
        let count = skipped.count();
        if count > 0 {
            notes.push(Note::Skipped { count });
        }
        let left = &self.left;
        for (count, what) in [
            (left.tests, "tests"),
            (left.findings, "findings"),
            (left.engines, "engines"),
            (left.ram, "pieces of RAM"),
            (left.landed, "pieces of memory where DMA went"),
            (left.latency, "bars of the histogram"),
        ] {
            if count > 0 {
                notes.push(Note::Left { count, what });
            }
        }
        if left.cut_lines > 0 {
            notes.push(Note::CutLines {
                count: left.cut_lines,
            });
        }
        notes
    }

    /// Whether DMA went where neither RAM for DMA nor a BAR is, as far as that is known.
    pub(crate) fn is_stray(&self, landed: &Landed) -> bool {
        let extents = self.setup.extents.iter();
        let extents = extents.map(|extent| (extent.gpa, extent.len));
        let bars = self.setup.bars.iter().map(|bar| (bar.gpa, bar.len));
        let overlaps = |(start, len): (Gpa, u64)| {
            let (end, landed_end) = (start.0.saturating_add(len), landed.end());
            landed.gpa.0 < end && start.0 < landed_end
        };
        !self.setup.extents.is_empty() && !extents.chain(bars).any(overlaps)
    }
}
