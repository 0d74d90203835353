// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Destinations of the guest's serial port on the host: standard input and output, a file, a
//! pseudoterminal, or a socket.
//!
//! The guest never waits for a reader on the host: what it prints goes through a pump.

mod input;
mod keys;
pub mod nonblocking;
mod pty;
mod pump;
mod socket;
mod terminal;
mod watch;

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use devices::serial::SerialPort;
use rustix::fs::OFlags;
use rustix::io::fcntl_dupfd_cloexec;
use vm_superio::Trigger;
use vm_superio::serial::SerialEvents;
use vmm_sys_util::eventfd::EventFd;

use crate::config::SerialConfig;
use crate::confine::Confinement;
use crate::error::Error;
use crate::error::explain::{FileError, ProcessError, process};
use crate::kvm::eventfd;
use crate::run::threads::ThreadError;
use input::{Input, Waiting};
use pty::Pty;
use pump::Pump;
use socket::Listener;

pub use terminal::restore_at_once as restore_terminal_at_once;
pub use watch::ConsoleWatcher;

/// For tests of what happens to terminals.
#[cfg(any(test, feature = "testing"))]
pub mod testing {
    pub use super::pty::Pty;
    pub use super::terminal::RawMode;
}

/// In the end standard output, a file or a client may take nothing for so long before the rest is
/// given up.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// The same for a pseudoterminal, which may have no reader.
const PTY_DRAIN_TIMEOUT: Duration = Duration::from_millis(200);

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

/// Reports that the guest has read its input, so that more can follow.
#[derive(Debug)]
pub struct RoomNotice(pub EventFd);

impl SerialEvents for RoomNotice {
    fn buffer_read(&self) {}
    fn out_byte(&self) {}
    fn tx_lost_byte(&self) {}
    fn in_buffer_empty(&self) {
        // A full counter has notified already.
        let _ = self.0.write(1);
    }
}

/// The host's end of the serial port.
#[derive(Debug)]
pub struct Console {
    // Before the input, whose terminal is restored after the last output.
    outlet: Outlet,
    input: Option<Input>,
    /// What a client sent that is gone, and the guest had no room for yet.
    left_behind: Waiting,
    room: EventFd,
    first_output: Arc<OnceLock<Instant>>,
    confinement: Confinement,
}

enum Outlet {
    Nowhere,
    Stdio(Pump),
    File(Pump),
    Pty(Pump, Pty),
    Socket(Client, Listener),
    Sink(Option<Box<dyn Write + Send>>),
}

/// The client of the socket, if there is one.
#[derive(Clone, Debug, Default)]
struct Client(Arc<Mutex<Option<Connection>>>);

#[derive(Debug)]
struct Connection {
    pump: Pump,
    socket: UnixStream,
}

impl Console {
    /// Opens what `config` names. A terminal is not changed until [`start`](Self::start). Its threads are confined by
    /// `confinement`.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Process`]
    pub fn open(config: &SerialConfig, confinement: &Confinement) -> Result<Self, Error> {
        let outlet = match config {
            SerialConfig::Stdio => {
                let stdout = duplicate(io::stdout()).map_err(process("use standard output"))?;
                Outlet::Stdio(Pump::new(stdout, DRAIN_TIMEOUT))
            }
            SerialConfig::Off => Outlet::Nowhere,
            SerialConfig::File(path) => {
                let file = create(path).map_err(in_file(path, "the serial port's file"))?;
                Outlet::File(Pump::new(file.into(), DRAIN_TIMEOUT))
            }
            SerialConfig::Pty => {
                let failed = "create a pseudoterminal";
                let pty = Pty::open().map_err(process(failed))?;
                let controller = pty.controller().try_clone().map_err(process(failed))?;
                Outlet::Pty(Pump::new(controller, PTY_DRAIN_TIMEOUT), pty)
            }
            SerialConfig::Socket(path) => {
                let bound = Listener::bind(path).and_then(|listener| {
                    confinement.may_remove_in(listener.directory())?;
                    Ok(listener)
                });
                let listener = bound.map_err(in_file(path, "the serial port's socket"))?;
                Outlet::Socket(Client::default(), listener)
            }
        };
        Ok(Self {
            confinement: confinement.clone(),
            ..Self::new(outlet)?
        })
    }

