// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! All I/O queues of a controller.

use super::completion::{CompletionQueue, Stage};
use super::lists::Lists;
use super::memory::{Plan, QueueMemory};
use super::ring::{CompletionRing, SubmissionRing};
use super::submission::SubmissionQueue;
use crate::check::admin::Victim;
use crate::check::io::Rules;
use crate::check::{NewCompletionQueue, NewSubmissionQueue};
use crate::device::{Block, Device};
use crate::doorbell::ring;
use crate::fault::Fault;
use crate::guest::{Doorbell, Machine};
use crate::queue_set::QueueSet;

/// What queues are served with.
#[derive(Debug)]
pub(crate) struct Surroundings<'a, M> {
    /// The guest.
    pub machine: &'a M,
    /// What commands are checked against.
    pub rules: Rules<'a>,
}

/// What the queues did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Served {
    /// Anything at all.
    pub is_busy: bool,
    /// A doorbell had a value that its queue cannot have.
    pub is_bad_value: bool,
    /// A doorbell without a queue was written.
    pub is_bad_doorbell: bool,
    /// Commands wait for a doorbell that may be memory: no signal says that it was written.
    pub is_held: bool,
}

impl Served {
    /// Both.
    pub fn and(self, other: Self) -> Self {
        Self {
            is_busy: self.is_busy || other.is_busy,
            is_bad_value: self.is_bad_value || other.is_bad_value,
            is_bad_doorbell: self.is_bad_doorbell || other.is_bad_doorbell,
            is_held: self.is_held || other.is_held,
        }
    }
}

/// Which queues there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct InUse {
    /// Completion queues, those that are being made or deleted too.
    pub completion: QueueSet,
    /// Submission queues, those that are being made or deleted too.
    pub submission: QueueSet,
    /// Completion queues of these submission queues.
    pub completed_to: QueueSet,
    /// Completion queues in service.
    pub live_completion: QueueSet,
    /// Submission queues in service.
    pub live_submission: QueueSet,
}

/// Pairs of I/O queues, by identifier from 1 on.
#[derive(Debug)]
pub(crate) struct IoQueues<B> {
    submission: Box<[SubmissionQueue<B>]>,
    completion: Box<[CompletionQueue<B>]>,
}

fn place(id: u16) -> usize {
    usize::from(id).wrapping_sub(1)
}

impl<B: Block> IoQueues<B> {
    /// Queues that the device does not have, in memory of their own.
    pub fn new(memory: Vec<QueueMemory<B>>, plan: Plan, scratch: address::Hpa) -> Self {
        let mut completion = Vec::with_capacity(memory.len());
        let mut submission = Vec::with_capacity(memory.len());
        for (id, memory) in (1..).zip(memory) {
            let ring = CompletionRing::new(memory.completions, plan.depth);
            completion.push(CompletionQueue::new(ring));
            let ring = SubmissionRing::new(id, memory.submissions, plan.depth);
            let lists = Lists::new(memory.lists, plan.mdts, scratch);
            submission.push(SubmissionQueue::new(id, ring, lists, memory.ranges));
        }
        Self {
            submission: submission.into(),
            completion: completion.into(),
        }
    }

    /// How many pairs there are.
    pub fn count(&self) -> u16 {
        u16::try_from(self.submission.len()).unwrap_or(u16::MAX)
    }

    /// The submission queue of an identifier.
    pub fn submission(&mut self, id: u16) -> Option<&mut SubmissionQueue<B>> {
        self.submission.get_mut(place(id))
    }

    /// The completion queue of an identifier.
    pub fn completion(&mut self, id: u16) -> Option<&mut CompletionQueue<B>> {
        self.completion.get_mut(place(id))
    }

    /// Whether a submission queue is in service.
    pub fn has_submission(&self) -> bool {
        let mut queues = self.submission.iter();
        queues.any(|queue| queue.stage() == Stage::Live)
    }

    /// The device has no queue any more.
    pub fn restart(&mut self) {
        for queue in &mut self.submission {
            queue.restart();
        }
        for queue in &mut self.completion {
            queue.set_stage(Stage::Closed);
        }
    }

    /// Whether the device has no command.
    pub fn are_idle(&self) -> bool {
        self.submission.iter().all(SubmissionQueue::is_idle)
    }

    /// Which there are.
    pub fn in_use(&self) -> InUse {
        let mut found = InUse::default();
        for (id, queue) in (1..).zip(&self.completion) {
            if queue.stage() != Stage::Closed {
                found.completion.insert(id);
            }
            if queue.stage() == Stage::Live {
                found.live_completion.insert(id);
            }
        }
        for (id, queue) in (1..).zip(&self.submission) {
            if queue.stage() != Stage::Closed {
                found.submission.insert(id);
                found.completed_to.insert(queue.completion_queue());
            }
            if queue.stage() == Stage::Live {
                found.live_submission.insert(id);
            }
        }
        found
    }

    /// The guest asks for a completion queue, which begins with its doorbell at 0.
    pub fn open_completion<M: Machine>(&mut self, new: &NewCompletionQueue, machine: &M) {
        machine.clear(Doorbell::head(new.id));
        if let Some(queue) = self.completion(new.id) {
            queue.open(new);
        }
    }

