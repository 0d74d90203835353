// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Places for buffers, none of which overlap while they are in use.

use alloc::vec::Vec;
use core::ops::Range;

use address::Gpa;
use spin::Mutex;

use crate::ram::Ram;
use crate::shape::{Place, Shape};

/// How often another extent is tried before a shape is given up.
const TRIES: usize = 64;

/// Memory in use by transfers, of all engines.
#[derive(Debug, Default)]
pub struct Reservations(Mutex<Vec<Range<Gpa>>>);

/// A buffer with what is around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Its first byte.
    pub gpa: Gpa,
    /// Its bytes.
    pub len: u64,
    /// Itself and its guard zones, one of which is missing at the border of an extent.
    pub whole: Range<Gpa>,
}

impl Buffer {
    /// The buffer without its guard zones.
    #[must_use]
    pub fn body(&self) -> Range<Gpa> {
        self.gpa..self.gpa + self.len
    }
}

impl Reservations {
    /// Finds a place of `shape`, with guard zones of `guard` bytes, and keeps it until
    /// [`release`](Self::release). `None` if no extent has one, or all that were tried are in use.
    pub fn place(
        &self,
        ram: &Ram,
        shape: Shape,
        guard: u64,
        random: &mut fastrand::Rng,
    ) -> Option<Buffer> {
        if ram.extents().is_empty() {
            return None;
        }
        let extents = ram.extents();
        let first = random.usize(..extents.len());
        // By chance first, then one after the other.
        let tries = (0..TRIES)
            .map(|_| None)
            .chain((0..extents.len()).map(|step| Some((first + step) % extents.len())));
        for extent in tries {
            let extent = &extents[extent.unwrap_or_else(|| random.usize(..extents.len()))];
            let Some(gpa) = shape.within(extent, ram.seams_in(extent), random) else {
                continue;
            };
            let start = gpa.0.saturating_sub(guard).max(extent.start.0);
            let end = (gpa + shape.len).checked_add(guard)?.min(extent.end);
            let whole = Gpa(start)..end;
            if ram.holds(&whole).is_some() && self.reserve(&whole) {
                return Some(Buffer {
                    gpa,
                    len: shape.len,
                    whole,
                });
            }
        }
        None
    }

    fn reserve(&self, range: &Range<Gpa>) -> bool {
        let mut all = self.0.lock();
        let free = all.iter().all(|other| !overlap(other, range));
        if free {
            all.push(range.clone());
        }
        free
    }

    /// Whether something in `range` is in use.
    pub fn touches(&self, range: &Range<Gpa>) -> bool {
        self.0.lock().iter().any(|other| overlap(other, range))
    }

    /// Gives a place back.
    pub fn release(&self, buffer: &Buffer) {
        let mut all = self.0.lock();
        if let Some(at) = all.iter().position(|range| *range == buffer.whole) {
            all.swap_remove(at);
        }
    }
}

fn overlap(left: &Range<Gpa>, right: &Range<Gpa>) -> bool {
    left.start < right.end && right.start < left.end
}

