// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A pair of submission queues: the guest's, and the device's.

use address::Gpa;

use super::completion::{CompletionQueue, Stage};
use super::guest_side::GuestSubmissions;
use super::io::Surroundings;
use super::lists::Lists;
use super::memory::RANGE_PAGES;
use super::ring::SubmissionRing;
use super::slots::Slots;
use crate::bounce;
use crate::check::io::{self, Verdict};
use crate::check::{Bounce, NewSubmissionQueue};
use crate::device::Block;
use crate::fault::Fault;
use crate::guest::{Doorbell, Machine};
use crate::spec::{Completion, DeviceCommand, Entry, Status};

/// A command that the device has.
#[derive(Clone, Copy, Debug)]
struct Outstanding {
    /// The guest's identifier. The guest may use one twice; nothing depends on it.
    cid: u16,
    /// The page of its ranges.
    range: Option<u8>,
}

/// What became of an entry.
enum Handled {
    Forwarded,
    Refused(Status),
    /// There is no page for its ranges yet.
    Waits,
}

/// What a submission queue did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// The device's doorbell has to be written.
    pub is_forwarded: bool,
    /// Anything at all.
    pub is_busy: bool,
    /// The doorbell's value was bad.
    pub is_bad: bool,
    /// Commands wait until the guest has read completions.
    pub is_held: bool,
}

/// A submission queue with this identifier, whether there is one at the moment or not.
#[derive(Debug)]
pub(crate) struct SubmissionQueue<B> {
    /// What the device reads.
    pub ring: SubmissionRing<B>,
    id: u16,
    guest: GuestSubmissions,
    completion_queue: u16,
    stage: Stage,
    slots: Slots<Outstanding>,
    lists: Lists<B>,
    ranges: B,
    /// Pages of `ranges` that are in use, by bits.
    used_ranges: u8,
    /// A command that was read and waits for a page.
    waiting: Option<Entry>,
}

impl<B: Block> SubmissionQueue<B> {
    /// A queue that the device does not have.
    pub fn new(id: u16, ring: SubmissionRing<B>, lists: Lists<B>, ranges: B) -> Self {
        let slots = Slots::new(ring.size().saturating_sub(1));
        Self {
            ring,
            id,
            guest: GuestSubmissions::new(Gpa(0), 0),
            completion_queue: 0,
            stage: Stage::Closed,
            slots,
            lists,
            ranges,
            used_ranges: 0,
            waiting: None,
        }
    }

    /// The guest asks for it.
    pub fn open(&mut self, new: &NewSubmissionQueue) {
        self.close();
        self.guest = GuestSubmissions::new(new.base, new.size);
        self.completion_queue = new.completion_queue;
        self.stage = Stage::Creating;
    }

    /// The device has neither the queue nor a command of it any more. It may have Aborts that name commands which it had:
    /// those have to be over already, and their identifiers are kept.
    pub fn close(&mut self) {
        self.ring.restart();
        self.used_ranges = 0;
        self.waiting = None;
        self.stage = Stage::Closed;
    }

    /// The device has no command of any queue any more, nor an Abort.
    pub fn restart(&mut self) {
        self.close();
        self.slots.clear();
    }

    /// Whether the device has no command of it.
    pub fn is_idle(&self) -> bool {
        self.slots.is_empty()
    }

    /// How far it has come.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// It has come further.
    pub fn set_stage(&mut self, stage: Stage) {
        self.stage = stage;
    }

    /// Where its commands complete.
    pub fn completion_queue(&self) -> u16 {
        self.completion_queue
    }

    /// The device's identifier of an outstanding command, which an Abort of the device's is going to name. The identifier
    /// stays the command's until [`aborted`](Self::aborted).
    pub fn abort(&mut self, cid: u16) -> Option<u16> {
        let found = self.slots.find(|command| command.cid == cid)?;
        self.slots.name(found).then_some(found)
    }

    /// The Abort that named a command has completed.
    pub fn aborted(&mut self, command: u16) {
        self.slots.unname(command);
    }

