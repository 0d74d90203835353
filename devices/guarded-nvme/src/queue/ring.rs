// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The rings that the device sees.

use std::sync::atomic::{Ordering, fence};

use address::Hpa;

use crate::device::Block;
use crate::fault::Fault;
use crate::spec::{COMPLETION_BYTES, Completion, DeviceCommand, ENTRY_BYTES};

/// Entries from `from` up to `to` on a ring of `size`.
pub(crate) fn distance(from: u16, to: u16, size: u16) -> u16 {
    if to >= from {
        to - from
    } else {
        size - from + to
    }
}

/// The entry after `at`.
pub(crate) fn after(at: u16, size: u16) -> u16 {
    if at + 1 >= size { 0 } else { at + 1 }
}

/// A submission queue of the device's: the monitor writes it, the device reads it.
#[derive(Debug)]
pub(crate) struct SubmissionRing<B> {
    block: B,
    id: u16,
    size: u16,
    /// The oldest entry that the device may still read: a slot is written again only when a completion says that it was
    /// consumed, as a controller may read an entry late, in parts, and more than once.
    head: u16,
    tail: u16,
}

impl<B: Block> SubmissionRing<B> {
    /// A ring of `size` entries, which the block holds.
    pub fn new(id: u16, block: B, size: u16) -> Self {
        Self {
            block,
            id,
            size,
            head: 0,
            tail: 0,
        }
    }

    /// As the device finds a new queue. The device has none with this memory.
    pub fn restart(&mut self) {
        self.head = 0;
        self.tail = 0;
    }

    /// Where it begins.
    pub fn address(&self) -> Hpa {
        self.block.hpa(0)
    }

    /// Entries.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// The value of its doorbell.
    pub fn tail(&self) -> u16 {
        self.tail
    }

    /// Whether an entry can be written.
    pub fn has_space(&self) -> bool {
        after(self.tail, self.size) != self.head
    }

    /// Writes an entry, if there is space.
    pub fn push(&mut self, command: &DeviceCommand) -> bool {
        if !self.has_space() {
            return false;
        }
        let first = usize::from(self.tail) * ENTRY_BYTES;
        for (place, word) in command.words().iter().enumerate() {
            self.block.store(first + 8 * place, *word);
        }
        self.tail = after(self.tail, self.size);
        true
    }

    /// Takes note of SQHD in a completion: entries before it were consumed.
    pub fn consumed(&mut self, head: u16) -> Result<(), Fault> {
        let out = distance(self.head, self.tail, self.size);
        if head >= self.size || distance(self.head, head, self.size) > out {
            return Err(Fault::QueueHead {
                queue: self.id,
                old: self.head,
                tail: self.tail,
                new: head,
            });
        }
        self.head = head;
        Ok(())
    }
}

/// A completion queue of the device's: the device writes it, the monitor reads it.
#[derive(Debug)]
pub(crate) struct CompletionRing<B> {
    block: B,
    size: u16,
    head: u16,
    phase: bool,
}

impl<B: Block> CompletionRing<B> {
    /// A ring of `size` entries, which the block holds.
    pub fn new(block: B, size: u16) -> Self {
        Self {
            block,
            size,
            head: 0,
            phase: true,
        }
    }

    /// As the device finds a new queue, all phase tags 0. The device has none with this memory.
    pub fn restart(&mut self) {
        for at in (0..usize::from(self.size) * 16).step_by(8) {
            self.block.store(at, 0);
        }
        self.head = 0;
        self.phase = true;
    }

    /// Where it begins.
    pub fn address(&self) -> Hpa {
        self.block.hpa(0)
    }

    /// Entries.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// The value of its doorbell.
    pub fn head(&self) -> u16 {
        self.head
    }

    /// The next completion, if the device has written one. The phase tag is looked at first and the entry after it, as a
    /// device may write an entry in parts, the tag last.
    pub fn next(&mut self) -> Option<Completion> {
        let first = usize::from(self.head) * usize::try_from(COMPLETION_BYTES).unwrap_or(16);
        if Completion::phase(self.block.load(first + 8)) != self.phase {
            return None;
        }
        fence(Ordering::Acquire);
        let words = [self.block.load(first), self.block.load(first + 8)];
        self.head = after(self.head, self.size);
        self.phase ^= self.head == 0;
        Some(Completion::from_words(words))
    }
}
