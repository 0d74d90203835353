// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Places for kernel and initramfs in guest RAM.

use std::ops::Range;

use address::Gpa;

use super::kernel::Demand;

/// Initramfs images are given whole pages.
const PAGE: u64 = 4096;
/// Unit of sizes in errors.
const MIB: u64 = 1 << 20;

/// Where things go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// RAM that is the kernel's until it runs.
    pub kernel: Range<Gpa>,
    /// Where the initramfs goes, if there is one.
    pub initramfs: Option<Range<Gpa>>,
}

/// Why something has no place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// No piece of memory is large enough.
    #[error(
        "Guest memory is too fragmented: the {what} needs {} MiB of contiguous memory{lowest}, but \
         the largest contiguous piece has {} MiB",
        mib_up(*need), mib_down(*largest)
    )]
    TooFragmented {
        /// What has no place.
        what: &'static str,
        /// Bytes that it needs.
        need: u64,
        /// Where the piece must be, as text.
        lowest: String,
        /// Bytes in the largest piece that is left.
        largest: u64,
    },
    /// All of guest memory is too small.
    #[error(
        "The {what} needs {} MiB, but guest memory has only {} MiB{besides}",
        mib_up(*need), mib_down(*room)
    )]
    TooLarge {
        /// What has no place.
        what: &'static str,
        /// Bytes that it needs.
        need: u64,
        /// Bytes available for it.
        room: u64,
        /// What else takes memory, as text.
        besides: &'static str,
    },
    /// There is a place, but not where the kernel must be.
    #[error(
        "The kernel needs {} MiB of contiguous memory between GPA {from} and GPA {below}, where \
         guest memory has no such piece: {reason}",
        mib_up(*need)
    )]
    OutOfReach {
        /// Bytes that it needs.
        need: u64,
        /// Lowest address that it can be at.
        from: Gpa,
        /// All of it is below this.
        below: Gpa,
        /// Why.
        reason: &'static str,
    },
}

/// `bytes` in MiB, rounded up: what is needed.
fn mib_up(bytes: u64) -> u64 {
    bytes.div_ceil(MIB)
}

/// `bytes` in MiB, rounded down: what is available, which stays less than what is needed.
fn mib_down(bytes: u64) -> u64 {
    bytes / MIB
}

/// What kernel and initramfs require of guest RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootRequirements {
    /// The kernel's.
    pub kernel: Demand,
    /// Bytes of the initramfs, if there is one.
    pub initramfs: Option<u64>,
    /// Bytes of RAM that the guest gets.
    pub size: u64,
}

impl BootRequirements {
    /// Places for kernel and initramfs in RAM at `ranges`, which ascend and do not touch.
    ///
    /// # Errors
    /// [`PlaceError`]
    pub fn place(&self, ranges: &[Range<Gpa>]) -> Result<Placement, PlaceError> {
        Placement::find(ranges, &self.kernel, self.initramfs)
    }

    /// Whether all of the guest's RAM together holds kernel and initramfs.
    ///
    /// # Errors
    /// [`PlaceError::TooLarge`]
    pub fn check_room(&self) -> Result<(), PlaceError> {
        let Demand { len, .. } = self.kernel;
        enough(self.size, "kernel", len, "")?;
        let rest = self.size - len;
        enough(rest, "initramfs", self.initramfs.unwrap_or(0), BESIDES)
    }

    /// Whether RAM at `ranges`, which ascend and do not touch, has room for kernel and initramfs, or is all of
    /// the guest's, so that other ranges would have no more.
    #[must_use]
    pub fn fits(&self, ranges: &[Range<Gpa>]) -> bool {
        match self.place(ranges) {
            Ok(_) => true,
            Err(PlaceError::TooLarge { .. }) => total(ranges) >= self.size,
            Err(_) => false,
        }
    }
}

