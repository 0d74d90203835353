// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What is wrong with a block, in words.

use stress_format::FindingKind;

use crate::arena::POISON;
use crate::stamp::{CELL, Stamp, Stamper, successors};

/// What a block should hold: its own cells, of any of these generations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Number of the disk.
    pub medium: u8,
    /// Offset of the block in bytes.
    pub offset: u64,
    /// The last generation that certainly was on the disk before the read; at least 1.
    pub oldest: u32,
    /// The last generation that may have been on the disk when the read ended.
    pub newest: u32,
}

impl Expected {
    fn stamp(&self, generation: u32) -> Stamp {
        Stamp {
            medium: self.medium,
            offset: self.offset,
            generation,
        }
    }

    /// Whether a block holds this. A block that is being written may be part old, part new.
    #[must_use]
    pub fn is_met(&self, stamper: Stamper, block: &[u8]) -> bool {
        if self.oldest == self.newest {
            return stamper.is_filled(block, self.stamp(self.newest));
        }
        let mut cells = block.chunks(CELL).zip(successors(self.stamp(0)));
        cells.all(|(cell, place)| {
            stamper.decode(cell).is_some_and(|found| {
                (found.medium, found.offset) == (place.medium, place.offset)
                    && (self.oldest..=self.newest).contains(&found.generation)
            })
        })
    }
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    /// The nearest kind.
    pub kind: FindingKind,
    /// What it means.
    pub text: String,
}

/// More flipped bits than these are other data.
const MAX_FLIPS: u32 = 4;

/// Data that lies this far from its place or farther belongs elsewhere altogether.
const NEAR: u64 = 2 << 20;

/// What a cell is, seen from where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cell {
    /// The right place's data, of this generation.
    Own(u32),
    /// Another place's.
    Other(Stamp),
    /// What was in memory before the read.
    Untouched,
    /// Nothing of this run.
    Unknown,
}

/// Diagnoses a block with wrong contents.
#[must_use]
pub fn diagnose(stamper: Stamper, block: &[u8], expected: &Expected) -> Diagnosis {
    if let Some(diagnosis) = flipped_bits(stamper, block, expected) {
        return diagnosis;
    }
    let cells: Vec<Cell> = block
        .chunks(CELL)
        .zip(successors(expected.stamp(0)))
        .map(|(cell, place)| classify(stamper, cell, place))
        .collect();
    let first = cells.first().copied().unwrap_or(Cell::Unknown);
    // Of one kind up to here.
    let same = runs_until(&cells, expected.offset);
    if same < cells.len() {
        let rest = cells[same];
        if rest == Cell::Unknown && first == Cell::Unknown {
            return mismatch("no data of this run".into());
        }
        return mismatch(format!(
            "torn: {}, but from byte {} on {}",
            in_words(first, expected),
            same * CELL,
            in_words(rest, expected)
        ));
    }
    match first {
        Cell::Other(stamp) => misplaced(stamp, expected),
        Cell::Unknown => not_on_cells(stamper, block, expected).unwrap_or_else(|| {
            mismatch(format!(
                "no data of this run, it begins {:02x?}",
                head(block)
            ))
        }),
        cell => mismatch(in_words(cell, expected)),
    }
}

fn mismatch(text: String) -> Diagnosis {
    Diagnosis {
        kind: FindingKind::Mismatch,
        text,
    }
}

fn head(block: &[u8]) -> &[u8] {
    block.get(..8).unwrap_or(block)
}

fn classify(stamper: Stamper, bytes: &[u8], place: Stamp) -> Cell {
    if bytes.iter().all(|byte| *byte == POISON) {
        return Cell::Untouched;
    }
    match stamper.decode(bytes) {
        Some(found) if (found.medium, found.offset) == (place.medium, place.offset) => {
            Cell::Own(found.generation)
        }
        Some(found) => Cell::Other(found),
        None => Cell::Unknown,
    }
}

