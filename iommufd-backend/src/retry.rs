// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Commands that are tried again while the kernel is busy with the device.

use std::io;
use std::thread;
use std::time::Duration;

/// How often a bind or reset is tried when the kernel holds the device's lock elsewhere
/// (`EAGAIN`), and how long to wait between two tries.
const TRIES: u32 = 20;
const RETRY_DELAY: Duration = Duration::from_millis(50);

/// Tries again while the kernel reports that the device's lock is held elsewhere, as it is while
/// another function of the same slot is being reset.
pub(crate) fn retried<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 1..TRIES {
        match call() {
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {
                thread::sleep(RETRY_DELAY);
            }
            result => return result,
        }
    }
    call()
}
