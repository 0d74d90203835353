// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Raw mode of the user's terminal, restored on every exit that allows it, including fatal signals.
//!
//! SIGKILL does not; `stty sane` repairs what it leaves.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic;
use std::sync::{Mutex, Once, PoisonError};

use rustix::io::Errno;
use rustix::process::getpgrp;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetpgrp, tcsetattr};

/// The terminal in raw mode, and how it was before. One for the process, since a panic in any
/// thread has to find it.
static CHANGED: Mutex<Option<(OwnedFd, Termios)>> = Mutex::new(None);

/// Takes raw mode back when dropped.
#[derive(Debug)]
pub struct RawMode(());

/// Whether `terminal` is one that this process may read from and change. In the background of the
/// session whose terminal it is, the kernel would stop the process for that.
pub fn is_ours(terminal: impl AsFd) -> bool {
    isatty(&terminal)
        && match tcgetpgrp(&terminal) {
            Ok(foreground) => foreground == getpgrp(),
            // Not the terminal of this session.
            Err(error) => error == Errno::NOTTY,
        }
}

impl RawMode {
    /// Puts `terminal` into raw mode: keys come as they are typed and mean nothing to the kernel.
    /// Output is processed as before, so that lines begin at the left.
    ///
    /// # Errors
    /// The errno of `tcgetattr` or `tcsetattr`.
    pub fn enter(terminal: impl AsFd) -> io::Result<Self> {
        let before = tcgetattr(&terminal)?;
        let mut raw = before.clone();
        let output = raw.output_modes;
        raw.make_raw();
        raw.output_modes = output;
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let next = panic::take_hook();
            panic::set_hook(Box::new(move |panic| {
                restore();
                next(panic);
            }));
        });
        let terminal = terminal.as_fd().try_clone_to_owned()?;
        tcsetattr(&terminal, OptionalActions::Now, &raw)?;
        *CHANGED.lock().unwrap_or_else(PoisonError::into_inner) = Some((terminal, before));
        Ok(Self(()))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

/// Makes the terminal what it was before. Nothing to do the second time.
fn restore() {
    let changed = CHANGED
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    if let Some((terminal, before)) = changed
        // In the background a shell has it, which has set it up for itself.
        && is_ours(&terminal)
        // Not waiting for output, which may be paused.
        && let Err(error) = tcsetattr(&terminal, OptionalActions::Now, &before)
    {
        log::error!("Cannot restore the terminal: {error}; run `stty sane`");
    }
}

/// The same in a signal handler, which may have interrupted anything: without waiting for the lock, and
/// without a log. It allocates and frees nothing.
pub fn restore_at_once() {
    if let Ok(mut changed) = CHANGED.try_lock()
        && let Some((terminal, before)) = changed.take()
        && is_ours(&terminal)
    {
        // Nothing more can be done about a terminal that is gone.
        let _ = tcsetattr(&terminal, OptionalActions::Now, &before);
    }
}

/// Makes a new pseudoterminal a plain line: what goes in at one end comes out at the other.
///
/// # Errors
/// The errno of `tcgetattr` or `tcsetattr`.
pub fn make_plain(terminal: impl AsFd) -> io::Result<()> {
    let mut modes = tcgetattr(&terminal)?;
    modes.make_raw();
    Ok(tcsetattr(&terminal, OptionalActions::Now, &modes)?)
}

#[cfg(test)]
mod tests {
    use rustix::termios::{LocalModes, OutputModes};

    use super::super::pty::Pty;
    use super::*;

    #[test]
    fn raw_mode_is_taken_back_and_lines_still_begin_at_the_left() {
        // Not this session's terminal, so nothing here can stop this process.
        let pty = Pty::open().unwrap();
        let mut cooked = tcgetattr(pty.terminal()).unwrap();
        cooked.local_modes |= LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
        cooked.output_modes |= OutputModes::OPOST | OutputModes::ONLCR;
        tcsetattr(pty.terminal(), OptionalActions::Now, &cooked).unwrap();
        let before = tcgetattr(pty.terminal()).unwrap();
        assert!(is_ours(pty.terminal()));
        let raw = RawMode::enter(pty.terminal()).unwrap();
        let during = tcgetattr(pty.terminal()).unwrap();
        assert!(
            !during
                .local_modes
                .intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
        );
        assert_eq!(during.output_modes, before.output_modes);
        drop(raw);
        let after = tcgetattr(pty.terminal()).unwrap();
        assert_eq!(after.local_modes, before.local_modes);
        assert_eq!(after.input_modes, before.input_modes);
    }
}
