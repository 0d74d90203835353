// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The serial port that the report goes to.

use core::fmt::{self, Write};

use spin::Mutex;
use uart_16550::backend::PioBackend;
use uart_16550::{Config, Uart16550};

const COM1: u16 = 0x3f8;

static PORT: Mutex<Option<Uart16550<PioBackend>>> = Mutex::new(None);

/// Sets the port up; without one, everything printed is lost.
pub fn init() {
    // SAFETY: these ports are the first serial port of every PC, and nothing else uses it.
    let port = unsafe { Uart16550::new_port(COM1) };
    if let Ok(mut port) = port
        && port.init(Config::DEFAULT).is_ok()
    {
        *PORT.lock() = Some(port);
    }
}

/// The port, for whole lines from one processor at a time.
#[derive(Debug)]
pub struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if let Some(port) = PORT.lock().as_mut() {
            port.send_bytes_exact(text.as_bytes());
        }
        Ok(())
    }
}

/// Prints a line even if this or another processor was just printing one.
pub fn last_words(text: fmt::Arguments<'_>) {
    // SAFETY: the processor that holds the lock is this one, which does not return to it, or one
    // whose output may be garbled now. What is behind the lock is two bytes that do not change.
    unsafe { PORT.force_unlock() };
    let _ = writeln!(Console, "\n{text}");
}
