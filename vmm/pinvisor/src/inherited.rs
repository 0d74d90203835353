// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Descriptors that the user opened for this process and names by their numbers.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{OFlags, fcntl_getfl};
use rustix::io::Errno;

/// Descriptors below this one are standard input, output and error.
pub const FIRST_FREE: u32 = 3;

/// A descriptor of this process's own for what the caller opened as `number`, and how that is open. To be called before
/// this process has another thread.
///
/// # Errors
/// What it is instead.
pub fn descriptor(number: u32) -> Result<(OwnedFd, OFlags), &'static str> {
    if number < FIRST_FREE {
        return Err("is standard input, output or error");
    }
    let raw = i32::try_from(number).map_err(|_| "does not exist")?;
    // SAFETY: `raw` is not -1. It is used for two calls, which refuse what is not open; between
    // them nothing closes it: this process has no other thread yet, and owns nothing of the number.
    let given = unsafe { BorrowedFd::borrow_raw(raw) };
    let flags = fcntl_getfl(given).map_err(|error| match error {
        Errno::BADF => "is not open",
        _ => "cannot be used",
    })?;
    let own = given.try_clone_to_owned();
    Ok((own.map_err(|_| "cannot be used")?, flags))
}
