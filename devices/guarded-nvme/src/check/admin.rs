// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Admin commands. All their data goes through memory of the monitor's.

use super::{Bounce, NewCompletionQueue, NewSubmissionQueue, features, identify, logs, queues};
use crate::guest::{Access, Guest};
use crate::limits::{AdminState, Limits};
use crate::namespaces::Namespaces;
use crate::prp::Payload;
use crate::spec::admin::{
    ABORT, ASYNC_EVENT_REQUEST, CREATE_CQ, CREATE_SQ, DELETE_CQ, DELETE_SQ, GET_FEATURES,
    GET_LOG_PAGE, IDENTIFY, KEEP_ALIVE, SET_FEATURES,
};
use crate::spec::{Cdw, DeviceCommand, Entry, Status};

/// What admin commands are checked against.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// What the controller offers.
    pub limits: &'a Limits,
    /// What the guest sees.
    pub namespaces: &'a Namespaces,
    /// What the guest has made of its controller.
    pub state: &'a AdminState,
}

/// How a command completes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Status.
    pub status: Status,
    /// DW0.
    pub result: u32,
}

impl Outcome {
    /// Success with this result.
    #[must_use]
    pub const fn success(result: u32) -> Self {
        let status = Status::SUCCESS;
        Self { status, result }
    }

    /// A refusal.
    #[must_use]
    pub const fn refusal(status: Status) -> Self {
        Self { status, result: 0 }
    }
}

/// What is done to data between guest and device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Identify Controller.
    Controller,
    /// Identify Namespace.
    Namespace,
    /// Namespace Identification Descriptor list.
    Descriptors,
    /// I/O Command Set specific Identify Namespace.
    SpecificNamespace,
    /// I/O Command Set specific Identify Controller.
    SpecificController,
    /// I/O Command Set Independent Identify Namespace.
    IndependentNamespace,
    /// A log page, from an offset on.
    Log(LogPart),
    /// Host Behavior Support, in either direction.
    HostBehavior,
    /// Nothing: Timestamp and Host Identifier.
    Whole,
}

/// Part of a log page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogPart {
    /// LID.
    pub page: u8,
    /// LPO: where the part begins, a multiple of 4.
    pub offset: u64,
    /// RAE: the event that the page explains stays.
    pub retain: bool,
}

/// Data that the monitor makes itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The active namespaces with greater identifiers than this.
    ActiveNamespaces(u32),
    /// A namespace that is not active: zeros.
    InactiveNamespace,
    /// The combinations of command sets: the NVM command set alone.
    CommandSets,
    /// Attributes of the host memory buffer: none.
    HostMemoryOff,
    /// The namespaces that have changed.
    ChangedNamespaces(LogPart),
}

/// What becomes of an admin command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It completes so.
    Complete(Outcome),
    /// This goes to the device; it has no data.
    Forward(DeviceCommand),
    /// This goes to the device, with its data through the monitor and this filter.
    Bounce(Bounce, Filter),
    /// The monitor writes the data.
    Answer(Answer, Payload),
    /// A completion queue is to be made.
    CreateCompletionQueue(NewCompletionQueue),
    /// A submission queue is to be made.
    CreateSubmissionQueue(NewSubmissionQueue),
    /// This completion queue is to be deleted.
    DeleteCompletionQueue(u16),
    /// This submission queue is to be deleted.
    DeleteSubmissionQueue(u16),
    /// A command is to be aborted, if it is out.
    Abort(Victim),
    /// The request stays open until there is an event.
    AwaitEvent,
    /// The device gets this, and the guest's events are these bits.
    SetEvents(DeviceCommand, u32),
}

/// The command that an Abort names, as the guest knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Victim {
    /// SQID.
    pub queue: u16,
    /// CID.
    pub cid: u16,
}

/// Whether the opcode is on the list and offered.
#[must_use]
pub fn is_offered(opcode: u8, limits: &Limits) -> bool {
    match opcode {
        KEEP_ALIVE => limits.keep_alive,
        DELETE_SQ | CREATE_SQ | GET_LOG_PAGE | DELETE_CQ | CREATE_CQ | IDENTIFY | ABORT
        | SET_FEATURES | GET_FEATURES | ASYNC_EVENT_REQUEST => true,
        _ => false,
    }
}

/// What becomes of `entry`. Only the addresses of queues are looked up here: those of data are the monitor's to use.
pub fn check<G: Guest>(entry: &Entry, rules: &Rules<'_>, guest: &G) -> Verdict {
    decide(entry, rules, guest).unwrap_or_else(|status| Verdict::Complete(Outcome::refusal(status)))
}

fn decide<G: Guest>(entry: &Entry, rules: &Rules<'_>, guest: &G) -> Result<Verdict, Status> {
    let opcode = entry.opcode();
    if !is_offered(opcode, rules.limits) {
        return Err(Status::INVALID_OPCODE);
    }
    if !entry.is_plain() {
        return Err(Status::INVALID_FIELD);
    }
    match opcode {
        DELETE_SQ => queues::delete_submission(entry, rules),
        CREATE_SQ => queues::create_submission(entry, rules, guest),
        DELETE_CQ => queues::delete_completion(entry, rules),
        CREATE_CQ => queues::create_completion(entry, rules, guest),
        GET_LOG_PAGE => logs::check(entry, rules),
        IDENTIFY => identify::check(entry, rules),
        SET_FEATURES => features::set(entry, rules),
        GET_FEATURES => features::get(entry, rules),
        ABORT => Ok(Verdict::Abort(Victim {
            queue: entry.low(Cdw::D10),
            cid: entry.high(Cdw::D10),
        })),
        ASYNC_EVENT_REQUEST if rules.state.open_events >= rules.limits.events => {
            Err(Status::EVENT_LIMIT)
        }
        ASYNC_EVENT_REQUEST => Ok(Verdict::AwaitEvent),
        KEEP_ALIVE => Ok(Verdict::Forward(DeviceCommand::new(KEEP_ALIVE, 0))),
        _ => Err(Status::INVALID_OPCODE),
    }
}

/// The guest's side of data that goes to the host.
pub(super) fn to_host(entry: &Entry, bytes: u32) -> Payload {
    payload(entry, bytes, Access::Write)
}

/// The guest's side of data that goes to the device.
pub(super) fn to_device(entry: &Entry, bytes: u32) -> Payload {
    payload(entry, bytes, Access::Read)
}

fn payload(entry: &Entry, bytes: u32, access: Access) -> Payload {
    Payload {
        prp1: entry.prp1(),
        prp2: entry.prp2(),
        bytes,
        access,
    }
}
