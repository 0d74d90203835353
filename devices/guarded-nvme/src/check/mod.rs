// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The core: what becomes of one command of a guest's.
//!
//! It knows no queue, no register and no device: from the monitor's copy of an entry, the limits, the namespaces and the
//! guest's memory it makes a command for the device, or a status. Each list of what is allowed is a file:
//!
//! - [`io`]: I/O commands.
//! - [`admin`]: admin commands; of these [`identify`] has the structures, [`logs`] the log pages, [`features`] the features
//!   and [`queues`] creation and deletion.
//!
//! What is on no list is refused.

pub mod admin;
pub mod features;
pub mod identify;
pub mod io;
pub mod logs;
pub mod queues;

use address::Hpa;

use crate::prp::{Page, PageSink, Payload};
use crate::spec::{DeviceCommand, Status};

pub use admin::{Answer, Filter, Outcome};
pub use queues::{NewCompletionQueue, NewSubmissionQueue};

/// A PRP list in memory of the monitor's, that only a device reads: the chunk of one command.
pub trait List {
    /// Where slot 0 is for the device: a multiple of 8 bytes, and no slot is on another page.
    fn address(&self) -> Hpa;

    /// How many slots there are.
    fn slots(&self) -> u32;

    /// Stores an entry.
    fn set(&mut self, slot: u32, page: Hpa);
}

/// A command whose data goes through memory of the monitor's, and what the guest's side of it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounce {
    /// The command, without addresses: they will be the monitor's.
    pub command: DeviceCommand,
    /// Where the data is in the guest, by the guest's own entries.
    pub payload: Payload,
}

/// Takes the pages of a payload for the device: the first two for the command itself, all but the first for the list.
pub(crate) struct Entries<'a, L> {
    list: &'a mut L,
    first: Option<Hpa>,
    second: Option<Hpa>,
}

impl<'a, L: List> Entries<'a, L> {
    pub fn new(list: &'a mut L) -> Self {
        Self {
            list,
            first: None,
            second: None,
        }
    }

    /// Both PRP entries of `payload`, whose pages were taken: of three and more the second is the list's address.
    pub fn prps(&self, payload: &Payload) -> Result<(Hpa, Option<Hpa>), Status> {
        let first = self.first.ok_or(Status::DATA_TRANSFER_ERROR)? + payload.offset().into();
        let second = match payload.pages() {
            0 | 1 => None,
            2 => self.second,
            _ => Some(self.list.address()),
        };
        Ok((first, second))
    }
}

impl<L: List> PageSink for Entries<'_, L> {
    /// The second page goes to the list only when there is a third.
    fn page(&mut self, page: Page) -> Result<(), Status> {
        let Some(slot) = page.index.checked_sub(1) else {
            self.first = Some(page.hpa);
            return Ok(());
        };
        // The transfer limit ensures it; a slot past the end would be another command's.
        if slot >= self.list.slots() {
            return Err(Status::INVALID_FIELD);
        }
        if slot == 0 {
            self.second = Some(page.hpa);
            return Ok(());
        }
        if let Some(second) = self.second.filter(|_| slot == 1) {
            self.list.set(0, second);
        }
        self.list.set(slot, page.hpa);
        Ok(())
    }
}
