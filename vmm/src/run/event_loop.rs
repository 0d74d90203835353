// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The main thread while the guest runs: waits for the guest's end, signals, input and notices
//! of devices.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_manager::{EventManager, EventOps, Events, MutEventSubscriber, SubscriberOps};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use vmm_sys_util::epoll::EventSet;

use crate::error::explain::ProcessError;
use crate::run::console::{Console, ConsoleWatcher, GuestSerial};
use crate::run::device_notices::DeviceWatch;
use crate::run::error::RunError;
use crate::run::exit::{ExitReason, ExitReceiver, ExitSender};
use crate::run::heartbeat::{Heartbeat, Pulse};
use crate::run::power_button::{PowerButton, Press};

/// Signals that end the guest, as a descriptor.
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    /// Takes over SIGTERM, SIGINT, SIGQUIT, what else would kill the process from outside, and,
    /// unless started by nohup(1), SIGHUP. To be called before any thread is started that handles
    /// one, since they inherit what is blocked.
    ///
    /// # Errors
    /// [`ProcessError`]
    pub fn take() -> Result<Self, ProcessError> {
        let set = taken();
        set.thread_block()
            .and_then(|()| {
                SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            })
            .map(Self)
            .map_err(|errno| ProcessError {
                operation: "wait for signals",
                source: errno.into(),
            })
    }

    /// Readable when one has come.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Lets the signals through again that a run took over, so that until a next guest runs they
/// kill the process, as they did before the first one did. One that came meanwhile does so now.
///
/// # Errors
/// [`ProcessError`]
pub fn unblock_signals() -> Result<(), ProcessError> {
    taken().thread_unblock().map_err(|errno| ProcessError {
        operation: "unblock signals",
        source: errno.into(),
    })
}

/// Signals whose default is to kill the process, and that come from outside of it: users and
/// programs send them, and the kernel sends SIGXCPU at the limit on CPU time.
const FROM_OUTSIDE: [Signal; 12] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGVTALRM,
    Signal::SIGPROF,
    Signal::SIGXCPU,
    Signal::SIGIO,
    Signal::SIGPWR,
    Signal::SIGSTKFLT,
];

/// The signals that are taken over.
fn taken() -> SigSet {
    let mut set: SigSet = FROM_OUTSIDE.into_iter().collect();
    if !ignores_hangup() {
        set.add(Signal::SIGHUP);
    }
    set
}

/// Whether SIGHUP was ignored when this process was started.
fn ignores_hangup() -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action the call only writes the present one to `action`, which has room for it.
    let result = unsafe { libc::sigaction(libc::SIGHUP, ptr::null(), action.as_mut_ptr()) };
    // SAFETY: all its fields are numbers or `None` if they are zero.
    let action = unsafe { action.assume_init() };
    result == 0 && action.sa_sigaction == libc::SIG_IGN
}

/// How long a guest may run, and what SIGTERM means to it.
#[derive(Clone, Copy, Debug)]
pub enum RunLimit {
    /// No limit. SIGTERM asks the guest to power itself off, and stops it the second time.
    None,
    /// At most this time. SIGTERM stops the guest.
    Time(Duration),
}

/// What is watched while a guest runs.
#[derive(Debug)]
pub struct Watched<'a> {
    /// Where input goes.
    pub serial: &'a Arc<GuestSerial>,
    /// What ends the guest from outside.
    pub signals: &'a Signals,
    /// Asks the guest to power itself off.
    pub power_button: &'a PowerButton,
    /// Notices of devices.
    pub watches: &'a [DeviceWatch],
    /// Why the guest ends.
    pub exits: &'a ExitReceiver,
    /// Ends the guest.
    pub exit: &'a ExitSender,
}

/// Waits until the guest ends and returns why it did.
///
/// # Errors
/// [`ProcessError`] if waiting itself fails.
pub fn run(
    watched: &Watched<'_>,
    console: &mut Console,
    limit: RunLimit,
    heartbeat: Option<Heartbeat<'_>>,
) -> Result<ExitReason, ProcessError> {
    let began = Instant::now();
    let mut pulse = Pulse::new(heartbeat, began);
    let failed = |error: event_manager::Error| ProcessError {
        operation: "wait for events",
        source: error.into(),
    };
    let mut manager: EventManager<Box<dyn MutEventSubscriber + '_>> =
        EventManager::new().map_err(failed)?;
    let exit = watched.exit.clone();
    let serial = Arc::clone(watched.serial);
    manager.add_subscriber(Box::new(ConsoleWatcher::new(console, serial, exit.clone())));
    manager.add_subscriber(Box::new(Watcher {
        signals: watched.signals,
        button: match limit {
            RunLimit::None => Some(watched.power_button),
            RunLimit::Time(_) => None,
        },
        watches: watched.watches,
        exits: watched.exits,
        exit,
    }));
    keeper::release_code();
    loop {
        if let Some(reason) = watched.exits.reason() {
            return Ok(reason);
        }
        let now = Instant::now();
        let until_limit = match limit {
            RunLimit::Time(limit) => match limit.checked_sub(now - began) {
                None => return Ok(ExitReason::TimeLimit(limit)),
                left => left,
            },
            RunLimit::None => None,
        };
        let until_beat = pulse.beat(now);
        match manager.run_with_timeout(timeout(until_limit, until_beat)) {
            Err(event_manager::Error::Epoll(error)) if error.errno() == libc::EINTR => {}
            result => drop(result.map_err(failed)?),
        }
    }
}

