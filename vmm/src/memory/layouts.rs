// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Which layouts a guest's RAM may have.

use super::layout::{Addressing, Conventional, Identity, Layout, Packed};
use super::plan::{Constraints, MemoryPlan, PlanError, Region};
use crate::arch::layout::HAS_DEVICE_TREE;
use crate::config::MemoryLayout;

/// Layouts for RAM, by whether devices use its physical addresses.
#[derive(Clone, Copy, Debug)]
pub struct Layouts<'a> {
    preferred: &'a dyn Layout,
    otherwise: Option<&'a dyn Layout>,
}

impl<'a> Layouts<'a> {
    /// As `wanted`, where packed RAM is for all of the guest's devices only if it `can_pack`.
    pub fn new(wanted: MemoryLayout, can_pack: bool) -> Self {
        match wanted {
            MemoryLayout::Auto if can_pack && HAS_DEVICE_TREE => Self {
                otherwise: Some(&Packed),
                ..Self::only(&Identity)
            },
            MemoryLayout::Auto | MemoryLayout::Identity => Self::only(&Identity),
            MemoryLayout::Packed => Self::only(&Packed),
        }
    }

    /// `layout`, whatever comes of it.
    pub fn only(layout: &'a dyn Layout) -> Self {
        Self {
            preferred: layout,
            otherwise: None,
        }
    }

    /// Lays `regions` out by the preferred layout, or by the other one where that is not possible.
    ///
    /// # Errors
    /// [`PlanError`]: why the last one is not possible.
    pub fn lay_out(
        self,
        regions: Vec<Region>,
        constraints: &Constraints,
    ) -> Result<MemoryPlan, PlanError> {
        let Some(otherwise) = self.otherwise else {
            return MemoryPlan::new(regions, self.preferred, constraints);
        };
        MemoryPlan::new(regions.clone(), self.preferred, constraints).or_else(|error| {
            let name: &str = otherwise.addressing().into();
            log::info!("layout=auto selects {name}: {error}");
            MemoryPlan::new(regions, otherwise, constraints)
        })
    }

    /// The layout of RAM of which no device uses the physical addresses.
    pub fn conventional(self) -> &'a dyn Layout {
        match self.preferred.addressing() {
            Addressing::Conventional => self.preferred,
            Addressing::Identity | Addressing::Packed => &Conventional,
        }
    }

    /// Whether guarded controllers are given some addresses as their guests wrote them.
    pub fn forward_unchecked(self) -> bool {
        self.preferred.forwards_unchecked()
    }
}

#[cfg(test)]
mod tests {
    use address::{Gpa, Hpa};
    use host::DmaMap;

    use super::*;

    #[test]
    fn memory_is_packed_where_it_cannot_be_at_its_own_addresses() {
        let constraints = Constraints {
            taken: vec![("the clock", Gpa(5 << 30)..Gpa(6 << 30))],
            address_bits: 40,
            slots: 500,
            kept: 0,
            dma: DmaMap::Identity,
        };
        let layouts = Layouts {
            otherwise: Some(&Packed),
            ..Layouts::only(&Identity)
        };
        let at = |gib: u64| {
            let region = Region {
                hpa: Some(Hpa(gib << 30)),
                ..Region::of_file(2 << 20)
            };
            layouts.lay_out(vec![region], &constraints)
        };
        assert_eq!(at(4).unwrap().addressing(), Addressing::Identity);
        // Where something else is, and where the guest has no addresses.
        for gib in [5, 2000] {
            assert_eq!(at(gib).unwrap().addressing(), Addressing::Packed);
        }
        let only = Layouts::new(MemoryLayout::Auto, false);
        assert!(only.otherwise.is_none());
    }
}
