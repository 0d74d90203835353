// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Queues: the guest's, and the monitor's own that the device sees in their place.
//!
//! The device reads commands from a ring that the monitor alone writes ([`ring`]), and writes completions to one that the
//! guest cannot reach. Which entries it has consumed, and which command a completion is for, is only believed from there.
//! Command identifiers are the monitor's: the index in the table of outstanding commands ([`slots`]). A PRP list is a chunk
//! of that command's ([`lists`]) until it completes. The guest's side is in [`guest_side`].
//!
//! A pair of queues shares nothing with others, and nothing is allocated once it is there.

mod admin;
mod completion;
mod guest_side;
mod io;
mod lists;
mod memory;
mod ring;
mod slots;
mod submission;

use crate::device::{Block, Device};

pub(crate) use admin::{AdminQueue, Buffer, Fetched, GuestJob, Job, Work};
pub(crate) use completion::Stage;
pub(crate) use guest_side::{GuestCompletions, GuestSubmissions};
pub(crate) use io::{InUse, IoQueues, Served, Surroundings};
pub(crate) use memory::Plan;

use memory::{QueueMemory, pages};

/// All queues of a controller, and the memory that its device sees.
#[derive(Debug)]
pub(crate) struct Queues<B> {
    /// The admin queue.
    pub admin: AdminQueue<B>,
    /// I/O queues.
    pub io: IoQueues<B>,
    /// A page that no command is about; ends of lists name it.
    _scratch: B,
}

/// Pages that [`Queues::allocate`] takes.
pub(crate) fn needed_pages(plan: Plan) -> usize {
    1 + admin::PAGES + memory::pairs_pages(plan)
}

impl<B: Block> Queues<B> {
    /// Memory for all of it, if there is any.
    pub fn allocate<D: Device<Block = B>>(device: &mut D, plan: Plan) -> Option<Self> {
        let scratch = pages(device, 1)?;
        let admin = AdminQueue::allocate(device, scratch.hpa(0))?;
        let memory: Option<Vec<_>> = (0..plan.queues)
            .map(|_| QueueMemory::allocate(device, plan))
            .collect();
        let io = IoQueues::new(memory?, plan, scratch.hpa(0));
        Some(Self {
            admin,
            io,
            _scratch: scratch,
        })
    }

    /// Whether the device has no command that ends by itself: requests for events are not looked at.
    pub fn are_idle(&self) -> bool {
        self.admin.is_idle() && self.io.are_idle()
    }

    /// The device has no queue and no command any more.
    pub fn restart(&mut self) {
        self.admin.restart();
        self.io.restart();
    }
}
