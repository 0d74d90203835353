// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a device says of itself, and what of it a guest is offered.

use crate::bits::{word16, word32};
use crate::fault::Unsuitable;
use crate::limits::{Limits, MAX_EVENTS, Optional};
use crate::queue::Plan;
use crate::spec::PAGE_BYTES;
use crate::spec::identify::controller as at;

/// Entries of 64 and of 16 bytes, as SQES and CQES name them: least in bits 3:0, most in bits 7:4.
const ENTRY_SIZES: [u8; 2] = [6, 4];

/// Identify Controller, as far as it is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// CNTLID.
    pub id: u16,
    /// CMIC bit 1: the subsystem may have other controllers.
    pub may_be_shared: bool,
    /// MDTS; 0 where there is no limit.
    mdts: u8,
    /// AERL + 1.
    events: u16,
    optional: Optional,
    /// OAES, of the notices that are offered.
    pub notices: u32,
    extended_logs: bool,
    keep_alive: bool,
    /// I/O queues that the device gave.
    pub queues: u16,
}

impl Facts {
    /// Of Identify Controller.
    ///
    /// # Errors
    ///
    /// If it is not a controller for I/O, or does not have the entries that are offered.
    pub fn new(data: &[u8; PAGE_BYTES]) -> Result<Self, Unsuitable> {
        // 0 is reported by controllers before 1.4.
        if !matches!(data[at::TYPE], 0 | 1) {
            return Err(Unsuitable::Type(data[at::TYPE]));
        }
        let sizes = [data[at::SQES], data[at::CQES]];
        let holds = |(sizes, wanted): (u8, u8)| sizes & 0xf <= wanted && wanted <= sizes >> 4;
        if !sizes.into_iter().zip(ENTRY_SIZES).all(holds) {
            let [submission, completion] = sizes;
            return Err(Unsuitable::EntrySizes {
                submission,
                completion,
            });
        }
        Ok(Self {
            id: word16(data, at::ID),
            may_be_shared: data[at::CMIC] & at::SEVERAL_CONTROLLERS != 0,
            mdts: data[at::MDTS],
            events: u16::from(data[at::AERL]) + 1,
            optional: Optional::offered(word16(data, at::ONCS)),
            notices: word32(data, at::EVENTS) & at::EVENTS_OFFERED,
            extended_logs: data[at::LPA] & at::LPA_EXTENDED != 0,
            keep_alive: word16(data, at::KEEP_ALIVE) != 0,
            queues: 0,
        })
    }

    /// How many event requests the monitor keeps open.
    pub fn event_requests(&self) -> u8 {
        u8::try_from(self.events).map_or(MAX_EVENTS, |events| events.min(MAX_EVENTS))
    }

    /// What a guest is offered with memory by `plan` and the given number of interrupt vectors.
    pub fn limits(&self, plan: Plan, vectors: u16) -> Limits {
        let mdts = match self.mdts {
            0 => plan.mdts,
            limit => limit.min(plan.mdts),
        };
        Limits {
            mdts,
            depth: plan.depth,
            queues: self.queues.min(plan.queues),
            vectors,
            events: self.event_requests(),
            optional: self.optional,
            notices: self.notices,
            extended_logs: self.extended_logs,
            keep_alive: self.keep_alive,
        }
    }
}

/// The first controller of a list (CNS 13h) that is not `own`.
pub(crate) fn other_controller(list: &[u8; PAGE_BYTES], own: u16) -> Option<u16> {
    let count = usize::from(word16(list, 0)).min(PAGE_BYTES / 2 - 1);
    let ids = (1..=count).map(|place| word16(list, 2 * place));
    ids.into_iter().find(|id| *id != own)
}

/// The identifiers of a list of namespaces after `after`: ascending, up to the first that is not.
pub(crate) fn namespace_list(list: &[u8; PAGE_BYTES], after: u32) -> Vec<u32> {
    let mut last = after;
    let ids = (0..PAGE_BYTES).step_by(4).map(|place| word32(list, place));
    ids.take_while(|id| {
        let is_next = *id > last;
        last = *id;
        is_next
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> [u8; PAGE_BYTES] {
        let mut data = [0; PAGE_BYTES];
        data[at::SQES] = 0x66;
        data[at::CQES] = 0x44;
        data
    }

    const PLAN: Plan = Plan {
        queues: 4,
        depth: 256,
        mdts: 9,
    };

    #[test]
    fn a_device_without_a_limit_gets_that_of_the_plan() {
        for (found, shown) in [(0, 9), (1, 1), (5, 5), (9, 9), (10, 9), (255, 9)] {
            let mut data = plain();
            data[at::MDTS] = found;
            assert_eq!(Facts::new(&data).unwrap().limits(PLAN, 3).mdts, shown);
        }
        let mut data = plain();
        data[at::AERL] = 255;
        let mut facts = Facts::new(&data).unwrap();
        facts.queues = 64;
        let limits = facts.limits(PLAN, 3);
        assert_eq!((limits.events, limits.queues, limits.vectors), (4, 4, 3));
    }

    #[test]
    fn other_kinds_of_controllers_and_entries_are_refused() {
        let mut data = plain();
        data[at::TYPE] = 2;
        assert_eq!(Facts::new(&data), Err(Unsuitable::Type(2)));
        for sizes in [[0x77, 0x44], [0x55, 0x44], [0x66, 0x55], [0, 0]] {
            let mut data = plain();
            [data[at::SQES], data[at::CQES]] = sizes;
            let [submission, completion] = sizes;
            let expected = Unsuitable::EntrySizes {
                submission,
                completion,
            };
            assert_eq!(Facts::new(&data), Err(expected));
        }
    }

    #[test]
    fn lists_are_read_as_far_as_they_make_sense() {
        let mut list = [0; PAGE_BYTES];
        assert_eq!(other_controller(&list, 7), None);
        list[..6].copy_from_slice(&[2, 0, 7, 0, 9, 0]);
        assert_eq!(other_controller(&list, 7), Some(9));
        assert_eq!(other_controller(&list, 9), Some(7));
        list[0] = 1;
        assert_eq!(other_controller(&list, 7), None);
        assert_eq!(other_controller(&[0xff; PAGE_BYTES], 7), Some(0xffff));
        let mut list = [0; PAGE_BYTES];
        for (place, id) in [1_u32, 2, 5, 5, 9].iter().enumerate() {
            list[4 * place..4 * place + 4].copy_from_slice(&id.to_le_bytes());
        }
        assert_eq!(namespace_list(&list, 0), [1, 2, 5]);
        assert_eq!(namespace_list(&list, 1), [0; 0]);
        assert_eq!(namespace_list(&[0xff; PAGE_BYTES], 0), [u32::MAX]);
    }
}