impl Placement {
    /// Finds places for a kernel with `demand` and an initramfs of `initramfs` bytes in pieces of
    /// guest RAM, which ascend and do not touch.
    ///
    /// The kernel goes as low as it can in the largest piece of memory, the initramfs to the end
    /// of the highest piece that it fits in.
    ///
    /// # Errors
    /// [`PlaceError`]
    pub fn find(
        ranges: &[Range<Gpa>],
        demand: &Demand,
        initramfs: Option<u64>,
    ) -> Result<Self, PlaceError> {
        let kernel = place_kernel(ranges, demand)?;
        let initramfs = initramfs
            .filter(|length| *length > 0)
            .map(|length| place_initramfs(ranges, &kernel, length, demand.initramfs_below))
            .transpose()?;
        Ok(Self { kernel, initramfs })
    }
}

fn place_kernel(ranges: &[Range<Gpa>], demand: &Demand) -> Result<Range<Gpa>, PlaceError> {
    enough(total(ranges), "kernel", demand.len, "")?;
    // What is left of a piece from the first address in it that will do.
    let usable = |range: &Range<Gpa>| {
        let start = range.start.max(demand.lowest).align_up(demand.alignment)?;
        (start < range.end).then_some(start..range.end)
    };
    let fits = |range: &Range<Gpa>| range.end - range.start >= demand.len;
    let allowed = |range: &Range<Gpa>| range.start + demand.len <= demand.below;
    let usable: Vec<_> = ranges.iter().filter_map(usable).collect();
    usable
        .iter()
        .filter(|range| fits(range) && allowed(range))
        .max_by_key(|range| range.end - range.start)
        .map(|range| range.start..range.start + demand.len)
        .ok_or_else(|| {
            if demand.below < Demand::NO_LIMIT {
                return PlaceError::OutOfReach {
                    need: demand.len,
                    from: demand.lowest,
                    below: demand.below,
                    reason: demand.reason,
                };
            }
            PlaceError::TooFragmented {
                what: "kernel",
                need: demand.len,
                lowest: format!(
                    " at a GPA that is a multiple of {:#x} and at least {}",
                    demand.alignment, demand.lowest
                ),
                largest: largest(&usable),
            }
        })
}

fn place_initramfs(
    ranges: &[Range<Gpa>],
    kernel: &Range<Gpa>,
    length: u64,
    below: Gpa,
) -> Result<Range<Gpa>, PlaceError> {
    let free: Vec<_> = ranges
        .iter()
        .flat_map(|range| {
            let before = range.start..range.end.min(kernel.start);
            let after = range.start.max(kernel.end)..range.end;
            [before, after]
        })
        .filter(|range| range.start < range.end)
        .collect();
    enough(total(&free), "initramfs", length, BESIDES)?;
    let free: Vec<_> = free
        .into_iter()
        .map(|range| range.start..range.end.min(below))
        .filter(|range| range.start < range.end)
        .collect();
    free.iter()
        .rev()
        .find_map(|range| {
            let start = Gpa(range.end.0.checked_sub(length)?).align_down(PAGE);
            (start >= range.start).then(|| start..start + length)
        })
        .ok_or_else(|| PlaceError::TooFragmented {
            what: "initramfs",
            need: length,
            lowest: if below < Demand::NO_LIMIT {
                format!(" below {below}")
            } else {
                String::new()
            },
            largest: largest(&free),
        })
}

/// What takes memory besides an initramfs.
const BESIDES: &str = " besides the kernel";

/// Bytes in all of `ranges`.
fn total(ranges: &[Range<Gpa>]) -> u64 {
    ranges.iter().map(|range| range.end - range.start).sum()
}

/// Refuses what is larger than `room`, the bytes of all memory together: no choice of other memory would help.
fn enough(
    room: u64,
    what: &'static str,
    need: u64,
    besides: &'static str,
) -> Result<(), PlaceError> {
    if need > room {
        return Err(PlaceError::TooLarge {
            what,
            need,
            room,
            besides,
        });
    }
    Ok(())
}

