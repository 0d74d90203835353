// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Why a guest ends: the first reason that is reported counts.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use address::{Bdf, Gpa};
use devices::power::PowerEvent;
use vmm_sys_util::eventfd::EventFd;

use crate::kvm::eventfd;

/// Why the guest ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExitReason {
    /// The guest powered itself off.
    PowerOff {
        /// What it left in the status register: 0 if all went well.
        status: u8,
    },
    /// The guest requested a restart.
    Reset,
    /// A signal to this process.
    Signal(i32),
    /// The user, from the terminal.
    Quit,
    /// The terminal that the user was at is gone.
    TerminalGone,
    /// It was not to take longer than this.
    TimeLimit(Duration),
    /// The guest cannot continue; the text describes what it did.
    GuestCrash(String),
    /// The host could not carry out an access of the guest's to its address space, at this address
    /// if KVM reports it.
    AccessFailed(Option<Gpa>),
    /// KVM cannot enter the guest, since it cannot start its worker thread.
    NoWorker,
    /// A passed-through device cannot continue; the text has the reason.
    Device(Bdf, String),
    /// A thread of the monitor panicked.
    Panic,
}

impl From<PowerEvent> for ExitReason {
    fn from(event: PowerEvent) -> Self {
        match event {
            PowerEvent::PowerOff { status } => Self::PowerOff { status },
            PowerEvent::Reset => Self::Reset,
        }
    }
}

impl ExitReason {
    /// One word for it, as `docs/reference/events.md` lists them.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::PowerOff { .. } => "power-off",
            Self::Reset => "reset",
            Self::Signal(_) => "signal",
            Self::Quit => "user",
            Self::TerminalGone => "terminal-gone",
            Self::TimeLimit(_) => "time-limit",
            Self::GuestCrash(_) => "guest-crash",
            Self::AccessFailed(_) => "access-failed",
            Self::NoWorker => "no-worker",
            Self::Device(..) => "device",
            Self::Panic => "panic",
        }
    }
}

/// The sending end: cheap to clone, for any thread.
#[derive(Clone, Debug)]
pub struct ExitSender(Arc<Shared>);

/// The receiving end, for the event loop.
#[derive(Debug)]
pub struct ExitReceiver(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    event: EventFd,
    reason: OnceLock<ExitReason>,
}

/// Makes a pair of ends.
///
/// # Errors
/// The errno of `eventfd`.
pub fn channel() -> io::Result<(ExitSender, ExitReceiver)> {
    let shared = Arc::new(Shared {
        event: eventfd::new()?,
        reason: OnceLock::new(),
    });
    Ok((ExitSender(Arc::clone(&shared)), ExitReceiver(shared)))
}

impl ExitSender {
    /// Reports why the guest ends. Only the first reason counts.
    pub fn send(&self, reason: ExitReason) {
        if self.0.reason.set(reason).is_ok()
            && let Err(error) = self.0.event.write(1)
        {
            log::error!("Cannot wake the event loop: {error}");
        }
    }

    /// Whether a reason was sent.
    #[must_use]
    pub fn is_decided(&self) -> bool {
        self.0.reason.get().is_some()
    }
}

/// Ends the guest if the thread that holds it panics.
#[derive(Debug)]
pub struct PanicNotice(ExitSender);

impl ExitSender {
    /// A notice for the thread that calls this.
    #[must_use]
    pub fn on_panic(&self) -> PanicNotice {
        PanicNotice(self.clone())
    }
}

impl Drop for PanicNotice {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.send(ExitReason::Panic);
        }
    }
}

impl ExitReceiver {
    /// Readable once a reason was sent.
    #[must_use]
    pub fn event(&self) -> &EventFd {
        &self.0.event
    }

    /// The reason that was sent, if one was.
    #[must_use]
    pub fn reason(&self) -> Option<ExitReason> {
        self.0.reason.get().cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_ends_the_guest_and_a_return_does_not() {
        let (sender, receiver) = channel().unwrap();
        drop(sender.on_panic());
        assert_eq!(receiver.reason(), None);
        let thread = std::thread::spawn(move || {
            let _notice = sender.on_panic();
            panic!("on purpose");
        });
        assert!(thread.join().is_err());
        assert_eq!(receiver.reason(), Some(ExitReason::Panic));
    }

    #[test]
    fn the_first_reason_counts() {
        let (sender, receiver) = channel().unwrap();
        assert_eq!(receiver.reason(), None);
        assert!(!sender.is_decided());
        sender.send(ExitReason::PowerOff { status: 0 });
        assert!(sender.is_decided());
        sender.clone().send(ExitReason::Signal(15));
        assert_eq!(receiver.reason(), Some(ExitReason::PowerOff { status: 0 }));
        assert_eq!(receiver.event().read().unwrap(), 1);
    }
}
