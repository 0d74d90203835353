// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Page tables that a guest starts with: a few ranges, mapped one to one.

use std::ops::Range;

use address::Gpa;

/// Entries in a table.
const ENTRIES: usize = 512;
/// Bytes in a table.
const TABLE: u64 = 4096;
/// Bytes that an entry of the lowest level used here maps. Every 64-bit CPU has this size, not
/// every one 1 GiB (KVM without hardware virtualisation, for one).
const LARGE_PAGE: u64 = 2 << 20;

const PRESENT_WRITABLE: u64 = 0b11;
const PAGE_SIZE: u64 = 1 << 7;

/// Four-level page tables in an image for a given guest-physical address.
#[derive(Debug)]
pub struct IdentityTables {
    place: Range<Gpa>,
    tables: Vec<[u64; ENTRIES]>,
}

/// The tables need more room than there is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "Page tables for {:#x}-{:#x} do not fit into {:#x}-{:#x}",
    range.start, range.end, place.start, place.end
)]
pub struct NoRoomError {
    /// What was to be mapped.
    pub range: Range<Gpa>,
    /// Where the tables are.
    pub place: Range<Gpa>,
}

impl IdentityTables {
    /// Empty tables that may use `place`, whose start will be the root.
    #[must_use]
    pub fn new(place: Range<Gpa>) -> Self {
        Self {
            place,
            tables: vec![[0; ENTRIES]],
        }
    }

    /// Maps all 2 MiB pages that `range`, which lies below 2^47, touches.
    ///
    /// # Errors
    /// [`NoRoomError`]
    pub fn map(&mut self, range: &Range<Gpa>) -> Result<(), NoRoomError> {
        let mut page = range.start.align_down(LARGE_PAGE);
        while page < range.end {
            let mut table = 0;
            for shift in [39, 30] {
                table = self
                    .descend(table, index(page, shift))
                    .ok_or_else(|| NoRoomError {
                        range: range.clone(),
                        place: self.place.clone(),
                    })?;
            }
            self.tables[table][index(page, 21)] = page.0 | PRESENT_WRITABLE | PAGE_SIZE;
            page = page + LARGE_PAGE;
        }
        Ok(())
    }

    /// The table behind entry `index` of `table`, made if there is none; `None` without room.
    fn descend(&mut self, table: usize, index: usize) -> Option<usize> {
        let entry = self.tables[table][index];
        if entry != 0 {
            let at = Gpa(entry).align_down(TABLE);
            return usize::try_from((at - self.place.start) / TABLE).ok();
        }
        let next = self.tables.len();
        let at = self.place.start + next as u64 * TABLE;
        if at + TABLE > self.place.end {
            return None;
        }
        self.tables.push([0; ENTRIES]);
        self.tables[table][index] = at.0 | PRESENT_WRITABLE;
        Some(next)
    }

    /// Address of the root: the value for CR3.
    #[must_use]
    pub fn root(&self) -> Gpa {
        self.place.start
    }

    /// The image.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.tables
            .iter()
            .flatten()
            .flat_map(|entry| entry.to_le_bytes())
            .collect()
    }
}

fn index(page: Gpa, shift: u32) -> usize {
    #[expect(clippy::cast_possible_truncation, reason = "nine bits are left")]
    let index = (page.0 >> shift) as usize % ENTRIES;
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Range<Gpa> = Gpa(0x8000)..Gpa(0x2_0000);

    /// What the CPU finds for `address`.
    fn walk(tables: &IdentityTables, address: u64) -> Option<u64> {
        let mut table = tables.root().0;
        for shift in [39, 30, 21] {
            let at = usize::try_from((table - PLACE.start.0) / TABLE).unwrap();
            let entry = tables.tables[at][index(Gpa(address), shift)];
            if entry & 1 == 0 {
                return None;
            }
            if shift == 21 {
                assert_ne!(entry & PAGE_SIZE, 0);
                return Some((entry & !(LARGE_PAGE - 1)) | (address % LARGE_PAGE));
            }
            table = entry & !0xfff;
        }
        None
    }

    #[test]
    fn ranges_map_to_themselves_and_nothing_else_is_mapped() {
        let mut tables = IdentityTables::new(PLACE);
        let ranges = [
            Gpa(0)..Gpa(1 << 20),
            Gpa(0x3fe0_0000)..Gpa(0x4220_0000),
            Gpa((1 << 39) - (2 << 20))..Gpa((1 << 39) + (2 << 20)),
        ];
        for range in &ranges {
            tables.map(range).unwrap();
        }
        for range in &ranges {
            for address in [
                range.start.0,
                range.end.0 - 1,
                (range.start.0 + range.end.0) / 2,
            ] {
                assert_eq!(walk(&tables, address), Some(address));
            }
        }
        assert_eq!(walk(&tables, 0x20_0000), None);
        assert_eq!(walk(&tables, 0x4220_0000), None);
        assert_eq!(walk(&tables, (1 << 39) + (2 << 20)), None);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut tables = IdentityTables::new(Gpa(0x8000)..Gpa(0xb000));
        assert!(tables.map(&(Gpa(0)..Gpa(1))).is_ok());
        let beyond = Gpa(1 << 30)..Gpa((1 << 30) + 1);
        assert!(tables.map(&beyond).is_err());
    }
}