fn largest(ranges: &[Range<Gpa>]) -> u64 {
    ranges
        .iter()
        .map(|range| range.end - range.start)
        .max()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use address::Hpa;
    use proptest::prelude::*;

    use super::*;
    use crate::memory::layout::Identity;
    use crate::memory::plan::{Constraints, MemoryPlan, Region};

    const DEMAND: Demand = Demand {
        len: 64 * MIB,
        alignment: 2 * MIB,
        lowest: Gpa(16 * MIB),
        below: Demand::NO_LIMIT,
        reason: "it is so",
        initramfs_below: Demand::NO_LIMIT,
        pieces: usize::MAX,
    };

    fn plan(ranges: &[(u64, u64)]) -> MemoryPlan {
        let regions = ranges
            .iter()
            .map(|(start, len)| Region {
                hpa: Some(Hpa(*start)),
                len: *len,
                parts: Vec::new(),
            })
            .collect();
        let constraints = Constraints {
            taken: Vec::new(),
            address_bits: 52,
            slots: 32_000,
            kept: 0,
            dma: host::DmaMap::Identity,
        };
        MemoryPlan::new(regions, &Identity, &constraints).unwrap()
    }

    #[test]
    fn a_kernel_does_not_go_where_it_would_move_away_from() {
        // 64 MiB fit at 2 MiB, but the kernel would run from 16 MiB on.
        let low = plan(&[(2 * MIB, 70 * MIB), (1 << 32, 65 * MIB)]);
        let placement = Placement::find(&low.ranges(), &DEMAND, None).unwrap();
        assert_eq!(placement.kernel.start, Gpa(1 << 32));
        let enough = plan(&[(2 * MIB, 78 * MIB)]);
        let placement = Placement::find(&enough.ranges(), &DEMAND, None).unwrap();
        assert_eq!(placement.kernel, Gpa(16 * MIB)..Gpa(80 * MIB));
    }

    #[test]
    fn fragments_are_refused_with_need_and_largest() {
        let small = plan(&[(32 * MIB, 20 * MIB), (64 * MIB, 62 * MIB)]);
        assert!(matches!(
            Placement::find(&small.ranges(), &DEMAND, None),
            Err(PlaceError::TooFragmented { what: "kernel", need, largest, .. })
                if need == 64 * MIB && largest == 62 * MIB
        ));
        let tight = plan(&[
            (16 * MIB, 64 * MIB),
            (128 * MIB, 2 * MIB),
            (192 * MIB, 2 * MIB),
        ]);
        assert!(matches!(
            Placement::find(&tight.ranges(), &DEMAND, Some(3 * MIB)),
            Err(PlaceError::TooFragmented { what: "initramfs", largest, .. }) if largest == 2 * MIB
        ));
    }

    #[test]
    fn what_is_larger_than_memory_is_not_reported_as_fragmented() {
        let memory = plan(&[(16 * MIB, 64 * MIB), (128 * MIB, 40 * MIB)]);
        let find = |length| Placement::find(&memory.ranges(), &DEMAND, Some(length));
        let too_large = |what, need, room, besides| {
            Err(PlaceError::TooLarge {
                what,
                need,
                room,
                besides,
            })
        };
        let besides = " besides the kernel";
        assert_eq!(
            find(41 * MIB),
            too_large("initramfs", 41 * MIB, 40 * MIB, besides)
        );
        assert_eq!(
            find(u64::MAX),
            too_large("initramfs", u64::MAX, 40 * MIB, besides)
        );
        assert!(find(40 * MIB).is_ok());
        let small = plan(&[(16 * MIB, 62 * MIB)]);
        assert_eq!(
            Placement::find(&small.ranges(), &DEMAND, None),
            too_large("kernel", 64 * MIB, 62 * MIB, "")
        );
    }

    #[test]
    fn a_kernel_that_cannot_be_above_4g_is_reported() {
        let high = plan(&[(1 << 32, 512 * MIB)]);
        let demand = Demand {
            below: Gpa(1 << 32),
            ..DEMAND
        };
        let out_of_reach = PlaceError::OutOfReach {
            need: 64 * MIB,
            from: Gpa(16 * MIB),
            below: Gpa(1 << 32),
            reason: "it is so",
        };
        assert_eq!(
            Placement::find(&high.ranges(), &demand, None),
            Err(out_of_reach.clone())
        );
        let across = plan(&[((1 << 32) - 32 * MIB, 512 * MIB)]);
        assert_eq!(
            Placement::find(&across.ranges(), &demand, None),
            Err(out_of_reach.clone())
        );
        let both = plan(&[(64 * MIB, 64 * MIB), (1 << 32, 512 * MIB)]);
        let placement = Placement::find(&both.ranges(), &demand, None).unwrap();
        assert_eq!(placement.kernel.start, Gpa(64 * MIB));
    }

    #[test]
    fn a_kernel_that_is_not_relocatable_is_at_its_address() {
        let fixed = Demand {
            alignment: PAGE,
            below: Gpa(80 * MIB),
            initramfs_below: Gpa(1 << 32),
            ..DEMAND
        };
        let ranges = [
            Gpa(2 * MIB)..Gpa(80 * MIB),
            Gpa(1 << 32)..Gpa((1 << 32) + 512 * MIB),
        ];
        let placement = Placement::find(&ranges, &fixed, Some(MIB)).unwrap();
        assert_eq!(placement.kernel, Gpa(16 * MIB)..Gpa(80 * MIB));
        assert_eq!(placement.initramfs, Some(Gpa(15 * MIB)..Gpa(16 * MIB)));
        assert!(matches!(
            Placement::find(&ranges, &fixed, Some(15 * MIB)),
            Err(PlaceError::TooFragmented { what: "initramfs", largest, .. }) if largest == 14 * MIB
        ));
        let elsewhere = [Gpa(16 * MIB + PAGE)..Gpa(512 * MIB)];
        assert!(matches!(
            Placement::find(&elsewhere, &fixed, None),
            Err(PlaceError::OutOfReach { .. })
        ));
    }

    proptest! {
        #[test]
        fn what_is_placed_is_in_one_piece_and_apart(
            sizes in prop::collection::vec((1_u64..80, 1_u64..20), 1..20),
            initramfs in 1..(40 * MIB),
        ) {
            let mut at = 2 * MIB;
            let ranges: Vec<_> = sizes.iter().map(|(size, gap)| {
                let range = (at, size * 2 * MIB);
                at += (size + gap) * 2 * MIB;
                range
            }).collect();
            let plan = plan(&ranges);
            if let Ok(placement) = Placement::find(&plan.ranges(), &DEMAND, Some(initramfs)) {
                let within = |inner: &Range<Gpa>| plan.regions().iter().any(|region| {
                    region.range().start <= inner.start && inner.end <= region.range().end
                });
                let initramfs = placement.initramfs.unwrap();
                prop_assert!(within(&placement.kernel) && within(&initramfs));
                prop_assert!(placement.kernel.start >= DEMAND.lowest);
                prop_assert!(placement.kernel.start.is_aligned(DEMAND.alignment));
                prop_assert!(initramfs.start.is_aligned(PAGE));
                prop_assert!(initramfs.end <= placement.kernel.start || placement.kernel.end <= initramfs.start);
            }
        }
    }

    #[test]
    fn an_error_reports_mib_of_which_more_are_needed_than_available() {
        let error = PlaceError::TooFragmented {
            what: "kernel",
            need: 40 * MIB + 1,
            lowest: String::new(),
            largest: 41 * MIB - 1,
        };
        let text = error.to_string();
        assert!(text.contains("needs 41 MiB of contiguous memory"), "{text}");
        assert!(text.ends_with("contiguous piece has 40 MiB"), "{text}");
    }
}
