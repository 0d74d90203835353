// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! I/O commands: the NVM command set, for namespaces without metadata.

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
    decide(entry, rules, guest, list).unwrap_or_else(Verdict::Refuse)
}

fn decide<G: Guest, L: List>(
    entry: &Entry,
    rules: &Rules<'_>,
    guest: &G,
    list: &mut L,
) -> Result<Verdict, Status> {
    let opcode = entry.opcode();
    if !is_offered(opcode, rules.limits.optional) {
        return Err(Status::INVALID_OPCODE);
    }
    if !entry.is_plain() {
        return Err(Status::INVALID_FIELD);
    }
    let nsid = entry.nsid();
    let namespace = rules.namespaces.get(nsid);
    if opcode == FLUSH && nsid == ALL_NAMESPACES {
        return Ok(Verdict::Forward(DeviceCommand::new(FLUSH, nsid)));
    }
    let namespace = namespace.ok_or(Status::INVALID_NAMESPACE)?;
    match opcode {
        FLUSH => Ok(Verdict::Forward(DeviceCommand::new(FLUSH, nsid))),
        DATASET_MANAGEMENT => Ok(Verdict::Bounce(ranges(entry))),
        // No data, although they have a number of blocks. The device has limits of its own for them.
        WRITE_ZEROES => Ok(Verdict::Forward(blocks(entry, NLB | DEAC | FUA | LR))),
        VERIFY => Ok(Verdict::Forward(blocks(entry, NLB | FUA | LR))),
        _ => transfer(entry, data(entry, rules.limits, namespace)?, guest, list),
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

fn transfer<G: Guest, L: List>(
    entry: &Entry,
    payload: Payload,
    guest: &G,
    list: &mut L,
) -> Result<Verdict, Status> {
    let hints = match entry.opcode() {
        READ | WRITE => entry.cdw(Cdw::D13) & HINTS,
        _ => 0,
    };
    let command = blocks(entry, NLB | FUA | LR).with(Cdw::D13, hints);
    let mut entries = Entries::new(list);
    payload.walk(guest, &mut entries)?;
    Ok(Verdict::Forward(entries.place(command, &payload)?))
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
