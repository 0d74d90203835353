// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Signals that end this process at once: a failed page of memory (SIGBUS), and others that only a
//! bug causes. The terminal is restored and the last event is written, which is all that can be
//! done in a signal handler; then the signal ends the process as it would have without.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use rustix::process::getpid;
use rustix::thread::gettid;
use vmm::confine::Refusal;
use vmm::console::nonblocking::Unblocked;
use vmm::console::restore_terminal_at_once;

/// The signals.
const FATAL: [Signal; 7] = [
    Signal::SIGBUS,
    Signal::SIGSEGV,
    Signal::SIGILL,
    Signal::SIGFPE,
    Signal::SIGABRT,
    Signal::SIGSYS,
    Signal::SIGTRAP,
];

/// The word for such an end, as `docs/reference/events.md` lists it.
pub const REASON: &str = "fatal-signal";

/// Longer than the last event, or the message, with all numbers at their longest.
const LINE: usize = 200;

/// Where the last event goes. The handler only tries to lock it, which is one atomic operation, and neither
/// allocates nor frees.
static TARGETS: Mutex<Option<Targets>> = Mutex::new(None);

#[derive(Debug)]
struct Targets {
    began: Instant,
    all: Vec<Unblocked<OwnedFd>>,
}

/// Makes those signals leave the terminal and the events in order. Once for the process.
///
/// # Errors
/// The errno of `sigaction`.
pub fn install() -> io::Result<()> {
    // On its own stack, if there is one, since that of the thread may be used up; once, so that the signal
    // does what it always does when the handler has returned.
    let flags = SaFlags::SA_SIGINFO | SaFlags::SA_ONSTACK | SaFlags::SA_RESETHAND;
    let action = SigAction::new(SigHandler::SigAction(handle), flags, SigSet::all());
    for signal in FATAL {
        // SAFETY: the handler does only what is safe while a thread is interrupted anywhere: it locks
        // nothing that it would have to wait for, allocates nothing, and makes system calls.
        unsafe { sigaction(signal, &action)? };
    }
    // The parent process may have blocked them, and the mask is inherited. Where one is blocked, a fault of this process
    // ends it without a handler (signal(7)).
    Ok(FATAL.into_iter().collect::<SigSet>().thread_unblock()?)
}

/// From now on such a signal writes the last event to `targets`; times count from `began`.
pub fn watch(began: Instant, targets: Vec<Unblocked<OwnedFd>>) {
    let targets = Some(Targets {
        began,
        all: targets,
    });
    *TARGETS.lock().unwrap_or_else(PoisonError::into_inner) = targets;
}

/// The last event was written.
pub fn forget() {
    TARGETS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
}

extern "C" fn handle(signal: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes a handler with SA_SIGINFO the address of such a structure (sigaction(2)), which lasts
    // as long as the handler runs.
    let refusal = unsafe { info.as_ref() }.and_then(Refusal::of);
    restore_terminal_at_once();
    if let Ok(mut targets) = TARGETS.try_lock()
        && let Some(targets) = targets.as_mut()
    {
        let elapsed = targets.began.elapsed();
        for target in &mut targets.all {
            // A reader that is gone misses it.
            let _ = write_line(target, |line| last_event(line, elapsed, signal));
        }
    }
    // Not by way of Rust's lock on it.
    let mut error = Unblocked::new(io::stderr(), Duration::ZERO);
    let _ = write_line(&mut error, |line| message(line, signal, refusal));
    // It is blocked until the handler returns, and then ends the process.
    raise_here(signal);
}

/// Sends `signal` to this thread. The C library's `raise` may use a call that names no process, which filters of system
/// calls refuse.
fn raise_here(signal: libc::c_int) {
    let (process, thread) = (getpid().as_raw_nonzero(), gettid().as_raw_nonzero());
    // SAFETY: the call takes numbers, and a signal to this thread harms no other.
    let _ = unsafe { libc::syscall(libc::SYS_tgkill, process, thread, signal) };
}

