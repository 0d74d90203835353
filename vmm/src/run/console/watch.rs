// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The console's part of the event loop: input, room for it, and clients.

use std::os::fd::AsRawFd;
use std::sync::Arc;

use event_manager::{EventOps, Events, MutEventSubscriber};
use vmm_sys_util::epoll::EventSet;

use super::input::InputState;
use super::{Console, GuestSerial, Outlet};
use crate::run::exit::{ExitReason, ExitSender};

/// Tags of what is watched.
const INPUT: u32 = 0;
const ROOM: u32 = 1;
const CLIENT: u32 = 2;

/// Passes input on to the guest, and reports when the user ends it.
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

    /// Reads what is available; pauses when the guest has no room.
    fn read(&mut self, found: EventSet, ops: &mut EventOps<'_>) {
        let Some(input) = &mut self.console.input else {
            return;
        };
        let gone = found.intersects(EventSet::HANG_UP | EventSet::ERROR);
        // A client that has written all and left; the next one need not wait for the guest.
        if gone && input.is_held() {
            input.read_rest();
            self.disconnect(ops);
            return;
        }
        let state = if found.contains(EventSet::IN) {
            input.read(&self.serial)
        } else {
            input.end()
        };
        let held = input.is_held();
        match state {
            InputState::Quit => self.exit.send(ExitReason::Quit),
            InputState::Gone => {
                self.stop_reading(ops);
                self.exit.send(ExitReason::TerminalGone);
            }
            InputState::Closed if self.is_client() && !gone => self.await_hang_up(ops),
            InputState::Closed => self.disconnect(ops),
            InputState::Open if held && self.is_client() => self.await_hang_up(ops),
            InputState::Open if held => self.stop_reading(ops),
            InputState::Open => {}
        }
    }

    fn disconnect(&mut self, ops: &mut EventOps<'_>) {
        self.stop_reading(ops);
        self.console.disconnect();
        // One that could not connect for lack of descriptors may be waiting.
        self.accept(ops);
    }

    fn stop_reading(&self, ops: &mut EventOps<'_>) {
        if let Some(events) = self.input_events(EventSet::IN)
            && let Err(error) = ops.remove(events)
        {
            log::warn!("Cannot stop reading input: {error}");
        }
    }

    /// The end of a client that sends no more, or may not, still matters: the next one can have its
    /// place.
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
            self.console.left_behind.hand_over(&self.serial);
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
            log::warn!("Cannot continue to read input: {error}");
        }
    }

    /// All that wait are taken, since the event comes once for each that arrives. One that cannot
    /// be is tried again when another arrives or leaves; an event that stays would come without end.
    fn accept(&mut self, ops: &mut EventOps<'_>) {
        let had_client = self.console.input.is_some();
        if let Err(error) = self.console.accept() {
            log::warn!("A client cannot connect to the serial port: {error}");
        }
        if !had_client && self.console.input.is_some() {
            self.watch_input(ops);
        }
    }

    /// Not every input can be waited for: a file or /dev/null cannot, and reports nothing.
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
        let arrivals = EventSet::IN | EventSet::EDGE_TRIGGERED;
        let clients = listener.map(|listener| Events::with_data(listener, CLIENT, arrivals));
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

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::Shutdown;
    use std::os::unix::net::UnixStream;
    use std::time::Instant;

    use devices::serial::BASE_PORT;
    use event_manager::{EventManager, SubscriberOps};
    use vm_device::DevicePio;
    use vm_device::bus::PioAddress;

    use super::*;
    use crate::config::SerialConfig;
    use crate::confine::Confinement;
    use crate::kvm::eventfd;
    use crate::run::exit;

    /// In the line status register: input is there.
    const DATA_READY: u8 = 1;

    /// What the guest reads of its input at once.
    fn read(serial: &GuestSerial) -> Vec<u8> {
        let register = |offset| {
            let mut data = [0];
            serial.pio_read(PioAddress(BASE_PORT), offset, &mut data);
            data[0]
        };
        let next = || (register(5) & DATA_READY != 0).then(|| register(0));
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn what_a_client_wrote_arrives_though_it_left_and_another_came() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("serial");
        let mut console =
            Console::open(&SerialConfig::Socket(path.clone()), &Confinement::default()).unwrap();
        let serial = Arc::new(console.serial_port(eventfd::new().unwrap()).unwrap());
        let (exits, _) = exit::channel().unwrap();
        let mut manager = EventManager::new().unwrap();
        let watcher = ConsoleWatcher::new(&mut console, Arc::clone(&serial), exits);
        manager.add_subscriber(watcher);
        let sent: Vec<u8> = (0..20_000_u32)
            .map(|number| number.to_le_bytes()[0])
            .collect();
        let (first, second) = sent.split_at(15_000);
        let mut client = UnixStream::connect(&path).unwrap();
        client.write_all(first).unwrap();
        drop(client);
        // As long as the guest reads nothing there is nothing to do either.
        for _ in 0..10 {
            manager.run_with_timeout(0).unwrap();
        }
        assert_eq!(manager.run_with_timeout(0).unwrap(), 0);
        let mut client = UnixStream::connect(&path).unwrap();
        client.write_all(second).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let began = Instant::now();
        let mut got = Vec::new();
        while got.len() < sent.len() && began.elapsed().as_secs() < 10 {
            manager.run_with_timeout(20).unwrap();
            got.extend(read(&serial));
        }
        assert_eq!(got.len(), sent.len());
        assert_eq!(got, sent);
    }

    #[test]
    fn a_client_that_cannot_be_taken_is_not_tried_without_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("serial");
        let mut console =
            Console::open(&SerialConfig::Socket(path), &Confinement::default()).unwrap();
        // From now on it is readable, and no client can be accepted.
        rustix::net::shutdown(console.listener().unwrap(), rustix::net::Shutdown::Both).unwrap();
        let serial = Arc::new(console.serial_port(eventfd::new().unwrap()).unwrap());
        let (exits, _) = exit::channel().unwrap();
        let mut manager = EventManager::new().unwrap();
        manager.add_subscriber(ConsoleWatcher::new(&mut console, serial, exits));
        assert_eq!(manager.run_with_timeout(0).unwrap(), 1);
        assert_eq!(manager.run_with_timeout(0).unwrap(), 0);
    }
}
