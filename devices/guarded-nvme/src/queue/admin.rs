// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The admin queue: the device's, the guest's, and the monitor's own commands on it.

use address::Hpa;

use super::guest_side::{BadDoorbell, GuestCompletions, GuestSubmissions};
use super::memory::{contiguous, pages};
use super::ring::{CompletionRing, SubmissionRing};
use super::slots::Slots;
use crate::bounce::Target;
use crate::check::{Filter, NewCompletionQueue, NewSubmissionQueue};
use crate::device::{Block, Device};
use crate::doorbell::ring;
use crate::fault::Fault;
use crate::guest::{Doorbell, Machine};
use crate::limits::{MAX_EVENTS, MAX_LOG_BYTES};
use crate::spec::{Completion, DeviceCommand, Entry, PAGE_BYTES};

/// Entries of the device's admin queues: a page of commands.
const DEPTH: u16 = 64;
/// Most commands of the guest's that are out.
const GUEST_JOBS: u16 = 16;
/// Identifiers: the guest's commands, event requests, and one of the monitor's own.
const JOBS: u16 = GUEST_JOBS + MAX_EVENTS as u16 + 1;
/// Pages of the buffer for long log pages.
const LARGE_PAGES: usize = MAX_LOG_BYTES as usize / PAGE_BYTES;
/// Pages of all of it: both rings, buffers, and the list of the long one.
pub(crate) const PAGES: usize = 2 + JOBS as usize + LARGE_PAGES + 1;
/// The guest's interrupt vector of the admin queue.
const VECTOR: u16 = 0;

/// Where data of a command is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Buffer {
    /// It has none.
    None,
    /// The page of its identifier.
    Page,
    /// The one long buffer.
    Large,
}

/// What is to be done when a command of the guest's completes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work {
    /// Nothing.
    Plain,
    /// Data goes to the guest.
    ToHost(Filter),
    /// The guest's events are these.
    SetEvents(u32),
    /// A completion queue was made.
    CreateCompletion(NewCompletionQueue),
    /// A submission queue was made.
    CreateSubmission(NewSubmissionQueue),
    /// A completion queue was deleted.
    DeleteCompletion(u16),
    /// A submission queue was deleted.
    DeleteSubmission(u16),
    /// A command of this queue was to be aborted; 0 is this queue.
    Abort(u16, u16),
}

/// A command of the guest's that the device has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GuestJob {
    /// The guest's identifier.
    pub cid: u16,
    /// What follows.
    pub work: Work,
    /// Its data.
    pub buffer: Buffer,
}

/// A command that the device has.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Job {
    /// Of the monitor's script.
    Own,
    /// A request for events.
    Event,
    /// Of the guest's.
    Guest(GuestJob),
}

/// A command that the device has completed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Finished {
    /// Which it was.
    pub job: Job,
    /// Its identifier for the device, by which its page is found.
    pub slot: u16,
    /// How it completed.
    pub completion: Completion,
}

/// The guest's side.
#[derive(Debug)]
struct GuestSide {
    submissions: GuestSubmissions,
    completions: GuestCompletions,
    /// A command that was read and waits for a buffer.
    waiting: Option<Entry>,
    is_posted: bool,
}

/// Both admin queues.
#[derive(Debug)]
pub(crate) struct AdminQueue<B> {
    ring: SubmissionRing<B>,
    completions: CompletionRing<B>,
    slots: Slots<Job>,
    /// A page for each identifier.
    pages: B,
    large: B,
    /// The list of the large buffer, which the guest's bytes never get to.
    list: B,
    /// Where data goes in the guest, by identifier.
    targets: Box<[Option<Target>]>,
    is_large_used: bool,
    guest: Option<GuestSide>,
}

impl<B: Block> AdminQueue<B> {
    /// Memory for it, if there is any. The list of the large buffer ends with `scratch`.
    pub fn allocate<D: Device<Block = B>>(device: &mut D, scratch: Hpa) -> Option<Self> {
        let ring = SubmissionRing::new(0, contiguous(device, 1)?, DEPTH);
        let completions = CompletionRing::new(contiguous(device, 1)?, DEPTH);
        let buffers = pages(device, JOBS.into())?;
        let large = pages(device, LARGE_PAGES)?;
        let list = pages(device, 1)?;
        for slot in 0..PAGE_BYTES / 8 {
            let page = match slot + 1 {
                page if page < LARGE_PAGES => large.hpa(page),
                _ => scratch,
            };
            list.store(8 * slot, page.0);
        }
        Some(Self {
            ring,
            completions,
            slots: Slots::new(JOBS),
            pages: buffers,
            large,
            list,
            targets: vec![None; JOBS.into()].into(),
            is_large_used: false,
            guest: None,
        })
    }