impl Shape {
    /// A first byte in `extent`, if the shape has a place there.
    fn within(
        &self,
        extent: &Range<Gpa>,
        seams: &[Gpa],
        random: &mut fastrand::Rng,
    ) -> Option<Gpa> {
        let size = extent.end - extent.start;
        let room = size.checked_sub(self.len)?;
        let gpa = match self.place {
            Place::Start { align } => extent.start.align_up(align)?,
            Place::End { align } => (extent.start + room).align_down(align),
            Place::At(offset) => {
                let page = (extent.start + random.u64(..=room)).align_down(4096);
                page + offset
            }
            Place::Across { border, before } => {
                let first = (extent.start + before).0.div_ceil(border);
                let last = (extent.end.0 - (self.len - before)) / border;
                if first > last {
                    return None;
                }
                Gpa(random.u64(first..=last) * border - before)
            }
            Place::AcrossSeam { before } => {
                let seam = seams.get(random.usize(..seams.len().max(1)))?;
                Gpa(seam.0.checked_sub(before)?)
            }
        };
        (gpa >= extent.start && gpa.checked_add(self.len)? <= extent.end).then_some(gpa)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn ram() -> Ram {
        Ram::new(&[
            Gpa(3 * MIB)..Gpa(4 * MIB),
            Gpa(9 * MIB)..Gpa(13 * MIB),
            Gpa(15 * MIB + 0x1000)..Gpa(15 * MIB + 0x2000),
        ])
    }

    fn place(shape: Shape, guard: u64) -> Option<Buffer> {
        Reservations::default().place(&ram(), shape, guard, &mut fastrand::Rng::with_seed(2))
    }

    #[test]
    fn places_are_as_asked_for() {
        let buffer = place(
            Shape {
                len: 100,
                place: Place::Start { align: 1 },
            },
            64,
        )
        .unwrap();
        assert!(
            ram()
                .extents()
                .iter()
                .any(|extent| extent.start == buffer.gpa)
        );
        assert_eq!(buffer.whole, buffer.gpa..buffer.gpa + 164);
        let buffer = place(
            Shape {
                len: 100,
                place: Place::End { align: 1 },
            },
            64,
        )
        .unwrap();
        assert!(
            ram()
                .extents()
                .iter()
                .any(|extent| extent.end == buffer.gpa + 100)
        );
        assert_eq!(buffer.whole, buffer.gpa - 64..buffer.gpa + 100);
        let buffer = place(
            Shape {
                len: 100,
                place: Place::At(77),
            },
            64,
        )
        .unwrap();
        assert_eq!(
            (buffer.gpa.0 % 4096, buffer.body()),
            (77, buffer.gpa..buffer.gpa + 100)
        );
    }

    #[test]
    fn a_rare_border_is_found() {
        let across = Place::Across {
            border: 2 * MIB,
            before: 10,
        };
        let buffer = place(
            Shape {
                len: 100,
                place: across,
            },
            64,
        )
        .unwrap();
        assert!([10 * MIB - 10, 12 * MIB - 10].contains(&buffer.gpa.0));
        let across = Place::Across {
            border: 8 * MIB,
            before: 10,
        };
        assert_eq!(
            place(
                Shape {
                    len: 100,
                    place: across
                },
                64
            ),
            None
        );
    }

    #[test]
    fn a_seam_is_crossed_where_it_is() {
        let mut ram = ram();
        let shape = Shape {
            len: 100,
            place: Place::AcrossSeam { before: 30 },
        };
        let place = |ram: &Ram| {
            let all = Reservations::default();
            all.place(ram, shape, 64, &mut fastrand::Rng::with_seed(2))
        };
        assert_eq!(place(&ram), None);
        ram.set_seams(Some([Gpa(3 * MIB), Gpa(11 * MIB + 0x1000)].into()));
        assert_eq!(place(&ram).unwrap().gpa, Gpa(11 * MIB + 0x1000 - 30));
    }

    #[test]
    fn buffers_do_not_overlap() {
        let ram = Ram::new(&[Gpa(2 * MIB)..Gpa(2 * MIB + 0x4000)]);
        let all = Reservations::default();
        let mut random = fastrand::Rng::with_seed(1);
        let shape = Shape {
            len: 0x1000,
            place: Place::At(0),
        };
        let mut found = Vec::new();
        while let Some(buffer) = all.place(&ram, shape, 0, &mut random) {
            found.push(buffer);
        }
        // A page tried by chance 64 times may be missed.
        assert!((3..=4).contains(&found.len()));
        assert!(all.touches(&(Gpa(2 * MIB)..Gpa(2 * MIB + 1))));
        for buffer in &found {
            all.release(buffer);
        }
        assert!(!all.touches(&(Gpa(0)..Gpa(u64::MAX))));
    }
}
