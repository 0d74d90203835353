// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Where memory of this process is: `/proc/self/pagemap`
//! (Linux Documentation/admin-guide/mm/pagemap.rst).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const PAGE: u64 = 4096;
const ENTRY: usize = 8;
const PRESENT: u64 = 1 << 63;
const FRAME: u64 = (1 << 55) - 1;

/// The open file.
#[derive(Debug)]
pub struct Pagemap(File);

impl Pagemap {
    /// Opens it. Without `CAP_SYS_ADMIN` it will show nothing.
    ///
    /// # Errors
    /// The system's.
    pub fn open() -> io::Result<Self> {
        File::open("/proc/self/pagemap").map(Self)
    }

    /// Guest-physical address and length of each piece of `bytes`, page by page; those that are not
    /// in memory or hidden are omitted.
    #[must_use]
    pub fn pieces(&self, bytes: &[u8]) -> Vec<(u64, u64)> {
        let start = bytes.as_ptr().addr() as u64;
        let end = start + bytes.len() as u64;
        let first = start / PAGE;
        let Ok(count) = usize::try_from(end.div_ceil(PAGE) - first) else {
            return Vec::new();
        };
        let mut entries = vec![0; count * ENTRY];
        if self
            .0
            .read_exact_at(&mut entries, first * ENTRY as u64)
            .is_err()
        {
            return Vec::new();
        }
        let (entries, _) = entries.as_chunks::<ENTRY>();
        let numbered = (first..).zip(entries);
        numbered
            .filter_map(|(page, entry)| {
                let from = start.max(page * PAGE);
                let to = end.min((page + 1) * PAGE);
                let gpa = frame(u64::from_le_bytes(*entry))? * PAGE + from % PAGE;
                Some((gpa, to - from))
            })
            .collect()
    }

    /// Guest-physical address of the first byte; 0 if it is hidden.
    #[must_use]
    pub fn gpa(&self, bytes: &[u8]) -> u64 {
        let first = bytes.get(..1).map(|byte| self.pieces(byte));
        first
            .and_then(|pieces| pieces.first().map(|(gpa, _)| *gpa))
            .unwrap_or(0)
    }
}

/// The number of the page frame, which is 0 for processes without permission.
fn frame(entry: u64) -> Option<u64> {
    (entry & PRESENT != 0 && entry & FRAME != 0).then_some(entry & FRAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_and_hidden_pages_have_no_frame() {
        assert_eq!(frame(PRESENT | 5), Some(5));
        assert_eq!(frame(PRESENT), None);
        // Swapped out: the bits encode where to.
        assert_eq!(frame(1 << 62 | 5), None);
    }

    #[test]
    fn pieces_make_up_the_whole_if_they_are_shown() {
        let bytes = vec![1; 20_000];
        let Ok(pagemap) = Pagemap::open() else { return };
        let pieces = pagemap.pieces(&bytes[100..]);
        let sum: u64 = pieces.iter().map(|(_, len)| len).sum();
        assert!(sum == 0 || sum == 19_900, "{pieces:x?}");
        assert_eq!(pagemap.gpa(&[]), 0);
    }
}
