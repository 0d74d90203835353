// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What lasts from one enable of a controller to the next.

use std::time::Duration;

use super::events::Events;
use super::script::Script;
use crate::limits::{AdminState, Limits, Optional};
use crate::namespaces::Namespaces;
use crate::queue::InUse;
use crate::registers::Control;
use crate::spec::admin::lid;
use crate::spec::{ALL_NAMESPACES, PAGE_BYTES};

/// The state of a guest's driver's session with its controller.
#[derive(Debug)]
pub(crate) struct Session {
    /// What is offered.
    pub limits: Limits,
    /// What the guest sees.
    pub namespaces: Namespaces,
    /// The guest's events.
    pub events: Events,
    /// The namespaces that have changed, for the guest to read.
    pub changed: ChangedNamespaces,
    /// The monitor's questions that are being asked.
    pub script: Option<Script>,
    /// When the last of them was asked, if it is not answered.
    pub asked_at: Option<Duration>,
    /// Namespaces have changed since they were last gone through.
    pub is_review_due: bool,
    /// Event requests that the device is to have, and those that it has.
    pub requests: Requests,
    /// When CSTS was last looked at.
    pub observed_at: Duration,
    /// CC.SHN, as the device was given it.
    pub shutdown: u32,
    /// The registers with which the controller was enabled, as they were checked: the guest may have stored others since.
    pub checked: Control,
}

/// The monitor's requests for events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Requests {
    /// How many the device is to have.
    pub wanted: u8,
    /// How many it has.
    pub open: u8,
}

impl Session {
    /// A session that begins with these questions.
    pub fn new(script: Script, now: Duration) -> Self {
        Self {
            limits: NOTHING,
            namespaces: Namespaces::default(),
            events: Events::default(),
            changed: ChangedNamespaces::default(),
            script: Some(script),
            asked_at: None,
            is_review_due: false,
            requests: Requests::default(),
            observed_at: now,
            shutdown: 0,
            checked: Control::default(),
        }
    }

    /// Whether no I/O command may be taken: what they were checked for may have changed.
    pub fn is_paused(&self) -> bool {
        self.script.is_some() || self.is_review_due
    }

    /// What admin commands depend on.
    pub fn admin_state(&self, queues: InUse) -> AdminState {
        AdminState {
            completion_queues: queues.completion,
            submission_queues: queues.submission,
            used_queues: queues.completed_to,
            live_completion_queues: queues.live_completion,
            live_submission_queues: queues.live_submission,
            open_events: self.events.open(),
            events: self.events.configuration,
        }
    }
}

/// Before anything is known.
const NOTHING: Limits = Limits {
    mdts: 0,
    depth: 2,
    queues: 0,
    vectors: 1,
    events: 0,
    optional: Optional::NONE,
    notices: 0,
    extended_logs: false,
    keep_alive: false,
};

/// The Changed Namespace List, as the guest will read it. The monitor reads the device's list after each notice, because the
/// device sends the next notice only after that.
#[derive(Clone, Debug, Default)]
pub(crate) struct ChangedNamespaces(Vec<u32>);

impl ChangedNamespaces {
    /// Most that a list names; more are shown as [`ALL_NAMESPACES`].
    const MOST: usize = PAGE_BYTES / 4;

    /// Adds what the device's list has.
    pub fn add(&mut self, changed: &[u32]) {
        self.0.extend_from_slice(changed);
        self.0.sort_unstable();
        self.0.dedup();
        let is_unknown = self.0.last() == Some(&ALL_NAMESPACES);
        if is_unknown || self.0.len() > Self::MOST {
            self.0.clear();
            self.0.push(ALL_NAMESPACES);
        }
    }

    /// The log page, from byte `offset` on.
    pub fn page(&self, offset: u64) -> [u8; PAGE_BYTES] {
        let mut data = [0; PAGE_BYTES];
        let skipped = usize::try_from(offset / 4).unwrap_or(usize::MAX);
        let ids = self.0.iter().skip(skipped);
        for (place, id) in data.chunks_exact_mut(4).zip(ids) {
            place.copy_from_slice(&id.to_le_bytes());
        }
        data
    }

    /// The guest has read it.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Its log page.
    pub const PAGE: u8 = lid::CHANGED_NAMESPACES;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(data: &[u8]) -> Vec<u32> {
        let ids = data.chunks_exact(4).map(|id| crate::bits::word32(id, 0));
        ids.take_while(|id| *id != 0).collect()
    }

    #[test]
    fn changes_add_up_until_they_are_read() {
        let mut changed = ChangedNamespaces::default();
        changed.add(&[3, 9]);
        changed.add(&[1, 3]);
        assert_eq!(ids(&changed.page(0)), [1, 3, 9]);
        assert_eq!(ids(&changed.page(8)), [9]);
        assert_eq!(ids(&changed.page(u64::MAX)), [0; 0]);
        changed.clear();
        assert_eq!(ids(&changed.page(0)), [0; 0]);
    }

    #[test]
    fn too_many_are_all() {
        let mut changed = ChangedNamespaces::default();
        let many: Vec<u32> = (1..=1024).collect();
        changed.add(&many);
        assert_eq!(ids(&changed.page(0)), many);
        changed.add(&[2000]);
        assert_eq!(ids(&changed.page(0)), [ALL_NAMESPACES]);
        changed.add(&[5]);
        assert_eq!(ids(&changed.page(0)), [ALL_NAMESPACES]);
    }
}
