// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The first serial port of a PC.

use uart_16550::backend::PioBackend;
use uart_16550::{Config, Uart16550};

const COM1: u16 = 0x3f8;

/// The port.
#[derive(Debug)]
pub struct Port(Uart16550<PioBackend>);

impl Port {
    /// Sets it up.
    pub fn open() -> Option<Self> {
        // SAFETY: these ports are the first serial port of every PC, and nothing else uses it.
        let mut port = unsafe { Uart16550::new_port(COM1) }.ok()?;
        port.init(Config::DEFAULT).ok()?;
        Some(Self(port))
    }

    /// Sends all of `bytes`.
    pub fn send(&mut self, bytes: &[u8]) {
        self.0.send_bytes_exact(bytes);
    }
}
