//! Where the guest's serial port goes on the host, and the terminal that may be there.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal, Stdin, Write};

use devices::serial::SerialPort;
use vm_superio::Trigger;
use vm_superio::serial::SerialEvents;
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::terminal::Terminal;

use crate::config::SerialConfig;
use crate::error::{Error, process};
use crate::eventfd;

/// The key that begins a command to the monitor: Ctrl-a. Twice, it goes to the guest once.
const ESCAPE: u8 = 0x01;
/// After [`ESCAPE`]: end the guest.
const QUIT: u8 = b'x';

/// The guest's serial port as this process drives it.
pub type GuestSerial = SerialPort<IrqTrigger, Box<dyn Write + Send>, RoomNotice>;

/// Raises an interrupt through an eventfd.
#[derive(Debug)]
pub struct IrqTrigger(pub EventFd);

impl Trigger for IrqTrigger {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// Tells that the guest has read its input, so that more can follow.
#[derive(Debug)]
pub struct RoomNotice(pub EventFd);

impl SerialEvents for RoomNotice {
    fn buffer_read(&self) {}
    fn out_byte(&self) {}
    fn tx_lost_byte(&self) {}
    fn in_buffer_empty(&self) {
        // A full counter has told already.
        let _ = self.0.write(1);
    }
}

/// The host's end of the serial port.
#[derive(Debug)]
pub struct Console {
    output: Option<Output>,
    input: Option<Input>,
    room: EventFd,
}

enum Output {
    Stdout,
    Nowhere,
    File(File),
    Sink(Box<dyn Write + Send>),
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => f.write_str("Stdout"),
            Self::Nowhere => f.write_str("Nowhere"),
            Self::File(file) => f.debug_tuple("File").field(file).finish(),
            Self::Sink(_) => f.debug_tuple("Sink").finish_non_exhaustive(),
        }
    }
}

/// Standard input, with the terminal in raw mode if it is one.
#[derive(Debug)]
pub struct Input {
    stdin: Stdin,
    raw: bool,
    escaped: bool,
    waiting: VecDeque<u8>,
}

/// What came of reading input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputState {
    /// More may come.
    Open,
    /// The end, or an error.
    Closed,
    /// The user wants to end the guest.
    Quit,
}

impl Console {
    /// Opens what `config` names. A terminal is left as it is until [`start`](Self::start).
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Process`]
    pub fn open(config: &SerialConfig) -> Result<Self, Error> {
        let (output, input) = match config {
            SerialConfig::Stdio => (Output::Stdout, Some(Input::new())),
            SerialConfig::Off => (Output::Nowhere, None),
            SerialConfig::File(path) => {
                let file = File::create(path).map_err(|source| Error::File {
                    what: "the serial port's file",
                    path: path.clone(),
                    source,
                })?;
                (Output::File(file), None)
            }
        };
        Self::new(output, input)
    }

    /// Gives what the guest prints to `sink`. There is no input.
    ///
    /// # Errors
    /// [`Error::Process`]
    pub fn into_sink(sink: Box<dyn Write + Send>) -> Result<Self, Error> {
        Self::new(Output::Sink(sink), None)
    }

    fn new(output: Output, input: Option<Input>) -> Result<Self, Error> {
        let room = eventfd::new().map_err(process("make an eventfd"))?;
        Ok(Self {
            output: Some(output),
            input,
            room,
        })
    }

    /// Makes the serial port that writes to the console; `irq` raises its interrupt. Once.
    ///
    /// # Errors
    /// [`Error::Process`]
    pub fn serial_port(&mut self, irq: EventFd) -> Result<GuestSerial, Error> {
        let output: Box<dyn Write + Send> = match self.output.take() {
            Some(Output::Stdout) => Box::new(io::stdout()),
            Some(Output::File(file)) => Box::new(file),
            Some(Output::Sink(sink)) => sink,
            Some(Output::Nowhere) | None => Box::new(io::sink()),
        };
        let room = self.room.try_clone().map_err(process("make an eventfd"))?;
        Ok(SerialPort::with_events(
            IrqTrigger(irq),
            output,
            RoomNotice(room),
        ))
    }

    /// Puts the terminal, if there is one, into raw mode until the console is dropped.
    ///
    /// # Errors
    /// [`Error::Process`]
    pub fn start(&mut self) -> Result<(), Error> {
        if let Some(input) = &mut self.input
            && input.stdin.is_terminal()
        {
            input
                .stdin
                .lock()
                .set_raw_mode()
                .map_err(|error| process("put the terminal into raw mode")(error.into()))?;
            input.raw = true;
        }
        Ok(())
    }

    /// Readable when the guest has read its input.
    #[must_use]
    pub fn room(&self) -> &EventFd {
        &self.room
    }

    /// Standard input, if the guest gets it.
    pub fn input(&mut self) -> Option<&mut Input> {
        self.input.as_mut()
    }
}

impl Input {
    fn new() -> Self {
        Self {
            stdin: io::stdin(),
            raw: false,
            escaped: false,
            waiting: VecDeque::new(),
        }
    }

    /// Standard input.
    #[must_use]
    pub fn stdin(&self) -> &Stdin {
        &self.stdin
    }

    /// Whether input is waiting that the guest has had no room for: no more should be read.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Reads what there is and hands it to `serial`. To be called when standard input is
    /// readable.
    pub fn read(&mut self, serial: &GuestSerial) -> InputState {
        let mut buffer = [0; 256];
        // Not through `Stdin`, whose buffer would keep bytes that nobody is told of.
        let count = match rustix::io::read(&self.stdin, &mut buffer) {
            Ok(0) => return InputState::Closed,
            Ok(count) => count,
            Err(rustix::io::Errno::INTR) => return InputState::Open,
            Err(error) => {
                log::warn!("Cannot read standard input: {error}");
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

    /// Takes one byte, looking for commands where a user is at a terminal.
    fn take(&mut self, byte: u8) -> InputState {
        let escaped = std::mem::take(&mut self.escaped);
        match byte {
            QUIT if escaped => return InputState::Quit,
            ESCAPE if self.raw && !escaped => self.escaped = true,
            _ => self.waiting.push_back(byte),
        }
        InputState::Open
    }

    /// Hands waiting input to `serial` as far as it has room.
    pub fn hand_over(&mut self, serial: &GuestSerial) {
        let waiting = self.waiting.make_contiguous();
        match serial.enqueue(waiting) {
            Ok(taken) => drop(self.waiting.drain(..taken)),
            Err(error) => {
                log::warn!("{error}");
                self.waiting.clear();
            }
        }
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        if self.raw
            && let Err(error) = self.stdin.lock().set_canon_mode()
        {
            log::error!("Cannot restore the terminal: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(raw: bool, keys: &[u8]) -> (InputState, Vec<u8>) {
        let mut input = Input::new();
        input.raw = raw;
        let mut state = InputState::Open;
        for key in keys {
            state = input.take(*key);
        }
        // Nothing was changed, so nothing is to be restored.
        input.raw = false;
        (state, input.waiting.drain(..).collect())
    }

    #[test]
    fn ctrl_a_x_ends_and_ctrl_a_twice_goes_through() {
        assert_eq!(taken(true, b"ab\x01x"), (InputState::Quit, b"ab".to_vec()));
        assert_eq!(
            taken(true, b"\x01\x01x"),
            (InputState::Open, b"\x01x".to_vec())
        );
        assert_eq!(taken(true, b"\x01yx"), (InputState::Open, b"yx".to_vec()));
        assert_eq!(
            taken(false, b"\x01x"),
            (InputState::Open, b"\x01x".to_vec())
        );
    }
}
