//! Eventfds as this monitor uses them.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use vmm_sys_util::eventfd::EventFd;

/// An eventfd with count 0 that blocks nobody and is closed on exec: it keeps a device open.
///
/// # Errors
/// The errno of `eventfd`.
pub fn new() -> io::Result<EventFd> {
    EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)
}

/// The descriptor, borrowed; `EventFd` itself has only the raw number.
#[must_use]
pub fn borrow(event: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open as long as `event` lives, which the lifetime says.
    unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
}
