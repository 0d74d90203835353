// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! I/O commands: the NVM command set, for namespaces without metadata.

use address::Hpa;

use super::{Bounce, Entries, List};
use crate::guest::{Access, Guest};
use crate::limits::{Limits, Optional};
use crate::namespaces::{Namespace, Namespaces};
use crate::prp::Payload;
use crate::spec::nvm::{
    ATTRIBUTES, COMPARE, DATASET_MANAGEMENT, DEAC, FLUSH, FUA, HINTS, LR, NLB, NR, RANGE_BYTES,
    READ, VERIFY, WRITE, WRITE_ZEROES,
};
use crate::spec::{ALL_NAMESPACES, Cdw, DeviceCommand, Entry, Status};

/// What I/O commands are checked against.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// What the controller offers.
    pub limits: &'a Limits,
    /// What the guest sees.
    pub namespaces: &'a Namespaces,
}

/// What becomes of an I/O command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It completes so, and does not reach the device.
    Refuse(Status),
    /// This goes to the device. Its list, if it has one, is filled.
    Forward(DeviceCommand),
    /// This goes to the device, with the ranges of Dataset Management in a page of the monitor's: there are devices that
    /// always read 4096 bytes.
    Bounce(Bounce),
}

/// Whether the opcode is on the list and offered.
#[must_use]
pub fn is_offered(opcode: u8, optional: Optional) -> bool {
    match opcode {
        FLUSH | WRITE | READ => true,
        COMPARE => optional.has(Optional::COMPARE),
        WRITE_ZEROES => optional.has(Optional::WRITE_ZEROES),
        DATASET_MANAGEMENT => optional.has(Optional::DATASET_MANAGEMENT),
        VERIFY => optional.has(Optional::VERIFY),
        _ => false,
    }
}

/// What becomes of `entry`. The pages of its data are translated one by one and stored in `list` at once.
pub fn check<G: Guest, L: List>(
    entry: &Entry,
    rules: &Rules<'_>,
    guest: &G,
    list: &mut L,
) -> Verdict {
    let opcode = entry.opcode();
    if !is_offered(opcode, rules.limits.optional) {
        return Verdict::Refuse(Status::INVALID_OPCODE);
    }
    if !entry.is_plain() {
        return Verdict::Refuse(Status::INVALID_FIELD);
    }
    let Some(namespace) = rules.namespaces.get(entry.nsid()) else {
        return without_namespace(entry);
    };
    if !matches!(opcode, READ | WRITE | COMPARE) {
        return without_transfer(entry);
    }
    let payload = data(entry, rules.limits, namespace);
    // The command is made in the place where it is returned.
    match payload.and_then(|payload| pages(&payload, guest, list)) {
        Ok((first, second)) => Verdict::Forward(transfer(entry).with_prps(first, second)),
        Err(status) => Verdict::Refuse(status),
    }
}

/// What becomes of a command for a namespace that the guest does not see: only Flush can be for all.
#[inline(never)]
fn without_namespace(entry: &Entry) -> Verdict {
    match (entry.opcode(), entry.nsid()) {
        (FLUSH, ALL_NAMESPACES) => Verdict::Forward(DeviceCommand::new(FLUSH, ALL_NAMESPACES)),
        _ => Verdict::Refuse(Status::INVALID_NAMESPACE),
    }
}

/// What becomes of a command whose data, if it has any, is no blocks.
#[inline(never)]
fn without_transfer(entry: &Entry) -> Verdict {
    match entry.opcode() {
        DATASET_MANAGEMENT => Verdict::Bounce(ranges(entry)),
        // No data, although they have a number of blocks. The device has limits of its own for them.
        WRITE_ZEROES => Verdict::Forward(blocks(entry, NLB | DEAC | FUA | LR)),
        VERIFY => Verdict::Forward(blocks(entry, NLB | FUA | LR)),
        FLUSH => Verdict::Forward(DeviceCommand::new(FLUSH, entry.nsid())),
        _ => Verdict::Refuse(Status::INVALID_OPCODE),
    }
}

/// A command for a range of blocks: SLBA, and of CDW12 the bits of `kept`. Protection information, directives and what
/// follows are 0.
fn blocks(entry: &Entry, kept: u32) -> DeviceCommand {
    DeviceCommand::new(entry.opcode(), entry.nsid())
        .with(Cdw::D10, entry.cdw(Cdw::D10))
        .with(Cdw::D11, entry.cdw(Cdw::D11))
        .with(Cdw::D12, entry.cdw(Cdw::D12) & kept)
}

/// The data of Read, Write and Compare: exactly the blocks, at most the transfer limit.
fn data(entry: &Entry, limits: &Limits, namespace: Namespace) -> Result<Payload, Status> {
    let count = u64::from(entry.cdw(Cdw::D12) & NLB) + 1;
    let bytes = count << namespace.block_shift;
    if bytes > limits.transfer() {
        return Err(Status::INVALID_FIELD);
    }
    let access = match entry.opcode() {
        READ => Access::Write,
        _ => Access::Read,
    };
    Ok(Payload {
        prp1: entry.prp1(),
        prp2: entry.prp2(),
        bytes: u32::try_from(bytes).map_err(|_| Status::INVALID_FIELD)?,
        access,
    })
}

/// Both PRP entries of a transfer for the device.
fn pages<G: Guest, L: List>(
    payload: &Payload,
    guest: &G,
    list: &mut L,
) -> Result<(Hpa, Option<Hpa>), Status> {
    // Most transfers of most guests.
    if payload.pages() <= 1 {
        return Ok((payload.first(guest)? + payload.offset().into(), None));
    }
    let mut entries = Entries::new(list);
    payload.walk(guest, &mut entries)?;
    entries.prps(payload)
}

/// A command that transfers blocks, without addresses.
fn transfer(entry: &Entry) -> DeviceCommand {
    let hints = match entry.opcode() {
        READ | WRITE => entry.cdw(Cdw::D13) & HINTS,
        _ => 0,
    };
    blocks(entry, NLB | FUA | LR).with(Cdw::D13, hints)
}

/// Dataset Management: its ranges hold block numbers only.
fn ranges(entry: &Entry) -> Bounce {
    let last = entry.cdw(Cdw::D10) & NR;
    let command = DeviceCommand::new(DATASET_MANAGEMENT, entry.nsid())
        .with(Cdw::D10, last)
        .with(Cdw::D11, entry.cdw(Cdw::D11) & ATTRIBUTES);
    let payload = Payload {
        prp1: entry.prp1(),
        prp2: entry.prp2(),
        bytes: (last + 1) * RANGE_BYTES,
        access: Access::Read,
    };
    Bounce { command, payload }
}