/// How many cells from the first on agree: one generation, one distance.
fn runs_until(cells: &[Cell], offset: u64) -> usize {
    let story = |index: usize, cell: Cell| match cell {
        Cell::Other(stamp) => {
            let here = offset + (index * CELL) as u64;
            Cell::Other(Stamp {
                offset: stamp.offset.wrapping_sub(here),
                ..stamp
            })
        }
        cell => cell,
    };
    let mut stories = cells.iter().enumerate().map(|(i, cell)| story(i, *cell));
    let first = stories.next();
    stories
        .position(|next| Some(next) != first)
        .map_or(cells.len(), |index| index + 1)
}

fn in_words(cell: Cell, expected: &Expected) -> String {
    match cell {
        Cell::Own(generation) if generation < expected.oldest => format!(
            "stale: write {generation} of this block, though write {} had ended",
            expected.oldest
        ),
        Cell::Own(generation) => format!("write {generation} of this block"),
        Cell::Other(stamp) => misplaced(stamp, expected).text,
        Cell::Untouched => "nothing arrived in the buffer".into(),
        Cell::Unknown => "no data of this run".into(),
    }
}

/// The data of another place.
fn misplaced(found: Stamp, expected: &Expected) -> Diagnosis {
    let distance = found.offset.abs_diff(expected.offset);
    let kind = if found.medium == expected.medium && distance < NEAR {
        FindingKind::Shifted
    } else {
        FindingKind::WrongExtent
    };
    let text = if found.medium == expected.medium {
        format!(
            "misplaced: write {} of offset {:#x} lies here",
            found.generation, found.offset
        )
    } else {
        format!(
            "misplaced: write {} of offset {:#x} of medium {} lies here",
            found.generation, found.offset, found.medium
        )
    };
    Diagnosis { kind, text }
}

/// The right data with a few bits flipped.
fn flipped_bits(stamper: Stamper, block: &[u8], expected: &Expected) -> Option<Diagnosis> {
    (expected.oldest..=expected.newest)
        .rev()
        .take(2)
        .find_map(|generation| {
            let mut right = vec![0; block.len()];
            stamper.fill(&mut right, expected.stamp(generation));
            let different = || block.iter().zip(&right).enumerate();
            let flips: u32 = different().map(|(_, (a, b))| (a ^ b).count_ones()).sum();
            let (byte, (found, wanted)) = different().find(|(_, (a, b))| a != b)?;
            (flips <= MAX_FLIPS).then(|| Diagnosis {
                kind: FindingKind::BitFlip,
                text: format!(
                    "{flips} bits flipped, the first in byte {byte}: {found:#04x} instead of {wanted:#04x}"
                ),
            })
        })
}

