//! What is worth knowing of a run without being a reason to fail.

use address::Gpa;
use stress_format::Mode;
use thiserror::Error;

use crate::report::Report;
use crate::units::{counted, hex};

/// A remark on a report.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Note {
    /// In identity mode, extents at an address that is not their host-physical one.
    #[error(
        "{count} of {} not at the host-physical address that the guest believes: DMA to it \
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
        if count > 0
            && self
                .start
                .as_ref()
                .is_none_or(|start| start.mode == Mode::Identity)
        {
            notes.push(Note::NotIdentity { count, all });
        }
        if !extents.is_empty()
            && let Some(landed) = self.landed.iter().find(|landed| !self.is_known(landed.gpa))
        {
            notes.push(Note::Outside { gpa: landed.gpa });
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

    /// Whether `gpa` is in an extent or a BAR.
    fn is_known(&self, gpa: Gpa) -> bool {
        let extents = self
            .setup
            .extents
            .iter()
            .map(|extent| (extent.gpa, extent.len));
        let bars = self.setup.bars.iter().map(|bar| (bar.gpa, bar.len));
        extents
            .chain(bars)
            .any(|(start, len)| gpa >= start && gpa.0 - start.0 < len)
    }
}
