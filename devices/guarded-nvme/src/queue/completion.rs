// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A pair of completion queues: the device's, and the guest's.

use super::guest_side::GuestCompletions;
use super::ring::CompletionRing;
use crate::check::NewCompletionQueue;
use crate::device::Block;
use crate::fault::Fault;
use crate::guest::Machine;
use crate::spec::Completion;

/// How far a queue has come. Only a live one is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The device does not have it.
    #[default]
    Closed,
    /// The device was asked to make it.
    Creating,
    /// It is in use.
    Live,
    /// The device was asked to delete it.
    Deleting,
}

/// A completion queue with this identifier, whether there is one at the moment or not.
#[derive(Debug)]
pub(crate) struct CompletionQueue<B> {
    /// What the device writes.
    pub ring: CompletionRing<B>,
    /// What the guest reads.
    pub guest: GuestCompletions,
    stage: Stage,
    vector: Option<u16>,
    is_posted: bool,
}

impl<B: Block> CompletionQueue<B> {
    /// A queue that the device does not have.
    pub fn new(ring: CompletionRing<B>) -> Self {
        Self {
            ring,
            guest: GuestCompletions::new(address::Gpa(0), 0),
            stage: Stage::Closed,
            vector: None,
            is_posted: false,
        }
    }

    /// The guest asks for it.
    pub fn open(&mut self, new: &NewCompletionQueue) {
        self.ring.restart();
        self.guest = GuestCompletions::new(new.base, new.size);
        self.stage = Stage::Creating;
        self.vector = new.vector;
        self.is_posted = false;
    }

    /// How far it has come.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// It has come further.
    pub fn set_stage(&mut self, stage: Stage) {
        self.stage = stage;
    }

    /// Writes a completion for the guest, to be signalled by [`signal`](Self::signal).
    pub fn post<M: Machine>(&mut self, machine: &M, completion: Completion) -> Result<(), Fault> {
        self.is_posted = true;
        self.guest.post(machine, completion)
    }

    /// One interrupt for what was written since the last.
    pub fn signal<M: Machine>(&mut self, machine: &M) {
        let vector = self.vector.filter(|_| self.is_posted);
        self.is_posted = false;
        if let Some(vector) = vector {
            machine.raise(vector);
        }
    }
}
