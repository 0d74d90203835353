// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A device before it is bound: its state in sysfs.

use std::ops::Range;

use address::{Bdf, Hpa};
use iommufd_backend::{CdevKind, DmaWidth, Leftover, PciSysfs, REGIONS, Resource, memory_bars};

use super::dma_path::DmaPath;
use crate::bus::slots::PciSlot;

/// A device before it is bound.
#[derive(Debug)]
pub(crate) struct InspectedDevice {
    pub bdf: Bdf,
    pub slot: PciSlot,
    pub kind: CdevKind,
    pub dma: DmaPath,
    /// Whether the user accepts that it cannot be reset.
    pub accepts_no_reset: bool,
    /// BAR0 to BAR5, then the ROM, by sysfs.
    pub regions: [Option<Resource>; REGIONS],
    /// How wide its addresses are.
    pub dma_width: DmaWidth,
}

impl InspectedDevice {
    /// Where the host has each region that is memory: BAR0 to BAR5, then the ROM.
    pub fn addresses(&self) -> [Option<Hpa>; REGIONS] {
        self.regions.map(|region| region?.address())
    }

    /// The memory BARs, each with its name.
    pub fn bars(&self) -> impl Iterator<Item = (String, Range<Hpa>)> {
        let name = |number| format!("{} BAR{number}", self.bdf);
        memory_bars(&self.regions).map(move |(number, range)| (name(number), range))
    }

    /// What a keeper needs before it is bound, or opened through its group.
    pub fn leftover(&self, sysfs: &PciSysfs, through_group: bool) -> Leftover {
        Leftover::of(sysfs, self.bdf, self.accepts_no_reset, through_group)
    }
}
