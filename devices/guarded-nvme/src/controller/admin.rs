// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The admin queue of a controller that works: the guest's commands, the monitor's own, and events.

use std::time::Duration;

use super::answers;
use super::events::Event;
use super::script::Answered;
use super::session::{ChangedNamespaces, Session};
use crate::bounce::{self, Target};
use crate::check::admin::{Rules, Victim};
use crate::check::{Answer, Bounce, Filter, Outcome, admin::Verdict};
use crate::check::{NewCompletionQueue, NewSubmissionQueue};
use crate::device::Device;
use crate::fault::Fault;
use crate::guest::{Access, Machine};
use crate::link::Parts;
use crate::patch;
use crate::prp::Payload;
use crate::queue::{Buffer, Fetched, GuestJob, Job, Served, Stage, Work};
use crate::spec::admin::{ABORT, ASYNC_EVENT_REQUEST, CREATE_CQ, CREATE_SQ, DELETE_CQ, DELETE_SQ};
use crate::spec::{Cdw, DeviceCommand, Entry, PAGE_BYTES, Status};

/// Physically contiguous (PC).
const CONTIGUOUS: u32 = 1;
/// Interrupts enabled (IEN).
const INTERRUPTS: u32 = 2;
/// DW0 of an Abort: the command was not aborted.
const NOT_ABORTED: u32 = 1;

/// A device that works, the session, and the guest.
#[derive(Debug)]
pub(crate) struct Desk<'a, D: Device, M> {
    /// The device and its queues.
    pub parts: &'a mut Parts<D>,
    /// The session.
    pub session: &'a mut Session,
    /// The guest.
    pub machine: &'a M,
}

