// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Creation and deletion of I/O queues (Base 5.2.1 to 5.2.4).

use address::Gpa;

use super::admin::{Rules, Verdict};
use crate::guest::{Access, Guest};
use crate::limits::AdminState;
use crate::queue_set::QueueSet;
use crate::spec::{COMPLETION_BYTES, Cdw, ENTRY_BYTES, Entry, PAGE, Status};

const CONTIGUOUS: u32 = 1;
const INTERRUPTS: u32 = 1 << 1;

/// A completion queue that a guest asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewCompletionQueue {
    /// QID.
    pub id: u16,
    /// Entries.
    pub size: u16,
    /// Where it is.
    pub base: Gpa,
    /// The interrupt vector, unless it is polled.
    pub vector: Option<u16>,
}

/// A submission queue that a guest asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewSubmissionQueue {
    /// QID.
    pub id: u16,
    /// Entries.
    pub size: u16,
    /// Where it is.
    pub base: Gpa,
    /// The completion queue.
    pub completion_queue: u16,
}

/// What becomes of Create I/O Completion Queue.
///
/// # Errors
///
/// 1/01 for an identifier out of range or in use, 1/02 for a size, 0/13 for an offset, 0/02 for a queue that is not
/// contiguous or not RAM, 1/08 for a vector.
pub fn create_completion<G: Guest>(
    entry: &Entry,
    rules: &Rules<'_>,
    guest: &G,
) -> Result<Verdict, Status> {
    let Shape { id, size, base } = shape(entry, rules, rules.state.completion_queues)?;
    let bytes = u64::from(size) * COMPLETION_BYTES;
    check_memory(guest, base, bytes, Access::Write)?;
    let vector = entry.high(Cdw::D11);
    let vector = (entry.cdw(Cdw::D11) & INTERRUPTS != 0).then_some(vector);
    if vector.is_some_and(|vector| vector >= rules.limits.vectors) {
        return Err(Status::INVALID_VECTOR);
    }
    Ok(Verdict::CreateCompletionQueue(NewCompletionQueue {
        id,
        size,
        base,
        vector,
    }))
}

/// What becomes of Create I/O Submission Queue. Its priority is dropped.
///
/// # Errors
///
/// As [`create_completion`], and 1/00 for a completion queue that is not there.
pub fn create_submission<G: Guest>(
    entry: &Entry,
    rules: &Rules<'_>,
    guest: &G,
) -> Result<Verdict, Status> {
    let Shape { id, size, base } = shape(entry, rules, rules.state.submission_queues)?;
    let bytes = u64::from(size) * ENTRY_BYTES as u64;
    check_memory(guest, base, bytes, Access::Read)?;
    let completion_queue = entry.high(Cdw::D11);
    if !rules
        .state
        .live_completion_queues
        .contains(completion_queue)
    {
        return Err(Status::INVALID_COMPLETION_QUEUE);
    }
    Ok(Verdict::CreateSubmissionQueue(NewSubmissionQueue {
        id,
        size,
        base,
        completion_queue,
    }))
}

/// What becomes of Delete I/O Completion Queue.
///
/// # Errors
///
/// 1/01 for a queue that is not there, 1/0C for one that submission queues complete to.
pub fn delete_completion(entry: &Entry, rules: &Rules<'_>) -> Result<Verdict, Status> {
    let id = entry.low(Cdw::D10);
    let AdminState {
        live_completion_queues,
        used_queues,
        ..
    } = rules.state;
    if !live_completion_queues.contains(id) {
        return Err(Status::INVALID_QUEUE_ID);
    }
    if used_queues.contains(id) {
        return Err(Status::INVALID_QUEUE_DELETION);
    }
    Ok(Verdict::DeleteCompletionQueue(id))
}

/// What becomes of Delete I/O Submission Queue.
///
/// # Errors
///
/// 1/01 for a queue that is not there.
pub fn delete_submission(entry: &Entry, rules: &Rules<'_>) -> Result<Verdict, Status> {
    let id = entry.low(Cdw::D10);
    if !rules.state.live_submission_queues.contains(id) {
        return Err(Status::INVALID_QUEUE_ID);
    }
    Ok(Verdict::DeleteSubmissionQueue(id))
}

/// What both kinds of queue have.
struct Shape {
    id: u16,
    size: u16,
    base: Gpa,
}

fn shape(entry: &Entry, rules: &Rules<'_>, used: QueueSet) -> Result<Shape, Status> {
    let (id, last) = (entry.low(Cdw::D10), entry.high(Cdw::D10));
    if !rules.limits.is_queue(id) || used.contains(id) {
        return Err(Status::INVALID_QUEUE_ID);
    }
    if last == 0 || last >= rules.limits.depth {
        return Err(Status::INVALID_QUEUE_SIZE);
    }
    if !entry.prp1().is_multiple_of(PAGE) {
        return Err(Status::INVALID_PRP_OFFSET);
    }
    // Else PRP1 would be a list (CAP.CQR says that it is not).
    if entry.cdw(Cdw::D11) & CONTIGUOUS == 0 {
        return Err(Status::INVALID_FIELD);
    }
    Ok(Shape {
        id,
        size: last + 1,
        base: Gpa(entry.prp1()),
    })
}

/// Whether the pages of a queue of `bytes` bytes at `base`, which begins a page, are the guest's RAM.
pub(crate) fn is_memory<G: Guest>(guest: &G, base: Gpa, bytes: u64, access: Access) -> bool {
    base.checked_add(bytes).is_some()
        && (0..bytes.div_ceil(PAGE)).all(|page| guest.page(base + page * PAGE, access).is_some())
}

fn check_memory<G: Guest>(guest: &G, base: Gpa, bytes: u64, access: Access) -> Result<(), Status> {
    if is_memory(guest, base, bytes, access) {
        Ok(())
    } else {
        Err(Status::INVALID_FIELD)
    }
}
