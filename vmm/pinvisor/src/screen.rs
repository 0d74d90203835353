// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Standard error, which messages and the log share.

use std::io::{self, Write};
use std::time::Duration;

use vmm::console::nonblocking::Unblocked;

/// How long what is printed may wait for a paused terminal.
const TIMEOUT: Duration = Duration::from_millis(200);

/// Prints to standard error. A terminal that is paused, or gone, misses it.
pub fn say(text: &str) {
    let _ = messages().write_all(text.as_bytes());
}

/// Where whole lines of text for standard error go.
pub(crate) fn messages() -> Unblocked<io::Stderr> {
    Unblocked::new(io::stderr(), TIMEOUT)
}
