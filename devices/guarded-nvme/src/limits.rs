// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a guest's controller offers: the least of what the device has and of what the monitor serves.

use crate::queue_set::{MAX_QUEUES, QueueSet};
use crate::spec::PAGE;

/// Largest MDTS offered: 2 MiB. Its list, of at most 512 entries, fits one page, so that the monitor's lists never chain.
pub const MAX_MDTS: u8 = 9;

/// Most entries of an I/O queue: a submission queue of these takes 16 KiB in one piece.
pub const MAX_DEPTH: u16 = 256;

/// Entries of an I/O queue where there is no such piece: its submission queue fits a page.
pub const SMALL_DEPTH: u16 = 64;

/// Most bytes of a log page that are read at once.
pub const MAX_LOG_BYTES: u32 = 128 << 10;

/// Most asynchronous event requests that a guest can have open: AERL is at most 3.
pub const MAX_EVENTS: u8 = 4;

/// What commands are checked against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// MDTS: the most bytes of a command are 2 to the power of this, in pages. At most [`MAX_MDTS`].
    pub mdts: u8,
    /// Entries of an I/O queue: CAP.MQES + 1.
    pub depth: u16,
    /// I/O queues of each kind. At most [`MAX_QUEUES`].
    pub queues: u16,
    /// Interrupt vectors.
    pub vectors: u16,
    /// Asynchronous event requests: AERL + 1.
    pub events: u8,
    /// ONCS, the optional commands offered.
    pub optional: Optional,
    /// OAES, the notices that the device can give: namespaces (bit 8) and firmware (bit 9).
    pub notices: u32,
    /// Whether log pages have offsets and lengths of 32 bits (LPA bit 2).
    pub extended_logs: bool,
    /// Whether the controller has Keep Alive (KAS is not 0).
    pub keep_alive: bool,
}

impl Limits {
    /// Most bytes that a command transfers.
    #[must_use]
    pub fn transfer(&self) -> u64 {
        PAGE << self.mdts.min(MAX_MDTS)
    }

    /// Most bytes of a log page that are read at once.
    #[must_use]
    pub fn log(&self) -> u64 {
        self.transfer().min(MAX_LOG_BYTES.into())
    }

    /// Whether `id` can be an I/O queue.
    #[must_use]
    pub fn is_queue(&self, id: u16) -> bool {
        (1..=self.queues.min(MAX_QUEUES)).contains(&id)
    }
}

/// Optional NVM commands (Identify Controller, ONCS: bytes 520 and 521).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Optional(u16);

impl Optional {
    /// None of them.
    pub const NONE: Self = Self(0);
    /// Compare.
    pub const COMPARE: Self = Self(1);
    /// Dataset Management.
    pub const DATASET_MANAGEMENT: Self = Self(1 << 2);
    /// Write Zeroes.
    pub const WRITE_ZEROES: Self = Self(1 << 3);
    /// Timestamp, a feature.
    pub const TIMESTAMP: Self = Self(1 << 6);
    /// Verify.
    pub const VERIFY: Self = Self(1 << 7);
    /// All that can be offered (bits 0, 2, 3, 6 and 7).
    pub const ALL: Self = Self(0xcd);

    /// What can be offered of a device's ONCS.
    #[must_use]
    pub const fn offered(oncs: u16) -> Self {
        Self(oncs & Self::ALL.0)
    }

    /// ONCS.
    #[must_use]
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// Whether all of `other` is offered.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// What a guest has made of its admin queue: it decides what some commands return.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdminState {
    /// Identifiers of I/O completion queues, of those that are being made or deleted too.
    pub completion_queues: QueueSet,
    /// Identifiers of I/O submission queues, of those that are being made or deleted too.
    pub submission_queues: QueueSet,
    /// Completion queues of these submission queues.
    pub used_queues: QueueSet,
    /// Completion queues that are in service.
    pub live_completion_queues: QueueSet,
    /// Submission queues that are in service.
    pub live_submission_queues: QueueSet,
    /// Asynchronous event requests that are open.
    pub open_events: u8,
    /// Asynchronous Event Configuration.
    pub events: u32,
}
