// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How guest-physical addresses are chosen.

use std::ops::Range;

use address::Gpa;

use super::plan::{Constraints, Piece, PlanError, RamSlot, Run};

/// Gives guest RAM its addresses.
pub trait Layout: std::fmt::Debug {
    /// Places for `runs`, cut into smaller ones where needed.
    ///
    /// # Errors
    /// `PlanError` if there is no place. What is returned is checked against `constraints`
    /// by the caller.
    fn place(&self, runs: Vec<Run>, constraints: &Constraints) -> Result<Vec<RamSlot>, PlanError>;

    /// Whether it makes sense only where devices use physical addresses.
    fn needs_identity(&self) -> bool {
        false
    }
}

/// Guest-physical = host-physical: a driver that programs guest-physical addresses programs the
/// right ones.
#[derive(Clone, Copy, Debug)]
pub struct Identity;

impl Layout for Identity {
    fn place(&self, runs: Vec<Run>, _: &Constraints) -> Result<Vec<RamSlot>, PlanError> {
        runs.into_iter()
            .map(|run| {
                let hpa = run.hpa.ok_or(PlanError::NotPhysical)?;
                Ok(RamSlot {
                    gpa: Gpa(hpa.0),
                    run,
                })
            })
            .collect()
    }
}

/// From 2 MiB upwards, around what is taken, whatever the physical addresses are. Right only for
/// devices whose addresses something translates.
#[derive(Clone, Copy, Debug)]
pub struct Conventional;

/// Identity, but for two pieces of memory that have one another's addresses: what a wrong layout
/// does to DMA is to be seen. The largest piece, where the kernel goes, is not touched.
#[derive(Clone, Copy, Debug)]
pub struct Swapped;

impl Layout for Swapped {
    fn place(&self, runs: Vec<Run>, constraints: &Constraints) -> Result<Vec<RamSlot>, PlanError> {
        let mut slots = Identity.place(runs, constraints)?;
        slots.sort_by_key(|slot| slot.run.length);
        let kept = slots.pop();
        let (Some(mut first), Some(mut second)) = (slots.pop(), slots.pop()) else {
            return Err(PlanError::NothingToSwap);
        };
        let length = first.run.length.min(second.run.length);
        let [moved, other] =
            [&mut first, &mut second].map(|slot| take_front(&mut slot.run, length));
        for (slot, run) in [(&mut first, other), (&mut second, moved)] {
            slots.push(RamSlot { gpa: slot.gpa, run });
            slot.gpa = slot.gpa + length;
        }
        let rest = [Some(first), Some(second), kept].into_iter().flatten();
        slots.extend(rest.filter(|slot| slot.run.length > 0));
        Ok(slots)
    }

    fn needs_identity(&self) -> bool {
        true
    }
}

/// Runs are cut at multiples of this, so that large pages stay whole.
const GRAIN: u64 = 2 << 20;

impl Layout for Conventional {
    fn place(&self, runs: Vec<Run>, constraints: &Constraints) -> Result<Vec<RamSlot>, PlanError> {
        let mut free = free_ranges(constraints).into_iter();
        let mut room = free.next();
        let mut slots = Vec::new();
        for mut rest in runs {
            while rest.length > 0 {
                let Some(range) = room.take() else {
                    return Err(PlanError::NoRoom {
                        missing: rest.length,
                        bits: constraints.address_bits,
                    });
                };
                let run = take_front(&mut rest, range.end - range.start);
                let next = range.start + run.length;
                slots.push(RamSlot {
                    gpa: range.start,
                    run,
                });
                room = next
                    .align_up(GRAIN)
                    .filter(|next| *next < range.end)
                    .map_or_else(|| free.next(), |next| Some(next..range.end));
            }
        }
        Ok(slots)
    }
}

/// What is not taken, in whole grains, ascending.
fn free_ranges(constraints: &Constraints) -> Vec<Range<Gpa>> {
    let limit = 1_u64
        .checked_shl(constraints.address_bits.into())
        .unwrap_or(u64::MAX);
    let mut taken: Vec<_> = constraints.taken.iter().map(|(_, range)| range).collect();
    taken.sort_unstable_by_key(|range| range.start);
    let mut free = Vec::new();
    let mut start = Gpa(0);
    for range in taken.into_iter().chain([&(Gpa(limit)..Gpa(limit))]) {
        if let Some(from) = start.align_up(GRAIN) {
            let to = range.start.align_down(GRAIN);
            if from < to {
                free.push(from..to);
            }
        }
        start = start.max(range.end);
    }
    free
}

/// Cuts at most `length` bytes off the front of `run`, which keeps the rest.
fn take_front(run: &mut Run, length: u64) -> Run {
    let mut front = Run {
        hpa: run.hpa,
        length: length.min(run.length),
        pieces: Vec::new(),
    };
    let mut wanted = front.length;
    run.pieces.retain_mut(|piece| {
        let cut = wanted.min(piece.length);
        if cut > 0 {
            front.pieces.push(Piece {
                file_offset: piece.file_offset,
                length: cut,
            });
        }
        piece.file_offset += cut;
        piece.length -= cut;
        wanted -= cut;
        piece.length > 0
    });
    run.length -= front.length;
    run.hpa = run.hpa.map(|hpa| hpa + front.length);
    front
}