    /// The device has no command any more.
    pub fn restart(&mut self) {
        self.ring.restart();
        self.completions.restart();
        self.slots.clear();
        self.is_large_used = false;
        self.guest = None;
    }

    /// Whether the device has no command of the guest's or the monitor's but requests for events.
    pub fn is_idle(&self) -> bool {
        self.slots.count(|job| !matches!(job, Job::Event)) == 0
    }

    /// Entries of the device's.
    pub fn depth(&self) -> u16 {
        self.ring.size()
    }

    /// ASQ.
    pub fn submission_address(&self) -> Hpa {
        self.ring.address()
    }

    /// ACQ.
    pub fn completion_address(&self) -> Hpa {
        self.completions.address()
    }

    /// The guest's queues, from here on.
    pub fn open(&mut self, submissions: GuestSubmissions, completions: GuestCompletions) {
        self.guest = Some(GuestSide {
            submissions,
            completions,
            waiting: None,
            is_posted: false,
        });
    }

    /// The page of a command's data.
    pub fn page(&self, slot: u16) -> Hpa {
        self.pages.hpa(slot.into())
    }

    /// A command's data: page `index` of its buffer.
    pub fn data(&self, slot: u16, buffer: Buffer, index: usize) -> [u8; PAGE_BYTES] {
        match buffer {
            Buffer::Large => crate::bounce::load_page(&self.large, index),
            _ => crate::bounce::load_page(&self.pages, slot.into()),
        }
    }

    /// The identifier that the next command will have.
    pub fn next_slot(&self) -> Option<u16> {
        self.slots.peek().filter(|_| self.ring.has_space())
    }

    /// Fills the page of the next command.
    pub fn fill(&self, slot: u16, data: &[u8; PAGE_BYTES]) {
        crate::bounce::store_page(&self.pages, slot.into(), data);
    }

    /// Where the data of a command goes in the guest.
    pub fn target(&self, slot: u16) -> Option<&Target> {
        self.targets.get(usize::from(slot))?.as_ref()
    }

    /// A buffer of zeros for data that goes to the guest, and the command with it. `None` while the large one is in use.
    pub fn buffer(
        &mut self,
        slot: u16,
        target: Target,
        command: DeviceCommand,
    ) -> Option<(Buffer, DeviceCommand)> {
        let bytes = target.bytes();
        if let Some(place) = self.targets.get_mut(usize::from(slot)) {
            *place = Some(target);
        }
        if bytes <= PAGE_BYTES {
            self.fill(slot, &[0; PAGE_BYTES]);
            return Some((Buffer::Page, command.with_prps(self.page(slot), None)));
        }
        if self.is_large_used || bytes > LARGE_PAGES * PAGE_BYTES {
            return None;
        }
        self.is_large_used = true;
        let count = bytes.div_ceil(PAGE_BYTES);
        for page in 0..count {
            crate::bounce::store_page(&self.large, page, &[0; PAGE_BYTES]);
        }
        let second = match count {
            2 => self.large.hpa(1),
            _ => self.list.hpa(0),
        };
        let command = command.with_prps(self.large.hpa(0), Some(second));
        Some((Buffer::Large, command))
    }

    /// Gives the device a command, and rings.
    pub fn submit<D: Device>(&mut self, device: &D, command: &DeviceCommand, job: Job) {
        if !self.ring.has_space() {
            return;
        }
        if let Some(slot) = self.slots.take(job) {
            self.ring.push(&command.with_cid(slot));
            ring(device, Doorbell::tail(0), self.ring.tail());
        }
    }