/// Whether an end for `reason` is a good one.
///
/// # Errors
/// [`RunError::GuestCrash`], [`RunError::GuestStatus`], [`RunError::GuestReset`], [`RunError::DeviceFailed`],
/// [`RunError::AccessFailed`], [`RunError::NoWorker`], [`RunError::Panicked`]
pub fn outcome(reason: ExitReason) -> Result<(), RunError> {
    match reason {
        ExitReason::PowerOff { status: 0 } => log::info!("The guest powered itself off"),
        ExitReason::PowerOff { status } => return Err(RunError::GuestStatus(status)),
        ExitReason::Reset => return Err(RunError::GuestReset),
        ExitReason::Signal(signal) => log::info!("Signal {signal} ends the guest"),
        ExitReason::Quit => log::info!("The terminal's user ended the guest"),
        ExitReason::TerminalGone => log::info!("The terminal closed, which ends the guest"),
        ExitReason::TimeLimit(limit) => {
            log::info!("The time limit of {} s ends the guest", limit.as_secs());
        }
        ExitReason::GuestCrash(text) => return Err(RunError::GuestCrash(text)),
        ExitReason::Panic => return Err(RunError::Panicked),
        ExitReason::AccessFailed(at) => return Err(RunError::AccessFailed { at }),
        ExitReason::NoWorker => return Err(RunError::NoWorker),
        ExitReason::Device(bdf, reason) => return Err(RunError::DeviceFailed { bdf, reason }),
    }
    Ok(())
}

/// To `epoll_wait`: no timeout.
const FOREVER: i32 = -1;

/// The shorter of two times in milliseconds, for `epoll_wait`: a moment longer, so that the next time none is left.
fn timeout(one: Option<Duration>, other: Option<Duration>) -> i32 {
    let shorter = one.into_iter().chain(other).min();
    shorter.map_or(FOREVER, |left| {
        i32::try_from(left.as_millis() + 1).unwrap_or(i32::MAX)
    })
}

/// Tags of what is watched; devices follow.
const EXIT: u32 = 0;
const SIGNAL: u32 = 1;
const FIRST_DEVICE: u32 = 2;

struct Watcher<'a> {
    signals: &'a Signals,
    /// The power button, until it was pressed.
    button: Option<&'a PowerButton>,
    watches: &'a [DeviceWatch],
    exits: &'a ExitReceiver,
    exit: ExitSender,
}

impl Watcher<'_> {
    /// SIGTERM asks the guest first, if it listens; everything else stops it.
    fn take_signal(&mut self, signal: i32) {
        let button = self
            .button
            .take_if(|_| signal == Signal::SIGTERM as i32)
            .map(PowerButton::press);
        match button {
            Some(Ok(Press::Heard)) => {
                log::warn!("Pressed the guest's power button; another SIGTERM stops the guest");
                return;
            }
            Some(Ok(Press::Unheard)) => {
                log::warn!("The guest ignores its power button");
            }
            Some(Err(error)) => log::warn!("Cannot press the guest's power button: {error}"),
            None => {}
        }
        self.exit.send(ExitReason::Signal(signal));
    }
}

impl MutEventSubscriber for Watcher<'_> {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        let mut wanted = vec![
            Events::with_data(self.exits.event(), EXIT, EventSet::IN),
            Events::with_data(&self.signals.0, SIGNAL, EventSet::IN),
        ];
        for (tag, watch) in (FIRST_DEVICE..).zip(self.watches) {
            wanted.push(Events::with_data(watch.event(), tag, EventSet::IN));
        }
        for events in wanted {
            if let Err(error) = ops.add(events) {
                log::error!("Cannot watch descriptor {}: {error}", events.fd());
            }
        }
    }

    fn process(&mut self, events: Events, _: &mut EventOps<'_>) {
        match events.data() {
            EXIT => {}
            SIGNAL => {
                while let Ok(Some(signal)) = self.signals.0.read_signal() {
                    self.take_signal(signal.ssi_signo.cast_signed());
                }
            }
            tag => {
                let index = usize::try_from(tag - FIRST_DEVICE).unwrap_or(usize::MAX);
                if let Some(watch) = self.watches.get(index) {
                    let reason = watch.text().to_owned();
                    self.exit.send(ExitReason::Device(watch.bdf(), reason));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::explain::{ExitCode, Explain};

    #[test]
    fn signals_are_let_through_again() {
        // Signal masks are each thread's own.
        let _signals = Signals::take().unwrap();
        let blocked = || SigSet::thread_get_mask().unwrap().contains(Signal::SIGTERM);
        assert!(blocked());
        unblock_signals().unwrap();
        assert!(!blocked());
    }

    #[test]
    fn signals_from_outside_end_the_guest_in_order() {
        let signals = Signals::take().unwrap();
        for signal in FROM_OUTSIDE {
            // To this thread, where it is blocked.
            nix::sys::signal::raise(signal).unwrap();
            let read = signals.0.read_signal().unwrap().unwrap();
            assert_eq!(read.ssi_signo, signal as u32);
        }
        unblock_signals().unwrap();
    }

    #[test]
    fn the_loop_waits_for_what_comes_first() {
        let second = Duration::from_secs(1);
        assert_eq!(timeout(None, None), FOREVER);
        assert_eq!(timeout(Some(second), None), 1001);
        assert_eq!(timeout(None, Some(second)), 1001);
        assert_eq!(timeout(Some(second), Some(second / 2)), 501);
        assert_eq!(timeout(Some(Duration::ZERO), Some(second)), 1);
        assert_eq!(timeout(Some(Duration::MAX), None), i32::MAX);
    }

    #[test]
    fn a_restart_is_no_good_end() {
        let error = outcome(ExitReason::Reset).unwrap_err();
        assert_eq!(
            (error.id(), error.exit_code()),
            ("guest-reset", ExitCode::GuestReset)
        );
        assert!(outcome(ExitReason::PowerOff { status: 0 }).is_ok());
    }
}
