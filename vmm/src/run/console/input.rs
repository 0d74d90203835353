// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Passes input of the guest's user to the serial port.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;

use super::GuestSerial;
use super::keys::{self, Key, Keys};
use super::nonblocking::Unblocked;
use super::terminal::RawMode;

/// Keys that wait at most for a guest that does not read; what is typed after them is lost.
const TYPED_AHEAD: usize = 4096;

/// Most bytes of a disconnected client that wait for a guest that does not read.
const LEFT_BEHIND: usize = 1 << 20;

/// Input that the guest has had no room for yet.
#[derive(Debug, Default)]
pub struct Waiting(VecDeque<u8>);

impl Waiting {
    /// Hands it to `serial` as far as that has room.
    pub fn hand_over(&mut self, serial: &GuestSerial) {
        match serial.enqueue(self.0.make_contiguous()) {
            Ok(taken) => drop(self.0.drain(..taken)),
            Err(error) => {
                log::warn!("{error}");
                self.0.clear();
            }
        }
    }
}

/// Where input comes from, and what of it the guest has had no room for yet.
#[derive(Debug)]
pub struct Input {
    source: OwnedFd,
    user: Option<User>,
    waiting: Waiting,
}

/// A user at a terminal, whose keys may be commands.
#[derive(Debug)]
struct User {
    keys: Keys,
    _raw: RawMode,
}

/// How long the help may wait for a paused terminal.
const HELP_TIMEOUT: Duration = Duration::from_millis(200);

/// Shows the user which keys are commands. A terminal that is paused, or gone, misses it.
fn show_help() {
    let mut terminal = Unblocked::new(io::stderr(), HELP_TIMEOUT);
    let _ = terminal.write_all(format!("\n{}", keys::HELP).as_bytes());
}

/// What came of reading input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputState {
    /// More may come.
    Open,
    /// The end, or an error.
    Closed,
    /// The user ends the guest.
    Quit,
    /// The user's terminal is gone.
    Gone,
}

impl Input {
    /// Input from `source`, all of which is for the guest.
    pub fn plain(source: OwnedFd) -> Self {
        Self {
            source,
            user: None,
            waiting: Waiting::default(),
        }
    }

    /// Puts what `waits` from a source before in front.
    #[must_use]
    pub fn after(self, waits: Waiting) -> Self {
        let mut waiting = waits;
        waiting.0.extend(self.waiting.0);
        Self { waiting, ..self }
    }

    /// What the guest has had no room for.
    #[must_use]
    pub fn into_waiting(self) -> Waiting {
        self.waiting
    }

    /// Input from a user at `terminal`, which is in raw mode until the input is dropped.
    ///
    /// # Errors
    /// The errno of setting the mode.
    pub fn of_user(terminal: OwnedFd) -> io::Result<Self> {
        let user = User {
            keys: Keys::default(),
            _raw: RawMode::enter(&terminal)?,
        };
        Ok(Self {
            user: Some(user),
            ..Self::plain(terminal)
        })
    }

    /// Whether it is typed at a terminal.
    #[must_use]
    pub fn is_user(&self) -> bool {
        self.user.is_some()
    }

    /// Readable when there is input.
    #[must_use]
    pub fn source(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }

    /// Whether no more is to be read until the guest has had what waits. A user's keys are always
    /// read: a command may be among them.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.user.is_none() && !self.waiting.0.is_empty()
    }

    /// Reads what is available and passes it to `serial`. To be called when the source is readable.
    pub fn read(&mut self, serial: &GuestSerial) -> InputState {
        let mut buffer = [0; 256];
        let count = match rustix::io::read(&self.source, &mut buffer) {
            Ok(0) => return self.end(),
            Ok(count) => count,
            Err(Errno::INTR | Errno::AGAIN) => return InputState::Open,
            // What reading from a terminal that is gone gives, or from a client that is.
            Err(Errno::IO | Errno::CONNRESET) => return self.end(),
            Err(error) => {
                log::warn!("Cannot read input for the guest: {error}");
                return InputState::Closed;
            }
        };
        for byte in &buffer[..count] {
            if self.take(*byte) == InputState::Quit {
                return InputState::Quit;
            }
        }
        self.hand_over(serial);
        InputState::Open
    }

    /// Reads all that is left of a source whose other end is closed, so that this does not wait.
    pub fn read_rest(&mut self) {
        let mut buffer = [0; 4096];
        while self.waiting.0.len() < LEFT_BEHIND {
            match rustix::io::read(&self.source, &mut buffer) {
                Ok(count) if count > 0 => self.waiting.0.extend(&buffer[..count]),
                Err(Errno::INTR) => {}
                _ => return,
            }
        }
        log::warn!("A client disconnected before the guest read all its input: the rest is lost");
    }

    /// What the end of the source means.
    #[must_use]
    pub fn end(&self) -> InputState {
        if self.user.is_some() {
            InputState::Gone
        } else {
            InputState::Closed
        }
    }

    fn take(&mut self, byte: u8) -> InputState {
        let key = match &mut self.user {
            Some(user) => user.keys.take(byte),
            None => Key::Guest(byte),
        };
        match key {
            Key::Guest(_) if self.user.is_some() && self.waiting.0.len() >= TYPED_AHEAD => {}
            Key::Guest(byte) => self.waiting.0.push_back(byte),
            Key::Begin => {}
            Key::Quit => return InputState::Quit,
            Key::Help => show_help(),
        }
        InputState::Open
    }

    /// Hands waiting input to `serial` as far as it has room.
    pub fn hand_over(&mut self, serial: &GuestSerial) {
        self.waiting.hand_over(serial);
    }
}
