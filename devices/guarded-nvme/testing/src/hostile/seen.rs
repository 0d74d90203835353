// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What runs did.

/// What a run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The controller became ready.
    pub enabled: u64,
    /// The device executed Read, Write or Compare.
    pub transfers: u64,
    /// The device executed Dataset Management.
    pub trims: u64,
    /// The device made an I/O submission queue.
    pub created: u64,
    /// The device deleted one.
    pub deleted: u64,
    /// The device was asked to abort a command.
    pub aborted: u64,
    /// The device was reset.
    pub resets: u64,
    /// The guest saw a fatal status.
    pub faults: u64,
    /// A device could not be stopped, and was leaked.
    pub leaked: u64,
}

impl Seen {
    /// Adds what another run did.
    pub fn add(&mut self, other: &Self) {
        self.enabled += other.enabled;
        self.transfers += other.transfers;
        self.trims += other.trims;
        self.created += other.created;
        self.deleted += other.deleted;
        self.aborted += other.aborted;
        self.resets += other.resets;
        self.faults += other.faults;
        self.leaked += other.leaked;
    }

    /// Whether everything was seen.
    #[must_use]
    pub fn is_all(&self) -> bool {
        let all = [
            self.enabled,
            self.transfers,
            self.trims,
            self.created,
            self.deleted,
            self.aborted,
            self.resets,
            self.faults,
            self.leaked,
        ];
        all.iter().all(|count| *count > 0)
    }
}