/// Writes what `format` writes into a buffer on the stack, at once.
fn write_line(
    target: &mut impl Write,
    format: impl FnOnce(&mut &mut [u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = [0; LINE];
    let mut rest = &mut buffer[..];
    format(&mut rest)?;
    let used = LINE - rest.len();
    target.write_all(&buffer[..used])
}

/// `Event::Shutdown`, as `serde_json` writes it, without allocating.
fn last_event(line: &mut &mut [u8], elapsed: Duration, signal: i32) -> io::Result<()> {
    let code = 128_i32.saturating_add(signal);
    writeln!(
        line,
        "{{\"time_ms\":{},\"event\":\"shutdown\",\"reason\":\"{REASON}\",\"signal\":{signal},\"exit_code\":{code}}}",
        elapsed.as_millis()
    )
}

fn message(line: &mut &mut [u8], signal: i32, refusal: Option<Refusal>) -> io::Result<()> {
    if let Some(Refusal {
        thread,
        number,
        name,
    }) = refusal
    {
        let name = name.unwrap_or("unknown here");
        return writeln!(
            line,
            "pinvisor: signal {signal} ends this process and its guest: its thread {} attempted system call {number} \
             ({name}), which its filter refuses (--seccomp)",
            thread.name()
        );
    }
    let cause = match signal {
        libc::SIGBUS => {
            "a page of memory failed (dmesg | grep -i 'memory failure'), or this is a bug"
        }
        libc::SIGSYS => "a seccomp filter ends programs that make this system call",
        _ => "this is a bug",
    };
    writeln!(
        line,
        "pinvisor: signal {signal} ends this process and its guest: {cause}"
    )
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::fs::{self, File};
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};

    use nix::sys::signal::raise;
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    use serde_json::Value;

    use super::*;
    use crate::config::HostConfig;
    use crate::events::{Event, EventLog};
    use vmm::console::testing::{Pty, RawMode};

    /// Selects this test as the process that gets the signal, with the path for events.
    const CHILD: &str = "PINVISOR_TEST_FATAL_SIGNAL";

    /// What gets the signal: its standard input is a terminal.
    fn child(events: &str) {
        // As a supervisor may leave them.
        SigSet::all().thread_block().unwrap();
        install().unwrap();
        let config = HostConfig {
            event_file: Some(events.into()),
            ..HostConfig::default()
        };
        let mut log = EventLog::open(&config).unwrap();
        log.started();
        let _raw = RawMode::enter(io::stdin()).unwrap();
        let raw = tcgetattr(io::stdin()).unwrap().local_modes;
        assert!(!raw.contains(LocalModes::ICANON));
        raise(Signal::SIGBUS).unwrap();
    }

    #[test]
    fn the_terminal_and_the_events_are_left_in_order() {
        if let Ok(events) = env::var(CHILD) {
            return child(&events);
        }
        let directory = tempfile::tempdir().unwrap();
        let (events, error) = (
            directory.path().join("events"),
            directory.path().join("error"),
        );
        let pty = Pty::open().unwrap();
        let mut modes = tcgetattr(pty.terminal()).unwrap();
        modes.local_modes |= LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
        tcsetattr(pty.terminal(), OptionalActions::Now, &modes).unwrap();
        let before = tcgetattr(pty.terminal()).unwrap().local_modes;
        let status = Command::new(env::current_exe().unwrap())
            .args([
                "--exact",
                "fatal::tests::the_terminal_and_the_events_are_left_in_order",
            ])
            .env(CHILD, &events)
            .stdin(Stdio::from(pty.terminal().try_clone().unwrap()))
            .stdout(Stdio::null())
            .stderr(File::create(&error).unwrap())
            .status()
            .unwrap();
        assert_eq!(status.signal(), Some(libc::SIGBUS), "{status}");
        assert_eq!(tcgetattr(pty.terminal()).unwrap().local_modes, before);
        let events = fs::read_to_string(events).unwrap();
        let last: Value = serde_json::from_str(events.lines().last().unwrap()).unwrap();
        assert_eq!(last["event"], "shutdown");
        assert_eq!(last["reason"], "fatal-signal");
        let error = fs::read_to_string(error).unwrap();
        assert!(error.contains("signal 7 ends this process"), "{error}");
    }

    #[test]
    fn the_last_event_is_as_any_other() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let config = HostConfig {
            event_file: Some(file.path().to_owned()),
            ..HostConfig::default()
        };
        EventLog::open(&config).unwrap().record(&Event::Shutdown {
            reason: REASON,
            message: None,
            signal: Some(libc::SIGSEGV),
            exit_code: 139,
        });
        let keys = |text: &str| {
            let mut value: Value = serde_json::from_str(text).unwrap();
            value["time_ms"] = Value::Null;
            value.to_string()
        };
        let mut written = Vec::new();
        let signal = libc::SIGSEGV;
        write_line(&mut written, |line| last_event(line, Duration::MAX, signal)).unwrap();
        let written = String::from_utf8(written).unwrap();
        assert!(written.ends_with("}\n"));
        assert_eq!(
            keys(&written),
            keys(&fs::read_to_string(file.path()).unwrap())
        );
    }

    #[test]
    fn the_longest_lines_fit() {
        for signal in FATAL
            .map(|signal| signal as i32)
            .into_iter()
            .chain([i32::MAX])
        {
            let mut written = Vec::new();
            write_line(&mut written, |line| message(line, signal, None)).unwrap();
            write_line(&mut written, |line| last_event(line, Duration::MAX, signal)).unwrap();
            assert_eq!(written.iter().filter(|byte| **byte == b'\n').count(), 2);
        }
    }
}
