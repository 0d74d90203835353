// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! How a running monitor is confined: what a guest that has taken it over can still do is what its threads may do.
//!
//! Everything that a run needs is open before its guest starts. Then each thread [enters](Confinement::enter) its
//! confinement, before it does any work for the guest:
//!
//! | what | where |
//! |---|---|
//! | user, capabilities, root directory, core dumps | `privilege` |
//! | files | `files` |
//! | system calls | `calls`, `filter` |
//!
//! All threads share their memory. One that is taken over can have another one do what that may do, so all of them together
//! are the limit.

mod calls;
mod error;
mod files;
mod filter;
mod privilege;
mod refusal;
#[cfg(test)]
mod tests;
mod thread_kind;
mod user;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::signal::{SigSet, Signal};
use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::config::{ConfineConfig, OnReset, Seccomp, UserName};
use crate::error::explain::Limits;
use files::Way;

pub use error::ConfineError;
pub use privilege::drop_privileges;
pub use refusal::Refusal;
pub use thread_kind::{ThreadKind, current};
pub use user::{NoSuchUser, User};

/// Whether the main thread is confined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MainThread {
    /// It does nothing but to run one guest, and is.
    Confined,
    /// It will open devices again, or has other work, and is not: only the threads that it starts for the guest are.
    Free,
}

/// How the threads of a run are confined; by default not at all. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Confinement(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    main: MainThread,
    filters: Seccomp,
    user: Option<User>,
    root: Option<(PathBuf, OwnedFd)>,
    /// What the main thread may do in the end.
    ways: Mutex<Vec<Way>>,
    /// What the main thread starts from now on has an empty bounding set.
    enclosed: AtomicBool,
    /// The main thread is confined, and what it starts is from the beginning.
    main_entered: AtomicBool,
}

impl Confinement {
    /// As `config` says, of a run that restarts its guest or does not.
    ///
    /// # Errors
    /// [`ConfineError`]
    pub fn new(config: &ConfineConfig, on_reset: OnReset) -> Result<Self, ConfineError> {
        let main = match on_reset {
            OnReset::Exit => MainThread::Confined,
            OnReset::Restart => MainThread::Free,
        };
        let jail = [
            ("--jail-user", config.user.is_some()),
            ("--jail-root", config.root.is_some()),
        ];
        if let (MainThread::Free, Some((option, _))) =
            (main, jail.into_iter().find(|(_, given)| *given))
        {
            return Err(ConfineError::JailRestart { option });
        }
        // Before a keeper is started, which drops its own and has no one to tell.
        privilege::check_capabilities()?;
        let root = config.root.clone().map(|path| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            match openat(CWD, &path, flags, Mode::empty()) {
                Ok(directory) => Ok((path, directory)),
                Err(errno) => Err(ConfineError::JailRoot {
                    path,
                    source: errno.into(),
                }),
            }
        });
        Ok(Self(Some(Arc::new(Inner {
            main,
            filters: config.seccomp,
            user: config.user.as_ref().map(jail_user).transpose()?,
            root: root.transpose()?,
            ways: Mutex::default(),
            enclosed: AtomicBool::new(false),
            main_entered: AtomicBool::new(false),
        }))))
    }

    /// The threads of guests in a program that has other work as well.
    ///
    /// # Errors
    /// Those of [`new`](Self::new).
    pub fn of_guest_threads() -> Result<Self, ConfineError> {
        Self::new(&ConfineConfig::default(), OnReset::Restart)
    }

    /// Lets the main thread remove files below `directory` in the end.
    ///
    /// # Errors
    /// The errno of `fcntl`.
    pub fn may_remove_in(&self, directory: BorrowedFd<'_>) -> std::io::Result<()> {
        self.may(Way::Remove(directory.try_clone_to_owned()?));
        Ok(())
    }

    /// Lets the main thread make sockets in `directory` in the end.
    pub(crate) fn may_publish_in(&self, directory: OwnedFd) {
        self.may(Way::Publish(directory));
    }

    fn may(&self, way: Way) {
        if let Some(inner) = &self.0 {
            inner.ways().push(way);
        }
    }

    /// Whether the main thread will be confined.
    #[must_use]
    pub fn includes_main(&self) -> bool {
        let inner = self.0.as_ref();
        inner.is_some_and(|inner| inner.main == MainThread::Confined)
    }

    /// The part that concerns the whole process, when everything is open and before the guest starts.
    ///
    /// # Errors
    /// [`ConfineError`]
    pub fn enclose(&self) -> Result<(), ConfineError> {
        let Some(inner) = &self.0 else {
            return Ok(());
        };
        privilege::leave_no_dump()?;
        if inner.main == MainThread::Free {
            return Ok(());
        }
        // Nothing can be looked up afterwards.
        Limits::keep();
        privilege::hide_memory()?;
        privilege::empty_bounding_set()?;
        inner.enclosed.store(true, Ordering::SeqCst);
        match &inner.root {
            Some((path, directory)) => privilege::change_root(directory.as_fd(), path),
            None => Ok(()),
        }
    }

    /// Confines this thread, which is of `kind`, for good. The main thread comes last.
    ///
    /// # Errors
    /// [`ConfineError`]; the thread must not work for a guest then.
    pub fn enter(&self, kind: ThreadKind) -> Result<(), ConfineError> {
        let Some(inner) = &self.0 else {
            return Ok(());
        };
        let is_main = kind == ThreadKind::Main;
        if is_main && inner.main == MainThread::Free {
            return Ok(());
        }
        // Threads that the main thread starts later have inherited it.
        if !inner.main_entered.load(Ordering::SeqCst) {
            if !inner.enclosed.load(Ordering::SeqCst) {
                privilege::empty_bounding_set()?;
            }
            privilege::become_unprivileged(inner.user.as_ref())?;
            match is_main {
                true => files::restrict(&inner.ways()),
                false => files::restrict(&[]),
            }
        }
        // Where it is blocked the kernel ends the process without its handler.
        let refused: SigSet = [Signal::SIGSYS].into_iter().collect();
        refused
            .thread_unblock()
            .map_err(error::cannot("unblock a signal"))?;
        filter::install(inner.filters, kind)?;
        thread_kind::begin(kind);
        inner.main_entered.fetch_or(is_main, Ordering::SeqCst);
        Ok(())
    }
}

/// The user of a jail, who has no group but its own.
fn jail_user(name: &UserName) -> Result<User, ConfineError> {
    User::find(name)
        .map(User::alone)
        .map_err(|NoSuchUser { user, reason }| ConfineError::JailUser { user, reason })
}

impl Inner {
    fn ways(&self) -> MutexGuard<'_, Vec<Way>> {
        self.ways.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