#[cfg(test)]
mod tests {
    use address::Hpa;
    use proptest::prelude::*;

    use super::*;
    use crate::memory::plan::MemoryPlan;

    const MIB: u64 = 1 << 20;

    fn constraints() -> Constraints {
        Constraints {
            taken: vec![
                ("a PCI window", Gpa(3 << 30)..Gpa(4 << 30)),
                ("low memory", Gpa(0)..Gpa(MIB)),
                ("another", Gpa(4 << 30)..Gpa(8 << 30)),
            ],
            address_bits: 36,
            slots: 500,
        }
    }

    fn run(length: u64) -> Run {
        Run {
            hpa: None,
            length,
            pieces: vec![Piece {
                file_offset: 0,
                length,
            }],
        }
    }

    #[test]
    fn memory_is_cut_around_what_is_taken() {
        let plan = MemoryPlan::new(vec![run(4 << 30)], &Conventional, &constraints()).unwrap();
        let places: Vec<_> = plan.slots().iter().map(RamSlot::range).collect();
        let first = (3 << 30) - 2 * MIB;
        assert_eq!(
            places,
            [
                Gpa(2 * MIB)..Gpa(3 << 30),
                Gpa(8 << 30)..Gpa((8 << 30) + (4 << 30) - first)
            ]
        );
        assert_eq!(plan.slots()[1].run.pieces[0].file_offset, first);
    }

    #[test]
    fn too_much_memory_has_no_room() {
        assert!(matches!(
            MemoryPlan::new(vec![run(64 << 30)], &Conventional, &constraints()),
            Err(PlanError::NoRoom { bits: 36, .. })
        ));
    }

    #[test]
    fn swapped_pieces_have_one_anothers_addresses() {
        let at = |hpa: u64, length: u64| Run {
            hpa: Some(Hpa(hpa << 30)),
            ..run(length * MIB)
        };
        let constraints = Constraints {
            taken: Vec::new(),
            ..constraints()
        };
        let runs = vec![at(5, 8), at(6, 2), at(7, 4), at(8, 6)];
        let plan = MemoryPlan::new(runs, &Swapped, &constraints).unwrap();
        let places: Vec<_> = plan
            .slots()
            .iter()
            .map(|slot| {
                let Hpa(hpa) = slot.run.hpa.unwrap();
                (slot.gpa.0, hpa, slot.run.length / MIB)
            })
            .collect();
        let [five, six, seven, eight] = [5, 6, 7, 8].map(|number| number << 30);
        assert_eq!(
            places,
            [
                (five, five, 8),
                (six, six, 2),
                (seven, eight, 4),
                (eight, seven, 4),
                (eight + 4 * MIB, eight + 4 * MIB, 2),
            ]
        );
        assert_eq!(
            MemoryPlan::new(vec![at(5, 8), at(6, 2)], &Swapped, &constraints),
            Err(PlanError::NothingToSwap)
        );
    }

    #[test]
    fn identity_needs_physical_addresses() {
        assert_eq!(
            MemoryPlan::new(vec![run(MIB)], &Identity, &constraints()),
            Err(PlanError::NotPhysical)
        );
    }

    proptest! {
        /// Every byte of the file is in the guest exactly once, in whole grains.
        #[test]
        fn nothing_is_lost_or_doubled(
            pieces in prop::collection::vec(1_u64..600, 1..12),
            physical: bool,
        ) {
            let mut offset = 0;
            let mut runs = Vec::new();
            for grains in &pieces {
                let length = grains * GRAIN;
                runs.push(Run {
                    hpa: physical.then_some(Hpa(offset * 3)),
                    length,
                    pieces: vec![
                        Piece { file_offset: offset, length: GRAIN },
                        Piece { file_offset: offset + GRAIN, length: length - GRAIN },
                    ],
                });
                runs.last_mut().unwrap().pieces.retain(|piece| piece.length > 0);
                offset += length;
            }
            let plan = MemoryPlan::new(runs, &Conventional, &constraints()).unwrap();
            let mut found: Vec<_> = plan.slots().iter().flat_map(|slot| &slot.run.pieces).collect();
            found.sort_by_key(|piece| piece.file_offset);
            let mut expected = 0;
            for piece in found {
                prop_assert_eq!(piece.file_offset, expected);
                prop_assert_eq!(piece.length % GRAIN, 0);
                expected += piece.length;
            }
            prop_assert_eq!(expected, offset);
            for slot in plan.slots() {
                let sum: u64 = slot.run.pieces.iter().map(|piece| piece.length).sum();
                prop_assert_eq!(sum, slot.run.length);
            }
        }
    }
}