    /// Passes the guest's output to `sink`. There is no input.
    ///
    /// # Errors
    /// [`ProcessError`]
    pub fn into_sink(sink: Box<dyn Write + Send>) -> Result<Self, ProcessError> {
        Self::new(Outlet::Sink(Some(sink)))
    }

    fn new(outlet: Outlet) -> Result<Self, ProcessError> {
        let room = eventfd::new().map_err(process("create an eventfd"))?;
        Ok(Self {
            outlet,
            input: None,
            left_behind: Waiting::default(),
            room,
            first_output: Arc::default(),
            confinement: Confinement::default(),
        })
    }

    /// Makes the serial port that writes to the console; `irq` raises its interrupt. Once for a guest.
    ///
    /// # Errors
    /// [`ProcessError`]
    pub fn serial_port(&mut self, irq: EventFd) -> Result<GuestSerial, ProcessError> {
        self.first_output = Arc::default();
        // It was meant for the guest before.
        self.left_behind = Waiting::default();
        let output: Box<dyn Write + Send> = match &mut self.outlet {
            Outlet::Stdio(pump) | Outlet::File(pump) | Outlet::Pty(pump, _) => {
                Box::new(pump.writer())
            }
            Outlet::Socket(client, _) => Box::new(client.clone()),
            Outlet::Sink(sink) => sink.take().unwrap_or_else(|| Box::new(io::sink())),
            Outlet::Nowhere => Box::new(io::sink()),
        };
        let room = self
            .room
            .try_clone()
            .map_err(process("create an eventfd"))?;
        Ok(SerialPort::with_events(
            IrqTrigger(irq),
            Box::new(Timed {
                output,
                first: Arc::clone(&self.first_output),
            }),
            RoomNotice(room),
        ))
    }

    /// Starts to write what the guest prints, and opens the input, unless that is so since the guest before. A terminal is
    /// put into raw mode until it is [released](Self::release_terminal) or the console is dropped; in the background it is
    /// left alone.
    ///
    /// # Errors
    /// [`Error::Process`], [`Error::Confine`]
    pub fn start(&mut self) -> Result<(), Error> {
        if let Outlet::Stdio(pump) | Outlet::File(pump) | Outlet::Pty(pump, _) = &mut self.outlet {
            let started = pump.start(&self.confinement);
            started.map_err(ThreadError::of("start a thread for the guest's output"))?;
        }
        if self.input.is_some() {
            return Ok(());
        }
        self.input = match &self.outlet {
            Outlet::Stdio(_) => standard_input().map_err(process("use standard input"))?,
            Outlet::Pty(_, pty) => {
                let controller = pty.controller().try_clone();
                Some(Input::plain(
                    controller.map_err(process("use a pseudoterminal"))?,
                ))
            }
            _ => None,
        };
        Ok(())
    }

    /// Gives a terminal back to its user until the next [`start`](Self::start), so that its keys are
    /// signals again. Other input stays open.
    pub fn release_terminal(&mut self) {
        self.input.take_if(|input| input.is_user());
    }

    /// Where others find the serial port, if it is a pseudoterminal or a socket.
    #[must_use]
    pub fn path(&self) -> Option<&PathBuf> {
        match &self.outlet {
            Outlet::Pty(_, pty) => Some(pty.path()),
            Outlet::Socket(_, listener) => Some(listener.path()),
            _ => None,
        }
    }

    /// When the guest printed something first.
    #[must_use]
    pub fn first_output(&self) -> Option<Instant> {
        self.first_output.get().copied()
    }

    fn listener(&self) -> Option<&UnixListener> {
        match &self.outlet {
            Outlet::Socket(_, listener) => Some(listener.socket()),
            _ => None,
        }
    }

    /// Accepts all clients that connect: one is served at a time, the others are rejected.
    fn accept(&mut self) -> io::Result<()> {
        let Outlet::Socket(current, listener) = &self.outlet else {
            return Ok(());
        };
        while let Some(socket) = listener.accept()? {
            if self.input.is_some() {
                socket::send_away(socket);
                continue;
            }
            let input = Input::plain(socket.try_clone()?.into());
            // What can fail is done before the place is taken.
            let target = socket.try_clone()?.into();
            let mut pump = Pump::new(target, DRAIN_TIMEOUT);
            pump.start(&self.confinement).map_err(io::Error::other)?;
            *current.lock() = Some(Connection { pump, socket });
            self.input = Some(input.after(mem::take(&mut self.left_behind)));
        }
        Ok(())
    }

