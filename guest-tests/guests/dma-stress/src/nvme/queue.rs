// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A submission and a completion queue (Base 1.4 §4.1, §4.6, §7.2).

use alloc::vec::Vec;
use core::sync::atomic::{Ordering, fence};

use super::access::{Dma, DmaBuffer, PAGE_BYTES};
use super::command::{CommandId, SQE_BYTES, Sqe};
use super::error::{CompletionFault, NvmeError};
use super::registers::Capabilities;
use super::status::Status;
use crate::registers::Registers;

const CQE_BYTES: usize = 16;

/// The most entries of a queue: a page of submission queue.
pub(super) const MAX_ENTRIES: u16 = 64;

/// Bits of a command identifier that name the slot; those above count its uses.
const SLOT_BITS: u32 = MAX_ENTRIES.trailing_zeros();

/// A queue pair with a page for each queue.
#[derive(Debug)]
pub(super) struct QueuePair<B> {
    id: u16,
    /// Entries of each queue, 2 to 64.
    entries: u16,
    submissions: B,
    completions: B,
    tail: u16,
    head: u16,
    /// What the phase tag of a new completion is.
    phase: bool,
    /// The identifier of the command in flight, or of the last one, and whether it is in flight.
    /// One slot fewer than entries: a full queue has one entry free (§4.1.2). That keeps both
    /// queues from overflowing without regard to the heads that the device reports.
    slots: Vec<(u16, bool)>,
    in_flight: u16,
    tail_doorbell: u64,
    head_doorbell: u64,
}

/// Contents of a completion.
#[derive(Clone, Copy, Debug)]
pub(super) struct Done {
    pub(super) id: CommandId,
    pub(super) result: Result<(), Status>,
}

impl<B: DmaBuffer> QueuePair<B> {
    /// Queue pair `id` with `entries` entries (2 to 64) each, in separate memory.
    pub(super) fn new(
        id: u16,
        entries: u16,
        capabilities: Capabilities,
        dma: &mut impl Dma<Buffer = B>,
    ) -> Result<Self, NvmeError> {
        let entries = entries.clamp(2, MAX_ENTRIES);
        let (tail_doorbell, head_doorbell) = capabilities.doorbells(id);
        Ok(Self {
            id,
            entries,
            submissions: page(dma)?,
            completions: page(dma)?,
            tail: 0,
            head: 0,
            phase: true,
            slots: (0..entries - 1).map(|slot| (slot, false)).collect(),
            in_flight: 0,
            tail_doorbell,
            head_doorbell,
        })
    }

    /// How many commands can be in flight.
    pub(super) const fn depth(&self) -> u16 {
        self.entries - 1
    }

    /// How many commands are in flight.
    pub(super) const fn in_flight(&self) -> u16 {
        self.in_flight
    }

    /// Entries of each queue.
    pub(super) const fn entries(&self) -> u16 {
        self.entries
    }

    /// Where the device finds the submission and the completion queue.
    pub(super) fn addresses(&self) -> Result<(u64, u64), NvmeError> {
        Ok((address(&self.submissions)?, address(&self.completions)?))
    }

    /// Hands `entry` to the device; `None` if the queue is full.
    pub(super) fn submit(
        &mut self,
        mut entry: Sqe,
        registers: &impl Registers,
    ) -> Option<CommandId> {
        let (cid, busy) = self.slots.iter_mut().find(|(_, busy)| !busy)?;
        // The slot stays, the count of its uses above it goes up.
        *cid = cid.wrapping_add(1 << SLOT_BITS);
        *busy = true;
        let cid = *cid;
        self.in_flight += 1;
        entry[0] = entry[0] & 0xffff | u32::from(cid) << 16;
        let start = usize::from(self.tail) * SQE_BYTES;
        for (index, dword) in entry.into_iter().enumerate() {
            self.submissions.write32(start + 4 * index, dword);
        }
        self.tail = (self.tail + 1) % self.entries;
        // The entry, the list and the data are in memory before the device hears of them.
        fence(Ordering::SeqCst);
        registers.write32(self.tail_doorbell, self.tail.into());
        Some(CommandId(cid))
    }

    /// Takes the completions that are there, at most one for each entry of the queue, and
    /// gives each to `done`. Those before a faulty one are given before the error.
    pub(super) fn poll(
        &mut self,
        registers: &impl Registers,
        mut done: impl FnMut(Done),
    ) -> Result<(), NvmeError> {
        let mut taken = false;
        let mut result = Ok(());
        for _ in 0..self.entries {
            match self.take() {
                Ok(None) => break,
                Ok(Some(completion)) => done(completion),
                Err(fault) => {
                    let queue = self.id;
                    result = Err(NvmeError::Completion { queue, fault });
                    break;
                }
            }
            taken = true;
        }
        if taken {
            registers.write32(self.head_doorbell, self.head.into());
        }
        result
    }

    /// Takes the next completion if there is one. Every word of it is read once: the device
    /// could change it meanwhile.
    fn take(&mut self) -> Result<Option<Done>, CompletionFault> {
        let start = usize::from(self.head) * CQE_BYTES;
        let dword3 = self.completions.read32(start + 12);
        if (dword3 >> 16 & 1 != 0) != self.phase {
            return Ok(None);
        }
        // The rest of the entry, and the data, are there once the phase tag is.
        fence(Ordering::SeqCst);
        let [head_low, head_high, queue_low, queue_high] =
            self.completions.read32(start + 8).to_le_bytes();
        let head = u16::from_le_bytes([head_low, head_high]);
        let sqid = u16::from_le_bytes([queue_low, queue_high]);
        let [cid_low, cid_high, ..] = dword3.to_le_bytes();
        let cid = u16::from_le_bytes([cid_low, cid_high]);
        if sqid != self.id {
            return Err(CompletionFault::WrongQueue { sqid });
        }
        if head >= self.entries {
            let entries = self.entries;
            return Err(CompletionFault::HeadOutOfRange { head, entries });
        }
        let slot = usize::from(cid % MAX_ENTRIES);
        match self.slots.get_mut(slot) {
            Some((id, busy)) if *busy && *id == cid => *busy = false,
            _ => return Err(CompletionFault::UnknownCommand { cid }),
        }
        self.in_flight -= 1;
        self.head = (self.head + 1) % self.entries;
        self.phase ^= self.head == 0;
        Ok(Some(Done {
            id: CommandId(cid),
            result: Status::from_dword3(dword3).map_or(Ok(()), Err),
        }))
    }
}

/// A page of zeros for a queue, or for the device's answers.
pub(super) fn page<D: Dma>(dma: &mut D) -> Result<D::Buffer, NvmeError> {
    dma.allocate(1).ok_or(NvmeError::NoMemory { pages: 1 })
}

/// Where the device finds the first page of `buffer`.
pub(super) fn address(buffer: &impl DmaBuffer) -> Result<u64, NvmeError> {
    let address = buffer.dma_address(0);
    address
        .filter(|address| address.is_multiple_of(PAGE_BYTES as u64))
        .ok_or(NvmeError::UnusableMemory { address })
}
