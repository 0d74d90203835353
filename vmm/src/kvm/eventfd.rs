// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Eventfds as this monitor uses them.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::process::{Resource, getrlimit};
use vmm_sys_util::eventfd::EventFd;

/// Descriptors that are left for what a run opens later: the serial port's clients, files of sysfs
/// when devices are reset in the end.
const KEPT: u64 = 16;

/// An eventfd with count 0 that does not block and is closed on exec: it keeps a device open.
///
/// # Errors
/// The errno of `eventfd`.
pub fn new() -> io::Result<EventFd> {
    EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)
}

/// The same for something that a guest can do without: it fails where few descriptors are left.
///
/// # Errors
/// The errno of `eventfd`; `EMFILE`.
pub fn spare() -> io::Result<EventFd> {
    spare_below(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX))
}

/// [`spare`] where `limit` descriptors may be open. The kernel gives the lowest number that is free.
fn spare_below(limit: u64) -> io::Result<EventFd> {
    let event = new()?;
    let number = u64::try_from(event.as_raw_fd()).unwrap_or(u64::MAX);
    if number >= limit.saturating_sub(KEPT) {
        return Err(io::Error::from_raw_os_error(libc::EMFILE));
    }
    Ok(event)
}

/// The descriptor, borrowed; `EventFd` itself has only the raw number.
#[must_use]
pub fn borrow(event: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open as long as `event` lives, which the lifetime guarantees.
    unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_descriptors_are_kept() {
        let number = u64::try_from(new().unwrap().as_raw_fd()).unwrap();
        assert!(spare().is_ok());
        // Other tests open and close descriptors meanwhile.
        assert!(spare_below(number + KEPT + 1000).is_ok());
        let error = spare_below(KEPT).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
        assert!(spare_below(0).is_err());
    }
}
