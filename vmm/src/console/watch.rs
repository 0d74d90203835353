//! The console's part of the event loop: input, room for it, and clients.

use std::os::fd::AsRawFd;
use std::sync::Arc;

use event_manager::{EventOps, Events, MutEventSubscriber};
use vmm_sys_util::epoll::EventSet;

use super::input::InputState;
use super::{Console, GuestSerial, Outlet};
use crate::exit::{ExitReason, ExitSender};

/// Tags of what is watched.
const INPUT: u32 = 0;
const ROOM: u32 = 1;
const CLIENT: u32 = 2;

/// Passes input on to the guest, and tells when the user wants to end it.
#[derive(Debug)]
pub struct ConsoleWatcher<'a> {
    console: &'a mut Console,
    serial: Arc<GuestSerial>,
    exit: ExitSender,
}

impl<'a> ConsoleWatcher<'a> {
    /// Watches `console` for `serial`.
    pub fn new(console: &'a mut Console, serial: Arc<GuestSerial>, exit: ExitSender) -> Self {
        Self {
            console,
            serial,
            exit,
        }
    }

    fn input_events(&self, set: EventSet) -> Option<Events> {
        let input = self.console.input.as_ref()?;
        Some(Events::with_data(&input.source(), INPUT, set))
    }

    fn is_client(&self) -> bool {
        matches!(self.console.outlet, Outlet::Socket(..))
    }

    /// Reads what there is; holds when the guest has no room.
    fn read(&mut self, found: EventSet, ops: &mut EventOps<'_>) {
        let Some(input) = &mut self.console.input else {
            return;
        };
        let state = if found.contains(EventSet::IN) {
            input.read(&self.serial)
        } else {
            input.end()
        };
        let held = input.is_held();
        let gone = found.intersects(EventSet::HANG_UP | EventSet::ERROR);
        match state {
            InputState::Quit => self.exit.send(ExitReason::Quit),
            InputState::Gone => {
                self.stop_reading(ops);
                self.exit.send(ExitReason::TerminalGone);
            }
            InputState::Closed if self.is_client() && !gone => self.await_hang_up(ops),
            InputState::Closed => {
                self.stop_reading(ops);
                self.console.disconnect();
            }
            InputState::Open if held && self.is_client() => self.await_hang_up(ops),
            InputState::Open if held => self.stop_reading(ops),
            InputState::Open => {}
        }
    }

    fn stop_reading(&self, ops: &mut EventOps<'_>) {
        if let Some(events) = self.input_events(EventSet::IN)
            && let Err(error) = ops.remove(events)
        {
            log::warn!("Cannot stop reading input: {error}");
        }
    }

    /// Of a client that says nothing more, or shall not, the end is still of interest: the next
    /// one can have its place.
    fn await_hang_up(&self, ops: &mut EventOps<'_>) {
        if let Some(events) = self.input_events(EventSet::empty())
            && let Err(error) = ops.modify(events)
        {
            log::warn!("Cannot stop reading input: {error}");
        }
    }

    /// The guest has read what it had.
    fn resume(&mut self, ops: &mut EventOps<'_>) {
        // The count does not matter.
        let _ = self.console.room.read();
        let is_client = self.is_client();
        let Some(input) = &mut self.console.input else {
            return;
        };
        let was_held = input.is_held();
        input.hand_over(&self.serial);
        if !was_held || input.is_held() {
            return;
        }
        let Some(events) = self.input_events(EventSet::IN) else {
            return;
        };
        let result = if is_client {
            ops.modify(events)
        } else {
            ops.add(events)
        };
        if let Err(error) = result {
            log::warn!("Cannot go on reading input: {error}");
        }
    }

    fn accept(&mut self, ops: &mut EventOps<'_>) {
        match self.console.accept() {
            Ok(true) => self.watch_input(ops),
            Ok(false) => {}
            Err(error) => log::warn!("A client cannot connect to the serial port: {error}"),
        }
    }

    /// Not every input can be waited for: a file or /dev/null cannot, and has nothing to say.
    fn watch_input(&self, ops: &mut EventOps<'_>) {
        if let Some(events) = self.input_events(EventSet::IN)
            && let Err(error) = ops.add(events)
        {
            log::debug!("Input is not read: {error}");
        }
    }
}

impl MutEventSubscriber for ConsoleWatcher<'_> {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        let room = Events::with_data(&self.console.room, ROOM, EventSet::IN);
        let listener = self.console.listener();
        let clients = listener.map(|listener| Events::with_data(listener, CLIENT, EventSet::IN));
        for events in [Some(room), clients].into_iter().flatten() {
            if let Err(error) = ops.add(events) {
                log::error!("Cannot watch descriptor {}: {error}", events.fd());
            }
        }
        self.watch_input(ops);
    }

    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        match events.data() {
            // Not of an input that is gone by now.
            INPUT
                if self
                    .console
                    .input
                    .as_ref()
                    .is_some_and(|input| input.source().as_raw_fd() == events.fd()) =>
            {
                self.read(events.event_set(), ops);
            }
            ROOM => self.resume(ops),
            CLIENT => self.accept(ops),
            _ => {}
        }
    }
}