    /// The guest asks for a submission queue, which begins with its doorbell at 0.
    pub fn open_submission<M: Machine>(&mut self, new: &NewSubmissionQueue, machine: &M) {
        machine.clear(Doorbell::tail(new.id));
        if let Some(queue) = self.submission(new.id) {
            queue.open(new);
        }
    }

    /// The device's identifier of a command that an Abort names.
    pub fn abort(&mut self, victim: Victim) -> Option<u16> {
        let queue = self.submission(victim.queue)?;
        match queue.stage() {
            Stage::Live => queue.abort(victim.cid),
            _ => None,
        }
    }

    /// The Abort that named a command has completed.
    pub fn aborted(&mut self, queue: u16, command: u16) {
        if let Some(queue) = self.submission(queue) {
            queue.aborted(command);
        }
    }

    /// The device has deleted a submission queue. What it completed before is in its ring already, as PCI Express orders
    /// its writes.
    pub fn submission_deleted<D, M>(
        &mut self,
        id: u16,
        device: &D,
        machine: &M,
    ) -> Result<(), Fault>
    where
        D: Device,
        M: Machine,
    {
        let queue = match self.submission.get(place(id)) {
            Some(queue) => queue.completion_queue(),
            None => return Ok(()),
        };
        self.drain(queue, device, machine)?;
        let submission = self.submission.get_mut(place(id));
        let completion = self.completion.get_mut(place(queue));
        if let Some((submission, completion)) = submission.zip(completion) {
            submission.deleted(completion, machine)?;
        }
        Ok(())
    }

    /// Gives the guest what the device has completed.
    pub fn complete<D, M>(&mut self, device: &D, machine: &M) -> Result<Served, Fault>
    where
        D: Device,
        M: Machine,
    {
        let mut served = Served::default();
        for id in 1..=self.count() {
            let is_open = |queue: &CompletionQueue<B>| queue.stage() == Stage::Live;
            if self.completion.get(place(id)).is_some_and(is_open) {
                served.is_busy |= self.drain(id, device, machine)?;
            }
        }
        Ok(served)
    }

    /// Gives the guest what the device has written in one queue.
    fn drain<D, M>(&mut self, id: u16, device: &D, machine: &M) -> Result<bool, Fault>
    where
        D: Device,
        M: Machine,
    {
        let Some(queue) = self.completion.get_mut(place(id)) else {
            return Ok(false);
        };
        let mut is_busy = false;
        // The device has no more of them until it sees its doorbell.
        for _ in 0..queue.ring.size() {
            let Some(done) = queue.ring.next() else {
                break;
            };
            is_busy = true;
            let unknown = Fault::UnknownCommand {
                queue: id,
                from: done.sq,
                cid: done.cid,
            };
            let submission = self.submission.get_mut(place(done.sq));
            let is_of_queue = |submission: &&mut SubmissionQueue<B>| {
                let is_open = matches!(submission.stage(), Stage::Live | Stage::Deleting);
                is_open && submission.completion_queue() == id
            };
            let submission = submission.filter(is_of_queue).ok_or(unknown)?;
            let completion = submission.finish(id, done)?;
            queue.post(machine, completion)?;
        }
        if is_busy {
            ring(device, Doorbell::head(id), queue.ring.head());
        }
        Ok(is_busy)
    }

    /// Takes what the guest has submitted.
    pub fn take<D, M>(&mut self, device: &D, around: &Surroundings<'_, M>) -> Result<Served, Fault>
    where
        D: Device,
        M: Machine,
    {
        let mut served = Served::default();
        for (id, queue) in (1..).zip(&mut self.completion) {
            served = served.and(look_at_head(id, queue, around.machine));
        }
        for (id, queue) in (1..).zip(&mut self.submission) {
            if queue.stage() != Stage::Live {
                served.is_bad_doorbell |=
                    is_stray(Doorbell::tail(id), queue.stage(), around.machine);
                continue;
            }
            let completion = self.completion.get_mut(place(queue.completion_queue()));
            let Some(completion) = completion.filter(|queue| queue.stage() == Stage::Live) else {
                continue;
            };
            let taken = queue.take(completion, around)?;
            if taken.is_forwarded {
                ring(device, Doorbell::tail(id), queue.ring.tail());
            }
            served.is_busy |= taken.is_busy;
            served.is_bad_value |= taken.is_bad;
            served.is_held |= taken.is_held;
        }
        Ok(served)
    }

    /// One interrupt for each queue in which something was written.
    pub fn signal<M: Machine>(&mut self, machine: &M) {
        for queue in &mut self.completion {
            queue.signal(machine);
        }
    }
}

fn look_at_head<B: Block, M: Machine>(
    id: u16,
    queue: &mut CompletionQueue<B>,
    machine: &M,
) -> Served {
    let mut served = Served::default();
    let doorbell = Doorbell::head(id);
    if queue.stage() == Stage::Live {
        let seen = queue.guest.read_up_to(machine.value(doorbell));
        served.is_bad_value = seen.is_err();
    } else {
        served.is_bad_doorbell = is_stray(doorbell, queue.stage(), machine);
    }
    served
}

/// Whether a doorbell was written that has no queue. It is as if it had not been.
fn is_stray<M: Machine>(doorbell: Doorbell, stage: Stage, machine: &M) -> bool {
    let is_stray = stage == Stage::Closed && machine.value(doorbell) != 0;
    if is_stray {
        machine.clear(doorbell);
    }
    is_stray
}
