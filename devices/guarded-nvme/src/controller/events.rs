// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Asynchronous events: between the device's requests, which are the monitor's, and the guest's.

use crate::bits::byte;
use crate::limits::MAX_EVENTS;
use crate::spec::admin::{FIRMWARE_NOTICES, NAMESPACE_NOTICES, lid};

/// An event that a guest can get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// An error, with its information code.
    Error(u8),
    /// SMART / health, with its information code.
    Health(u8),
    /// Namespaces have changed.
    Namespaces,
    /// Firmware is being activated.
    Firmware,
}

impl Event {
    /// A store to a doorbell that has no queue.
    pub const BAD_DOORBELL: Self = Self::Error(0);
    /// A doorbell value that its queue cannot have.
    pub const BAD_VALUE: Self = Self::Error(1);

    /// The event of a device's completion: type in bits 2:0, information in 15:8. Those of other types are not passed on, as
    /// their log pages are not.
    pub fn from_result(result: u32) -> Option<Self> {
        match (byte(result, 0) & 7, byte(result, 1)) {
            (0, code) => Some(Self::Error(code)),
            (1, code) => Some(Self::Health(code)),
            (2, 0) => Some(Self::Namespaces),
            (2, 1) => Some(Self::Firmware),
            _ => None,
        }
    }

    /// DW0 of the guest's completion, with the log page that explains it in bits 23:16.
    fn result(self) -> u32 {
        let (kind, code) = match self {
            Self::Error(code) => (0, code),
            Self::Health(code) => (1, code),
            Self::Namespaces => (2, 0),
            Self::Firmware => (2, 1),
        };
        kind | u32::from(code) << 8 | u32::from(self.page()) << 16
    }

    fn page(self) -> u8 {
        match self {
            Self::Error(_) => lid::ERRORS,
            Self::Health(_) => lid::HEALTH,
            Self::Namespaces => lid::CHANGED_NAMESPACES,
            Self::Firmware => lid::FIRMWARE_SLOTS,
        }
    }

    fn place(self) -> usize {
        match self {
            Self::Error(_) => 0,
            Self::Health(_) => 1,
            Self::Namespaces => 2,
            Self::Firmware => 3,
        }
    }

    /// Whether the guest wants it, by its Asynchronous Event Configuration. Errors are always reported, and of health the
    /// device only reports what the guest wants.
    fn is_wanted(self, configuration: u32) -> bool {
        match self {
            Self::Error(_) | Self::Health(_) => true,
            Self::Namespaces => configuration & NAMESPACE_NOTICES != 0,
            Self::Firmware => configuration & FIRMWARE_NOTICES != 0,
        }
    }
}

/// What became of the events of one kind.
#[derive(Clone, Copy, Debug, Default)]
struct Kind {
    pending: Option<Event>,
    /// The guest was given one, and has not read its log page yet.
    is_masked: bool,
}

/// The guest's events.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Events {
    /// Asynchronous Event Configuration.
    pub configuration: u32,
    kinds: [Kind; 4],
    held: [u16; MAX_EVENTS as usize],
    count: u8,
}

impl Events {
    /// How many requests of the guest's are open.
    pub fn open(&self) -> u8 {
        self.count
    }

    /// The guest's request `cid` stays open. There are not more than are offered.
    pub fn hold(&mut self, cid: u16) {
        if let Some(place) = self.held.get_mut(usize::from(self.count)) {
            *place = cid;
            self.count += 1;
        }
    }

    /// Something has happened. Of each kind, one event waits for the guest.
    pub fn report(&mut self, event: Event) {
        if event.is_wanted(self.configuration) {
            let kind = &mut self.kinds[event.place()];
            kind.pending = kind.pending.or(Some(event));
        }
    }

    /// Whether there is an event for an open request.
    pub fn is_due(&self) -> bool {
        self.count > 0 && self.kinds.iter().any(Kind::is_due)
    }

    /// The oldest open request, and the result that it completes with.
    pub fn take(&mut self) -> Option<(u16, u32)> {
        if self.count == 0 {
            return None;
        }
        let kind = self.kinds.iter_mut().find(|kind| kind.is_due())?;
        kind.is_masked = true;
        let event = kind.pending.take()?;
        let cid = self.held[0];
        self.held.rotate_left(1);
        self.count -= 1;
        Some((cid, event.result()))
    }

    /// The guest has read a log page, without the wish to keep its event.
    pub fn read_page(&mut self, page: u8) {
        let events = [
            Event::BAD_VALUE,
            Event::Health(0),
            Event::Namespaces,
            Event::Firmware,
        ];
        for event in events {
            if event.page() == page {
                self.kinds[event.place()].is_masked = false;
            }
        }
    }
}

impl Kind {
    fn is_due(&self) -> bool {
        self.pending.is_some() && !self.is_masked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_waits_for_a_request_and_for_its_log_page() {
        let mut events = Events::default();
        events.report(Event::BAD_VALUE);
        events.report(Event::BAD_DOORBELL);
        assert!(!events.is_due());
        assert_eq!(events.take(), None);
        events.hold(7);
        events.hold(8);
        assert!(events.is_due());
        assert_eq!(
            events.take(),
            Some((7, 0x01_0100)),
            "the first one of its kind"
        );
        events.report(Event::BAD_DOORBELL);
        assert_eq!(events.take(), None, "masked");
        events.report(Event::Health(1));
        assert_eq!(events.take(), Some((8, 0x02_0101)), "another kind is not");
        events.hold(9);
        events.read_page(lid::HEALTH);
        assert_eq!(events.take(), None);
        events.read_page(lid::ERRORS);
        assert_eq!(events.take(), Some((9, 0x01_0000)));
        assert_eq!(events.open(), 0);
    }

    #[test]
    fn notices_are_for_those_who_want_them() {
        for (event, bit, result) in [
            (Event::Namespaces, 1 << 8, 0x04_0002),
            (Event::Firmware, 1 << 9, 0x03_0102),
        ] {
            let mut events = Events::default();
            events.hold(1);
            events.report(event);
            assert_eq!(events.take(), None);
            events.configuration = bit;
            events.report(event);
            assert_eq!(events.take(), Some((1, result)));
        }
    }

    #[test]
    fn events_of_the_device_are_known_by_their_codes_only() {
        assert_eq!(Event::from_result(0xc0_0300), Some(Event::Error(3)));
        assert_eq!(Event::from_result(0x02_0101), Some(Event::Health(1)));
        assert_eq!(Event::from_result(0x04_0002), Some(Event::Namespaces));
        assert_eq!(Event::from_result(0x03_0102), Some(Event::Firmware));
        for other in [0x0202, 0x0006, 0x0007, 0xf002] {
            assert_eq!(Event::from_result(other), None, "{other:#x}");
        }
    }

    #[test]
    fn no_more_requests_are_held_than_are_offered() {
        let mut events = Events::default();
        for cid in 0..9 {
            events.hold(cid);
        }
        assert_eq!(events.open(), MAX_EVENTS);
    }
}