    /// Takes what the guest has submitted, as far as there is space for commands and for their completions. What remains is
    /// taken later.
    pub fn take<M: Machine>(
        &mut self,
        queue: &mut CompletionQueue<B>,
        around: &Surroundings<'_, M>,
    ) -> Result<Taken, Fault> {
        let mut taken = Taken::default();
        let doorbell = around.machine.value(Doorbell::tail(self.id));
        let pending = self.guest.pending(doorbell);
        taken.is_bad = pending.is_err();
        let mut pending = pending.unwrap_or(0);
        while self.ring.has_space()
            && let Some(slot) = self.slots.peek()
        {
            let entry = match self.waiting.take() {
                Some(entry) => entry,
                None if pending > 0 && queue.guest.has_room() => {
                    queue.guest.reserve();
                    pending -= 1;
                    self.guest.fetch(around.machine)?
                }
                None => break,
            };
            match self.handle(&entry, slot, around) {
                Handled::Forwarded => taken.is_forwarded = true,
                Handled::Refused(status) => self.refuse(&entry, status, queue, around)?,
                Handled::Waits => {
                    self.waiting = Some(entry);
                    break;
                }
            }
            taken.is_busy = true;
        }
        taken.is_held = pending > 0 && !queue.guest.has_room();
        Ok(taken)
    }

    fn handle<M: Machine>(
        &mut self,
        entry: &Entry,
        slot: u16,
        around: &Surroundings<'_, M>,
    ) -> Handled {
        let mut list = self.lists.of(slot);
        match io::check(entry, &around.rules, around.machine, &mut list) {
            Verdict::Refuse(status) => Handled::Refused(status),
            Verdict::Forward(command) => {
                list.seal();
                drop(list);
                self.forward(entry, &command, None)
            }
            Verdict::Bounce(found) => {
                drop(list);
                self.bounce(entry, &found, around)
            }
        }
    }

    fn bounce<M: Machine>(
        &mut self,
        entry: &Entry,
        found: &Bounce,
        around: &Surroundings<'_, M>,
    ) -> Handled {
        let Some(page) = (0..RANGE_PAGES).find(|page| self.used_ranges & 1 << page == 0) else {
            return Handled::Waits;
        };
        let data = match bounce::fetch(&found.payload, around.machine) {
            Ok(data) => data,
            Err(status) => return Handled::Refused(status),
        };
        bounce::store_page(&self.ranges, page.into(), &data);
        let command = found.command.with_prps(self.ranges.hpa(page.into()), None);
        self.used_ranges |= 1 << page;
        self.forward(entry, &command, Some(page))
    }

    /// Gives the device a command; there is a slot and a place on the ring.
    fn forward(&mut self, entry: &Entry, command: &DeviceCommand, range: Option<u8>) -> Handled {
        let cid = entry.cid();
        if let Some(slot) = self.slots.take(Outstanding { cid, range }) {
            self.ring.push(&command.with_cid(slot));
        }
        Handled::Forwarded
    }

    fn refuse<M: Machine>(
        &self,
        entry: &Entry,
        status: Status,
        queue: &mut CompletionQueue<B>,
        around: &Surroundings<'_, M>,
    ) -> Result<(), Fault> {
        let completion = self.completion(entry.cid(), status, 0);
        queue.post(around.machine, completion)
    }

    fn completion(&self, cid: u16, status: Status, result: u32) -> Completion {
        Completion {
            result,
            sq_head: self.guest.head(),
            sq: self.id,
            cid,
            status,
        }
    }

    /// What the guest gets for a completion of the device's. Its chunk and page are free from here on.
    pub fn finish(&mut self, queue: u16, done: Completion) -> Result<Completion, Fault> {
        self.ring.consumed(done.sq_head)?;
        let unknown = Fault::UnknownCommand {
            queue,
            from: done.sq,
            cid: done.cid,
        };
        let command = self.slots.complete(done.cid).ok_or(unknown)?;
        if let Some(page) = command.range {
            self.used_ranges &= !(1 << page);
        }
        Ok(self.completion(command.cid, done.status, done.result))
    }

    /// The device has deleted the queue: what was outstanding is over, and completes so.
    pub fn deleted<M: Machine>(
        &mut self,
        queue: &mut CompletionQueue<B>,
        machine: &M,
    ) -> Result<(), Fault> {
        let mut result = Ok(());
        let (head, sq) = (self.guest.head(), self.id);
        let mut post = |cid: u16| {
            let completion = Completion {
                result: 0,
                sq_head: head,
                sq,
                cid,
                status: Status::SQ_DELETED,
            };
            if result.is_ok() {
                result = queue.post(machine, completion);
            }
        };
        self.slots.drain(|command| post(command.cid));
        if let Some(entry) = self.waiting.take() {
            post(entry.cid());
        }
        self.close();
        result
    }
}
