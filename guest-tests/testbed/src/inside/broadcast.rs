// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Traffic that reaches every network interface on a wire.

use std::convert::Infallible;
use std::net::UdpSocket;
use std::thread;
use std::time::Duration;

use crate::error::{AtPath, Result};

/// Bytes of a datagram: most of an Ethernet frame, so that a receive buffer it lands in changes visibly.
const LENGTH: usize = 1400;

/// Between two datagrams: enough for receive rings to fill within a second, without taking the only CPU.
const PAUSE: Duration = Duration::from_millis(2);

/// Sends datagrams to the broadcast address and port `to` until the process is killed.
///
/// # Errors
/// [`Error::File`](crate::Error::File): no socket.
pub fn run(to: &str) -> Result<Infallible> {
    let socket = UdpSocket::bind("0.0.0.0:0").at("bind", "a socket")?;
    socket.set_broadcast(true).at("prepare", "a socket")?;
    loop {
        // While the interface has no carrier nothing is sent.
        let _ = socket.send_to(&[0xa5; LENGTH], to);
        thread::sleep(PAUSE);
    }
}