/// Data of this run that lies between the borders of cells.
fn not_on_cells(stamper: Stamper, block: &[u8], expected: &Expected) -> Option<Diagnosis> {
    let (skipped, found) = (1..CELL).find_map(|skipped| {
        let found = stamper.decode(block.get(skipped..)?)?;
        Some((skipped, found))
    })?;
    let here = expected.offset + skipped as u64;
    let (distance, way) = if found.offset >= here {
        (found.offset - here, "lower")
    } else {
        (here - found.offset, "higher")
    };
    Some(Diagnosis {
        kind: FindingKind::Shifted,
        text: format!(
            "shifted: write {} of offset {:#x} lies {distance} bytes {way} than it should",
            found.generation, found.offset
        ),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EXPECTED: Expected = Expected {
        medium: 1,
        offset: 0x10_0000,
        oldest: 5,
        newest: 5,
    };

    fn stamper() -> Stamper {
        Stamper::new(42)
    }

    fn block(offset: u64, generation: u32) -> Vec<u8> {
        let mut block = vec![0; 512];
        let stamp = Stamp {
            medium: 1,
            offset,
            generation,
        };
        stamper().fill(&mut block, stamp);
        block
    }

    fn told(block: &[u8]) -> (FindingKind, String) {
        assert!(!EXPECTED.is_met(stamper(), block));
        let diagnosis = diagnose(stamper(), block, &EXPECTED);
        (diagnosis.kind, diagnosis.text)
    }

    #[test]
    fn a_flipped_bit_is_found() {
        let mut block = block(EXPECTED.offset, 5);
        block[77] ^= 0x10;
        let (kind, text) = told(&block);
        assert_eq!(kind, FindingKind::BitFlip);
        assert!(
            text.starts_with("1 bits flipped, the first in byte 77"),
            "{text}"
        );
    }

    #[test]
    fn stale_torn_and_missing_data_are_distinguished() {
        let stale = block(EXPECTED.offset, 4);
        let (kind, text) = told(&stale);
        assert_eq!(kind, FindingKind::Mismatch);
        assert!(text.starts_with("stale: write 4"), "{text}");

        let mut torn = block(EXPECTED.offset, 5);
        torn[128..].copy_from_slice(&stale[128..]);
        let (_, text) = told(&torn);
        assert!(
            text.starts_with("torn: write 5 of this block, but from byte 128 on stale"),
            "{text}"
        );

        let (_, text) = told(&[POISON; 512]);
        assert_eq!(text, "nothing arrived in the buffer");
        torn[128..].fill(POISON);
        let (_, text) = told(&torn);
        assert!(
            text.ends_with("from byte 128 on nothing arrived in the buffer"),
            "{text}"
        );

        let (kind, text) = told(&[0; 512]);
        assert_eq!(kind, FindingKind::Mismatch);
        assert!(
            text.starts_with("no data of this run, it begins [00"),
            "{text}"
        );
    }

    #[test]
    fn data_of_another_place_is_named() {
        let (kind, text) = told(&block(EXPECTED.offset + 512, 2));
        assert_eq!(kind, FindingKind::Shifted);
        assert_eq!(text, "misplaced: write 2 of offset 0x100200 lies here");
        let (kind, _) = told(&block(EXPECTED.offset + NEAR, 2));
        assert_eq!(kind, FindingKind::WrongExtent);
        let mut other = block(0, 0);
        let stamp = Stamp {
            medium: 2,
            offset: EXPECTED.offset,
            generation: 5,
        };
        stamper().fill(&mut other, stamp);
        let (kind, text) = told(&other);
        assert_eq!(kind, FindingKind::WrongExtent);
        assert!(text.contains("medium 2"), "{text}");
    }

    #[test]
    fn data_between_cells_is_named() {
        let mut two = block(EXPECTED.offset, 5);
        two.extend(block(EXPECTED.offset + 512, 5));
        for distance in 1..CELL {
            let (kind, text) = told(&two[distance..distance + 512]);
            assert_eq!(kind, FindingKind::Shifted);
            let end = format!("lies {distance} bytes lower than it should");
            assert!(text.ends_with(&end), "{text}");
        }
        two.rotate_right(5);
        let (_, text) = told(&two[..512]);
        assert!(
            text.ends_with("lies 5 bytes higher than it should"),
            "{text}"
        );
    }

    #[test]
    fn a_block_being_written_may_be_part_old_part_new() {
        let between = Expected {
            oldest: 4,
            ..EXPECTED
        };
        let mut mixed = block(EXPECTED.offset, 5);
        mixed[64..].copy_from_slice(&block(EXPECTED.offset, 4)[64..]);
        assert!(between.is_met(stamper(), &mixed));
        assert!(!EXPECTED.is_met(stamper(), &mixed));
        let later = Expected {
            oldest: 5,
            newest: 6,
            ..EXPECTED
        };
        assert!(!later.is_met(stamper(), &mixed));
    }

    proptest! {
        #[test]
        fn whatever_is_read_is_diagnosed(bytes in prop::collection::vec(any::<u8>(), 0..600), oldest: u32, newest: u32) {
            let expected = Expected { oldest, newest, ..EXPECTED };
            prop_assert!(!diagnose(stamper(), &bytes, &expected).text.is_empty());
        }

        #[test]
        fn any_cut_of_two_blocks_is_reported(at in 1_usize..512, generation in 0_u32..5) {
            let mut bytes = block(EXPECTED.offset, 5);
            bytes[at..].copy_from_slice(&block(EXPECTED.offset, generation)[at..]);
            // The second half of a cell alone has the generation.
            prop_assume!(at < 512 - 8);
            prop_assert!(!EXPECTED.is_met(stamper(), &bytes));
        }
    }
}