    /// The next command that the device has completed.
    pub fn finished<D: Device>(&mut self, device: &D) -> Result<Option<Finished>, Fault> {
        let Some(completion) = self.completions.next() else {
            return Ok(None);
        };
        ring(device, Doorbell::head(0), self.completions.head());
        let unknown = Fault::UnknownCommand {
            queue: 0,
            from: completion.sq,
            cid: completion.cid,
        };
        if completion.sq != 0 {
            return Err(unknown);
        }
        self.ring.consumed(completion.sq_head)?;
        let slot = completion.cid;
        let job = self.slots.complete(slot).ok_or(unknown)?;
        Ok(Some(Finished {
            job,
            slot,
            completion,
        }))
    }

    /// The data of a finished command was copied.
    pub fn release(&mut self, buffer: Buffer) {
        if buffer == Buffer::Large {
            self.is_large_used = false;
        }
    }

    /// The next command of the guest's, if it can be taken.
    pub fn fetch<M: Machine>(&mut self, machine: &M) -> Result<Fetched, Fault> {
        let is_full = self.slots.count(|job| matches!(job, Job::Guest(_))) >= GUEST_JOBS.into();
        let has_place = self.next_slot().is_some() && !is_full;
        let Some(guest) = &mut self.guest else {
            return Ok(Fetched::Nothing);
        };
        if !has_place {
            return Ok(Fetched::Nothing);
        }
        if let Some(entry) = guest.waiting.take() {
            return Ok(Fetched::Entry(entry));
        }
        let pending = guest.submissions.pending(machine.value(Doorbell::tail(0)));
        match pending {
            Err(BadDoorbell) => Ok(Fetched::BadDoorbell),
            Ok(0) => Ok(Fetched::Nothing),
            Ok(_) if !guest.completions.has_room() => Ok(Fetched::Blocked),
            Ok(_) => {
                guest.completions.reserve();
                Ok(Fetched::Entry(guest.submissions.fetch(machine)?))
            }
        }
    }

    /// A command waits for a buffer.
    pub fn wait(&mut self, entry: Entry) {
        if let Some(guest) = &mut self.guest {
            guest.waiting = Some(entry);
        }
    }

    /// Whether the guest has read completions, by its doorbell.
    pub fn look_at_head<M: Machine>(&mut self, machine: &M) -> Result<(), BadDoorbell> {
        match &mut self.guest {
            Some(guest) => guest
                .completions
                .read_up_to(machine.value(Doorbell::head(0))),
            None => Ok(()),
        }
    }

    /// Keeps a place for a completion, if there is one.
    pub fn reserve(&mut self) -> bool {
        match &mut self.guest {
            Some(guest) if guest.completions.has_room() => guest.completions.reserve(),
            _ => return false,
        }
        true
    }

    /// A request for events stays open: its completion has no place yet.
    pub fn give_back(&mut self) {
        if let Some(guest) = &mut self.guest {
            guest.completions.give_back();
        }
    }

    /// Writes a completion for the guest in a place that was kept.
    pub fn post<M: Machine>(
        &mut self,
        machine: &M,
        cid: u16,
        outcome: crate::check::Outcome,
    ) -> Result<(), Fault> {
        let Some(guest) = &mut self.guest else {
            return Ok(());
        };
        guest.is_posted = true;
        let completion = Completion {
            result: outcome.result,
            sq_head: guest.submissions.head(),
            sq: 0,
            cid,
            status: outcome.status,
        };
        guest.completions.post(machine, completion)
    }

    /// One interrupt for what was written since the last.
    pub fn signal<M: Machine>(&mut self, machine: &M) {
        if let Some(guest) = &mut self.guest
            && std::mem::take(&mut guest.is_posted)
        {
            machine.raise(VECTOR);
        }
    }

    /// The device's identifier of a guest's command that an Abort names.
    pub fn abort(&mut self, cid: u16) -> Option<u16> {
        let found = self
            .slots
            .find(|job| matches!(job, Job::Guest(job) if job.cid == cid))?;
        self.slots.name(found).then_some(found)
    }

    /// The Abort that named a command has completed.
    pub fn aborted(&mut self, command: u16) {
        self.slots.unname(command);
    }
}

/// What the guest's admin queue has.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fetched {
    /// Nothing that can be taken.
    Nothing,
    /// There is a command, and no place for its completion.
    Blocked,
    /// The doorbell's value is bad, for the first time.
    BadDoorbell,
    /// A command, a place for its completion, and an identifier for the device.
    Entry(Entry),
}