impl<D: Device, M: Machine> Desk<'_, D, M> {
    /// Asks the monitor's next question, if the last one was answered.
    pub fn ask(&mut self, now: Duration) {
        let Parts { device, queues } = &mut *self.parts;
        let admin = &mut queues.admin;
        let (Some(script), None) = (&self.session.script, self.session.asked_at) else {
            return;
        };
        let Some(slot) = admin.next_slot() else {
            return;
        };
        if let Some(command) = script.command(admin.page(slot)) {
            admin.fill(slot, &[0; PAGE_BYTES]);
            admin.submit(device, &command, Job::Own);
            self.session.asked_at = Some(now);
        }
    }

    /// Gives the device the event requests that it is to have.
    pub fn request_events(&mut self) {
        let Parts { device, queues } = &mut *self.parts;
        let requests = &mut self.session.requests;
        while requests.open < requests.wanted && queues.admin.next_slot().is_some() {
            let command = DeviceCommand::new(ASYNC_EVENT_REQUEST, 0);
            queues.admin.submit(device, &command, Job::Event);
            requests.open += 1;
        }
    }

    /// Takes what the device has completed.
    pub fn finish(&mut self) -> Result<bool, Fault> {
        let mut is_busy = false;
        for _ in 0..self.parts.queues.admin.depth() {
            let Parts { device, queues } = &mut *self.parts;
            let Some(done) = queues.admin.finished(device)? else {
                break;
            };
            is_busy = true;
            let outcome = Outcome {
                status: done.completion.status,
                result: done.completion.result,
            };
            match done.job {
                Job::Own => self.answered(done.slot, outcome)?,
                Job::Event => self.event(outcome),
                Job::Guest(job) => self.finished(job, done.slot, outcome)?,
            }
        }
        Ok(is_busy)
    }

    fn answered(&mut self, slot: u16, outcome: Outcome) -> Result<(), Fault> {
        self.session.asked_at = None;
        let data = self.parts.queues.admin.data(slot, Buffer::Page, 0);
        let answer = Answered {
            status: outcome.status,
            result: outcome.result,
            data: &data,
        };
        match &mut self.session.script {
            Some(script) => script.answer(&answer),
            None => Ok(()),
        }
    }

    /// An event of the device's. Where it refuses the request, it is not asked again.
    fn event(&mut self, outcome: Outcome) {
        let requests = &mut self.session.requests;
        requests.open = requests.open.saturating_sub(1);
        if !outcome.status.is_success() {
            requests.wanted = requests.wanted.saturating_sub(1);
            return;
        }
        match Event::from_result(outcome.result) {
            Some(Event::Namespaces) => self.session.is_review_due = true,
            Some(event) => self.session.events.report(event),
            None => log::debug!("the device reports event {:#x}", outcome.result),
        }
    }

    /// What follows when a command of the guest's completes.
    fn finished(&mut self, job: GuestJob, slot: u16, outcome: Outcome) -> Result<(), Fault> {
        let is_success = outcome.status.is_success();
        let mut outcome = outcome;
        match job.work {
            Work::Plain => {}
            Work::ToHost(filter) if is_success => {
                if !self.copy(slot, job.buffer, filter) {
                    outcome = Outcome::refusal(Status::DATA_TRANSFER_ERROR);
                }
            }
            Work::ToHost(_) => {}
            Work::SetEvents(events) if is_success => self.session.events.configuration = events,
            Work::SetEvents(_) => {}
            Work::Abort(queue, command) => {
                self.aborted(queue, command);
                outcome.result &= NOT_ABORTED;
            }
            Work::CreateCompletion(new) => self.set_completion(new.id, is_success),
            Work::CreateSubmission(new) => self.set_submission(new.id, is_success),
            Work::DeleteCompletion(id) => self.set_completion(id, !is_success),
            Work::DeleteSubmission(id) if !is_success => self.set_submission(id, true),
            Work::DeleteSubmission(id) => self.deleted(id)?,
        }
        let admin = &mut self.parts.queues.admin;
        admin.release(job.buffer);
        admin.post(self.machine, job.cid, outcome)
    }

    fn set_completion(&mut self, id: u16, is_there: bool) {
        if let Some(queue) = self.parts.queues.io.completion(id) {
            queue.set_stage(if is_there { Stage::Live } else { Stage::Closed });
        }
    }

    fn set_submission(&mut self, id: u16, is_there: bool) {
        if let Some(queue) = self.parts.queues.io.submission(id) {
            queue.set_stage(if is_there { Stage::Live } else { Stage::Closed });
        }
    }

    fn deleted(&mut self, id: u16) -> Result<(), Fault> {
        let Parts { device, queues } = &mut *self.parts;
        queues.io.submission_deleted(id, device, self.machine)
    }

    fn aborted(&mut self, queue: u16, command: u16) {
        let queues = &mut self.parts.queues;
        match queue {
            0 => queues.admin.aborted(command),
            _ => queues.io.aborted(queue, command),
        }
    }

    /// Copies a command's data to the guest, through its filter.
    fn copy(&mut self, slot: u16, buffer: Buffer, filter: Filter) -> bool {
        let admin = &self.parts.queues.admin;
        let Some(target) = admin.target(slot) else {
            return false;
        };
        let is_copied = (0..target.bytes()).step_by(PAGE_BYTES).all(|start| {
            let mut data = admin.data(slot, buffer, start / PAGE_BYTES);
            patch::apply(filter, &self.session.limits, start as u64, &mut data);
            target.write(self.machine, start, &data)
        });
        if let Filter::Log(part) = filter
            && !part.retain
        {
            self.session.events.read_page(part.page);
        }
        is_copied
    }

    /// Takes what the guest has submitted.
    pub fn take(&mut self) -> Result<Served, Fault> {
        let mut served = Served {
            is_bad_value: self.parts.queues.admin.look_at_head(self.machine).is_err(),
            ..Served::default()
        };
        for _ in 0..self.parts.queues.admin.depth() {
            match self.parts.queues.admin.fetch(self.machine)? {
                Fetched::Nothing => break,
                Fetched::Blocked => {
                    served.is_held = true;
                    break;
                }
                Fetched::BadDoorbell => {
                    served.is_bad_value = true;
                    break;
                }
                Fetched::Entry(entry) => {
                    let is_taken = self.act(&entry)?;
                    served.is_busy |= is_taken;
                    if !is_taken {
                        break;
                    }
                }
            }
        }
        Ok(served)
    }

    /// Does what becomes of a command; `false` if it has to wait.
    fn act(&mut self, entry: &Entry) -> Result<bool, Fault> {
        let state = self.session.admin_state(self.parts.queues.io.in_use());
        let rules = Rules {
            limits: &self.session.limits,
            namespaces: &self.session.namespaces,
            state: &state,
        };
        match crate::check::admin::check(entry, &rules, self.machine) {
            Verdict::Complete(outcome) => self.post(entry, outcome)?,
            Verdict::Forward(command) => self.forward(entry, &command, Work::Plain),
            Verdict::SetEvents(command, events) => {
                self.forward(entry, &command, Work::SetEvents(events));
            }
            Verdict::Bounce(bounce, filter) => return self.bounce(entry, &bounce, filter),
            Verdict::Answer(answer, payload) => self.answer(entry, answer, payload)?,
            Verdict::CreateCompletionQueue(new) => self.create_completion(entry, new),
            Verdict::CreateSubmissionQueue(new) => self.create_submission(entry, new),
            Verdict::DeleteCompletionQueue(id) => {
                if let Some(queue) = self.parts.queues.io.completion(id) {
                    queue.set_stage(Stage::Deleting);
                }
                let command = DeviceCommand::new(DELETE_CQ, 0).with(Cdw::D10, id.into());
                self.forward(entry, &command, Work::DeleteCompletion(id));
            }
            Verdict::DeleteSubmissionQueue(id) => {
                if let Some(queue) = self.parts.queues.io.submission(id) {
                    queue.set_stage(Stage::Deleting);
                }
                let command = DeviceCommand::new(DELETE_SQ, 0).with(Cdw::D10, id.into());
                self.forward(entry, &command, Work::DeleteSubmission(id));
            }
            Verdict::Abort(victim) => self.abort(entry, victim)?,
            Verdict::AwaitEvent => {
                self.session.events.hold(entry.cid());
                self.parts.queues.admin.give_back();
            }
        }
        Ok(true)
    }

    fn post(&mut self, entry: &Entry, outcome: Outcome) -> Result<(), Fault> {
        let admin = &mut self.parts.queues.admin;
        admin.post(self.machine, entry.cid(), outcome)
    }

    /// Gives the device a command without data of the guest's.
    fn forward(&mut self, entry: &Entry, command: &DeviceCommand, work: Work) {
        self.submit(entry, command, work, Buffer::None);
    }

    fn submit(&mut self, entry: &Entry, command: &DeviceCommand, work: Work, buffer: Buffer) {
        let Parts { device, queues } = &mut *self.parts;
        let job = GuestJob {
            cid: entry.cid(),
            work,
            buffer,
        };
        queues.admin.submit(device, command, Job::Guest(job));
    }

    fn bounce(&mut self, entry: &Entry, bounce: &Bounce, filter: Filter) -> Result<bool, Fault> {
        let found = match bounce.payload.access {
            Access::Read => self.send(entry, bounce, filter),
            Access::Write => self.receive(entry, bounce, filter),
        };
        match found {
            Ok(is_taken) => Ok(is_taken),
            Err(status) => self.post(entry, Outcome::refusal(status)).map(|()| true),
        }
    }

    fn send(&mut self, entry: &Entry, bounce: &Bounce, filter: Filter) -> Result<bool, Status> {
        let mut data = bounce::fetch(&bounce.payload, self.machine)?;
        patch::apply(filter, &self.session.limits, 0, &mut data);
        let admin = &self.parts.queues.admin;
        if let Some(slot) = admin.next_slot() {
            admin.fill(slot, &data);
            let command = bounce.command.with_prps(admin.page(slot), None);
            self.submit(entry, &command, Work::Plain, Buffer::Page);
        }
        Ok(true)
    }

    fn receive(&mut self, entry: &Entry, bounce: &Bounce, filter: Filter) -> Result<bool, Status> {
        let target = Target::new(bounce.payload, self.machine)?;
        let admin = &mut self.parts.queues.admin;
        let found = admin
            .next_slot()
            .and_then(|slot| admin.buffer(slot, target, bounce.command));
        match found {
            Some((buffer, command)) => {
                self.submit(entry, &command, Work::ToHost(filter), buffer);
                Ok(true)
            }
            None => {
                admin.wait(*entry);
                Ok(false)
            }
        }
    }

    fn answer(&mut self, entry: &Entry, answer: Answer, payload: Payload) -> Result<(), Fault> {
        let written = Target::new(payload, self.machine).and_then(|target| {
            let first = answers::page(answer, self.session);
            let zeros = [0; PAGE_BYTES];
            let is_written = (0..target.bytes()).step_by(PAGE_BYTES).all(|start| {
                let data = if start == 0 { &first } else { &zeros };
                target.write(self.machine, start, data)
            });
            is_written.then_some(()).ok_or(Status::DATA_TRANSFER_ERROR)
        });
        if let Err(status) = written {
            return self.post(entry, Outcome::refusal(status));
        }
        if let Answer::ChangedNamespaces(part) = answer
            && !part.retain
        {
            self.session.changed.clear();
            self.session.events.read_page(ChangedNamespaces::PAGE);
        }
        self.post(entry, Outcome::success(0))
    }

    /// The device's queue signals even where the guest polls: the monitor has to know.
    fn create_completion(&mut self, entry: &Entry, new: NewCompletionQueue) {
        self.parts.queues.io.open_completion(&new, self.machine);
        let Some(queue) = self.parts.queues.io.completion(new.id) else {
            return;
        };
        let last = u32::from(queue.ring.size() - 1);
        let vector = u32::from(new.vector.unwrap_or(0));
        let command = DeviceCommand::new(CREATE_CQ, 0)
            .with(Cdw::D10, u32::from(new.id) | last << 16)
            .with(Cdw::D11, CONTIGUOUS | INTERRUPTS | vector << 16)
            .with_prps(queue.ring.address(), None);
        self.forward(entry, &command, Work::CreateCompletion(new));
    }

    fn create_submission(&mut self, entry: &Entry, new: NewSubmissionQueue) {
        self.parts.queues.io.open_submission(&new, self.machine);
        let Some(queue) = self.parts.queues.io.submission(new.id) else {
            return;
        };
        let last = u32::from(queue.ring.size() - 1);
        let command = DeviceCommand::new(CREATE_SQ, 0)
            .with(Cdw::D10, u32::from(new.id) | last << 16)
            .with(Cdw::D11, CONTIGUOUS | u32::from(new.completion_queue) << 16)
            .with_prps(queue.ring.address(), None);
        self.forward(entry, &command, Work::CreateSubmission(new));
    }

    /// Commands that the device does not have, event requests among them, are not aborted.
    fn abort(&mut self, entry: &Entry, victim: Victim) -> Result<(), Fault> {
        let queues = &mut self.parts.queues;
        let found = match victim.queue {
            0 => queues.admin.abort(victim.cid),
            _ => queues.io.abort(victim),
        };
        let Some(command) = found else {
            return self.post(entry, Outcome::success(NOT_ABORTED));
        };
        let queue = victim.queue;
        let abort = DeviceCommand::new(ABORT, 0)
            .with(Cdw::D10, u32::from(queue) | u32::from(command) << 16);
        self.forward(entry, &abort, Work::Abort(queue, command));
        Ok(())
    }

    /// Gives the guest its events, as far as there are requests and places for their completions.
    pub fn deliver(&mut self) -> Result<(), Fault> {
        while self.session.events.is_due() && self.parts.queues.admin.reserve() {
            let Some((cid, result)) = self.session.events.take() else {
                self.parts.queues.admin.give_back();
                break;
            };
            let admin = &mut self.parts.queues.admin;
            admin.post(self.machine, cid, Outcome::success(result))?;
        }
        Ok(())
    }
}
