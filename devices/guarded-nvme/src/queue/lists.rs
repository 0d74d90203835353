// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Memory for PRP lists: a chunk for each outstanding command of a queue.

use address::Hpa;

use crate::check::List;
use crate::device::Block;
use crate::limits::MAX_MDTS;
use crate::spec::PAGE_BYTES;

/// Least bytes of a chunk, and their alignment: there are devices that need it (Linux: `NVME_QUIRK_DMAPOOL_ALIGN_512`).
const LEAST: usize = 512;

/// Bytes of a chunk that holds the list of the largest transfer: as many entries as that has pages, since the first page is
/// not in it. A power of two of at most a page, so that no chunk crosses one.
pub(crate) fn chunk_bytes(mdts: u8) -> usize {
    (8 << mdts.min(MAX_MDTS)).max(LEAST)
}

/// The chunks of one queue, by command identifier.
///
/// A guest's bytes never get here but as pages that were translated: what is left in a chunk from its last command is its
/// own guest's pages, and is overwritten with the scratch page's address all the same.
#[derive(Debug)]
pub(crate) struct Lists<B> {
    block: B,
    chunk: usize,
    scratch: Hpa,
    /// Entries of each chunk that are not the scratch page's.
    used: Box<[u16]>,
}

impl<B: Block> Lists<B> {
    /// Chunks for the largest transfer, as many as the block holds; their entries are `scratch`.
    pub fn new(block: B, mdts: u8, scratch: Hpa) -> Self {
        let chunk = chunk_bytes(mdts);
        let bytes = block.pages() * PAGE_BYTES;
        for at in (0..bytes).step_by(8) {
            block.store(at, scratch.0);
        }
        Self {
            block,
            chunk,
            scratch,
            used: vec![0; bytes / chunk].into(),
        }
    }

    /// The chunk of a command's.
    pub fn of(&mut self, command: u16) -> Chunk<'_, B> {
        let first = usize::from(command) * self.chunk;
        Chunk {
            block: &self.block,
            first,
            slots: self.chunk / 8,
            scratch: self.scratch,
            used: self.used.get_mut(usize::from(command)),
            written: 0,
        }
    }
}

/// The list of one command.
#[derive(Debug)]
pub(crate) struct Chunk<'a, B> {
    block: &'a B,
    first: usize,
    slots: usize,
    scratch: Hpa,
    used: Option<&'a mut u16>,
    written: u16,
}

impl<B: Block> Chunk<'_, B> {
    /// Puts the scratch page behind the list, if there is one.
    pub fn seal(&mut self) {
        let Some(used) = self.used.as_deref_mut() else {
            return;
        };
        if self.written == 0 {
            return;
        }
        for slot in self.written..*used {
            self.block
                .store(self.first + 8 * usize::from(slot), self.scratch.0);
        }
        *used = self.written;
    }
}

impl<B> Drop for Chunk<'_, B> {
    /// A list that was given up leaves entries behind.
    fn drop(&mut self) {
        if let Some(used) = self.used.as_deref_mut() {
            *used = self.written.max(*used);
        }
    }
}

impl<B: Block> List for Chunk<'_, B> {
    fn address(&self) -> Hpa {
        let within = (self.first % PAGE_BYTES) as u64;
        self.block.hpa(self.first / PAGE_BYTES) + within
    }

    fn slots(&self) -> u32 {
        match self.used {
            Some(_) => u32::try_from(self.slots).unwrap_or(0),
            None => 0,
        }
    }

    fn set(&mut self, slot: u32, page: Hpa) {
        let Some(next) = u16::try_from(slot)
            .ok()
            .and_then(|slot| slot.checked_add(1))
        else {
            return;
        };
        if usize::from(next) <= self.slots {
            self.block.store(self.first + 8 * slot as usize, page.0);
            self.written = self.written.max(next);
        }
    }
}
