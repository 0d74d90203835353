// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The serial port that the report goes to.

use core::fmt::{self, Write};

use spin::Mutex;

use super::arch::serial::Port;

static PORT: Mutex<Option<Port>> = Mutex::new(None);

/// Uses this port; without one, everything printed is lost.
pub fn init(port: Option<Port>) {
    *PORT.lock() = port;
}

/// The port, for whole lines from one processor at a time.
#[derive(Debug)]
pub struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if let Some(port) = PORT.lock().as_mut() {
            port.send(text.as_bytes());
        }
        Ok(())
    }
}

/// Prints a line even if this or another processor was just printing one.
pub fn last_words(text: fmt::Arguments<'_>) {
    // SAFETY: the processor that holds the lock is this one, which does not return to it, or one
    // whose output may be garbled now. What is behind the lock does not change.
    unsafe { PORT.force_unlock() };
    let _ = writeln!(Console, "\n{text}");
}
