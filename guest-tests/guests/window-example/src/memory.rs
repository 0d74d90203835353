// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A buffer that stays where it is, and where that is in the guest's physical memory.

use std::fs::File;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;

use address::Gpa;
use anyhow::{Context, Result, bail, ensure};
use rustix::mm::MapFlags;

use crate::mapping::Mapping;

const PAGE: u64 = 4096;

/// Bytes of a buffer: one hugepage.
pub const BYTES: u64 = 2 << 20;

/// A hugepage. Its bytes follow one another in the guest's physical memory, though not in the host's.
#[derive(Debug)]
pub struct Buffer {
    memory: Mapping,
    gpa: Gpa,
}

impl Buffer {
    /// Takes a hugepage from those that were reserved, and asks where it is.
    pub fn new() -> Result<Self> {
        let bytes = NonZeroUsize::new(BYTES.try_into()?).context("an empty buffer")?;
        let memory = Mapping::hugepage(bytes, MapFlags::HUGE_2MB).context(
            "no hugepage of 2 MiB for the buffer; reserve some: echo 4 > /proc/sys/vm/nr_hugepages",
        )?;
        let gpa = guest_physical(memory.address())?;
        ensure!(gpa.is_aligned(BYTES), "a hugepage at {gpa}");
        Ok(Self { memory, gpa })
    }

    /// The words of the buffer, by offset.
    pub fn memory(&self) -> &Mapping {
        &self.memory
    }

    /// Guest-physical address of the byte at `offset`.
    pub fn gpa(&self, offset: u64) -> Gpa {
        self.gpa + offset
    }
}

/// Asks `/proc/self/pagemap` (Linux Documentation/admin-guide/mm/pagemap.rst), which shows the
/// number of the page frame to those with `CAP_SYS_ADMIN`.
fn guest_physical(address: usize) -> Result<Gpa> {
    let address = u64::try_from(address)?;
    let mut entry = [0; 8];
    let pagemap = File::open("/proc/self/pagemap").context("/proc/self/pagemap")?;
    let read = pagemap.read_exact_at(&mut entry, address / PAGE * 8);
    read.context("/proc/self/pagemap")?;
    match frame(u64::from_le_bytes(entry)) {
        Some(frame) => Ok(Gpa(frame * PAGE + address % PAGE)),
        None => {
            bail!("/proc/self/pagemap does not show where {address:#x} is; run as root")
        }
    }
}

/// The page frame of an entry: bits 54:0, if bit 63 is set: the page is in memory. 0 means no
/// permission.
fn frame(entry: u64) -> Option<u64> {
    let frame = entry & ((1 << 55) - 1);
    (entry >> 63 == 1 && frame != 0).then_some(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_and_hidden_pages_have_no_frame() {
        assert_eq!(frame(1 << 63 | 1 << 61 | 5), Some(5));
        assert_eq!(frame(1 << 63), None);
        assert_eq!(frame(1 << 62 | 5), None, "swapped out");
    }
}
