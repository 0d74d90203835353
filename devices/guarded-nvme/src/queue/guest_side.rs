// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The rings that the guest sees: in its memory, which it can change at any time.

use address::Gpa;

use super::ring::{after, distance};
use crate::bits::{low16, low32};
use crate::fault::Fault;
use crate::guest::Guest;
use crate::spec::{COMPLETION_BYTES, Completion, ENTRY_BYTES, Entry};

/// A doorbell value that its queue cannot have. It is ignored, and reported once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadDoorbell;

/// Remembers the last bad value, as a doorbell is looked at again and again.
#[derive(Clone, Copy, Debug, Default)]
struct Reported(Option<u16>);

impl Reported {
    /// An error if this bad value is new.
    fn report(&mut self, value: u16) -> Result<(), BadDoorbell> {
        match self.0.replace(value) {
            Some(old) if old == value => Ok(()),
            _ => Err(BadDoorbell),
        }
    }
}

/// A submission queue of the guest's.
#[derive(Debug)]
pub(crate) struct GuestSubmissions {
    base: Gpa,
    size: u16,
    /// Entries before it have been copied. It is what the guest is shown as SQHD.
    head: u16,
    reported: Reported,
}

impl GuestSubmissions {
    /// A queue of `size` entries at `base`.
    pub fn new(base: Gpa, size: u16) -> Self {
        Self {
            base,
            size,
            head: 0,
            reported: Reported::default(),
        }
    }

    /// SQHD.
    pub fn head(&self) -> u16 {
        self.head
    }

    /// How many entries there are by the doorbell's value, whose upper half is reserved. A guest that overruns its ring loses
    /// commands of its own.
    pub fn pending(&mut self, doorbell: u32) -> Result<u16, BadDoorbell> {
        let tail = low16(doorbell);
        if tail >= self.size {
            return self.reported.report(tail).map(|()| 0);
        }
        self.reported = Reported::default();
        Ok(distance(self.head, tail, self.size))
    }

    /// Copies the next entry: the only time that it is read.
    pub fn fetch<G: Guest>(&mut self, guest: &G) -> Result<Entry, Fault> {
        let gpa = self.base + u64::from(self.head) * ENTRY_BYTES as u64;
        let mut bytes = [0; ENTRY_BYTES];
        if !guest.read(gpa, &mut bytes) {
            return Err(Fault::QueueMemory(gpa));
        }
        self.head = after(self.head, self.size);
        Ok(Entry::from_bytes(&bytes))
    }
}

/// A completion queue of the guest's.
#[derive(Debug)]
pub(crate) struct GuestCompletions {
    base: Gpa,
    size: u16,
    tail: u16,
    phase: bool,
    /// The guest has read entries before it.
    head: u16,
    /// Completions that commands which were taken will post.
    owed: u16,
    reported: Reported,
}

impl GuestCompletions {
    /// A queue of `size` entries at `base`.
    pub fn new(base: Gpa, size: u16) -> Self {
        Self {
            base,
            size,
            tail: 0,
            phase: true,
            head: 0,
            owed: 0,
            reported: Reported::default(),
        }
    }

    /// Takes note of the doorbell's value, whose upper half is reserved.
    pub fn read_up_to(&mut self, doorbell: u32) -> Result<(), BadDoorbell> {
        let head = low16(doorbell);
        let unread = distance(self.head, self.tail, self.size);
        if head >= self.size || distance(self.head, head, self.size) > unread {
            return self.reported.report(head);
        }
        self.reported = Reported::default();
        self.head = head;
        Ok(())
    }

    /// Whether one more command can be taken: its completion has a place for certain, so none is ever lost.
    pub fn has_room(&self) -> bool {
        let unread = distance(self.head, self.tail, self.size);
        u32::from(unread) + u32::from(self.owed) + 1 < u32::from(self.size)
    }

    /// Keeps a place for the completion of a command that is taken.
    pub fn reserve(&mut self) {
        self.owed = self.owed.saturating_add(1);
    }

    /// A place that was kept is not needed for now.
    pub fn give_back(&mut self) {
        self.owed = self.owed.saturating_sub(1);
    }

    /// Writes a completion in a place that was kept.
    pub fn post<G: Guest>(&mut self, guest: &G, completion: Completion) -> Result<(), Fault> {
        self.owed = self.owed.saturating_sub(1);
        let gpa = self.base + u64::from(self.tail) * COMPLETION_BYTES;
        let [first, second] = completion.words(self.phase);
        // The phase tag is in the second word, which no store passes.
        let is_written = guest.write(gpa, &u64::from(low32(first)).to_le_bytes())
            && guest.publish(gpa + 8, second);
        if !is_written {
            return Err(Fault::QueueMemory(gpa));
        }
        self.tail = after(self.tail, self.size);
        self.phase ^= self.tail == 0;
        Ok(())
    }
}
