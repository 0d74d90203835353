// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Serialises standard error between messages and the log.

use std::io::{self, Write};
use std::sync::OnceLock;
use std::time::Duration;

use vmm::console::nonblocking::Unblocked;

/// How long what is printed may wait for a paused terminal.
const TIMEOUT: Duration = Duration::from_millis(200);

/// Prints a message by calling what it is given, once.
type Printer = fn(&mut dyn FnMut());

/// What prints messages, if not this module.
static PRINTER: OnceLock<Printer> = OnceLock::new();

/// Prints each message by way of `printer` from now on, so that a program can take away what it has drawn there, and
/// draws nothing meanwhile. Only the first call counts.
pub fn print_by(printer: Printer) {
    let _ = PRINTER.set(printer);
}

/// Prints to standard error. A terminal that is paused, or gone, misses it.
pub fn print_message(text: &str) {
    let _ = Messages.write_all(text.as_bytes());
}

/// Where whole lines of text for standard error go.
#[derive(Debug)]
pub(crate) struct Messages;

impl Write for Messages {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut written = Ok(0);
        let mut print = || written = Unblocked::new(io::stderr(), TIMEOUT).write(bytes);
        match PRINTER.get() {
            Some(printer) => printer(&mut print),
            None => print(),
        }
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