    /// Lets the input go; a client with it. What the guest has not read of it stays.
    fn disconnect(&mut self) {
        if let Some(input) = self.input.take() {
            self.left_behind = input.into_waiting();
        }
        if let Outlet::Socket(client, _) = &self.outlet {
            let connection = client.lock().take();
            if let Some(Connection { pump, socket }) = connection {
                // Else the pump might wait for a reader.
                let _ = socket.shutdown(std::net::Shutdown::Both);
                drop(pump);
            }
        }
    }
}

/// Opens a file for what the guest prints, without waiting for the reader of a FIFO.
fn create(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    let opened = options.custom_flags(flags).open(path);
    opened.map_err(|error| match error.raw_os_error() {
        // fifo(7)
        Some(libc::ENXIO) => io::Error::other("it is a FIFO without a reader"),
        _ => error,
    })
}

/// Another descriptor of `file`, above those of standard input and output.
fn duplicate(file: impl AsFd) -> io::Result<OwnedFd> {
    Ok(fcntl_dupfd_cloexec(file, 3)?)
}

/// Standard input, if it is anything that a guest can be given.
fn standard_input() -> io::Result<Option<Input>> {
    let stdin = duplicate(io::stdin())?;
    if !rustix::termios::isatty(&stdin) {
        return Ok(Some(Input::plain(stdin)));
    }
    if !terminal::is_ours(&stdin) {
        log::info!("Input from the terminal is not read in the background");
        return Ok(None);
    }
    Input::of_user(stdin).map(Some)
}

impl Client {
    fn lock(&self) -> MutexGuard<'_, Option<Connection>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for Client {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &*self.lock() {
            Some(connection) => connection.pump.writer().write(bytes),
            None => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Notes when something is written first.
struct Timed {
    output: Box<dyn Write + Send>,
    first: Arc<OnceLock<Instant>>,
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.first.get_or_init(Instant::now);
        self.output.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

impl fmt::Debug for Outlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nowhere => "Nowhere",
            Self::Stdio(_) => "Stdio",
            Self::File(_) => "File",
            Self::Pty(..) => "Pty",
            Self::Socket(..) => "Socket",
            Self::Sink(_) => "Sink",
        })
    }
}

/// Makes a [`FileError`] of what went wrong with `path`.
fn in_file(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError { what, path, source }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use devices::serial::BASE_PORT;
    use rustix::fs::{CWD, Mode, mkfifoat};
    use vm_device::DevicePio;
    use vm_device::bus::PioAddress;

    use super::*;

    #[test]
    fn input_that_is_not_a_users_stays_open_between_guests() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("serial");
        let mut console =
            Console::open(&SerialConfig::Socket(path.clone()), &Confinement::default()).unwrap();
        console.start().unwrap();
        let _client = UnixStream::connect(&path).unwrap();
        console.accept().unwrap();
        console.release_terminal();
        console.start().unwrap();
        assert!(console.input.is_some());
        // Another client is still one too many.
        let mut another = UnixStream::connect(&path).unwrap();
        console.accept().unwrap();
        let mut words = String::new();
        another.read_to_string(&mut words).unwrap();
        assert!(words.contains("another client"), "{words}");
    }

    #[test]
    fn a_fifo_is_written_to_without_waiting_for_its_reader() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
        let open = || Console::open(&SerialConfig::File(path.clone()), &Confinement::default());
        let error = open().unwrap_err().chain();
        assert!(error.contains("a FIFO without a reader"), "{error}");
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let mut options = File::options();
        let mut reader = options.read(true).custom_flags(flags).open(&path).unwrap();
        let mut console = open().unwrap();
        let port = console.serial_port(eventfd::new().unwrap()).unwrap();
        console.start().unwrap();
        port.pio_write(PioAddress(BASE_PORT), 0, b"x");
        drop((port, console));
        let mut printed = String::new();
        reader.read_to_string(&mut printed).unwrap();
        assert_eq!(printed, "x");
    }

    #[test]
    fn every_guest_has_a_first_output_of_its_own() {
        let mut console = Console::open(&SerialConfig::Off, &Confinement::default()).unwrap();
        let port = |console: &mut Console| {
            let irq = eventfd::new().unwrap();
            console.serial_port(irq).unwrap()
        };
        let first = port(&mut console);
        console.first_output.get_or_init(Instant::now);
        assert!(console.first_output().is_some());
        drop(first);
        port(&mut console);
        assert!(console.first_output().is_none());
    }
}
