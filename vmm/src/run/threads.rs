// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Threads that last as long as the guest.

use std::io;
use std::sync::mpsc;
use std::thread::{Builder, JoinHandle};

use rustix::process::Pid;
use rustix::thread::gettid;

use crate::confine::{ConfineError, Confinement, ThreadKind};
use crate::error::Error;
use crate::error::explain::process;

/// Bytes of a transparent hugepage, where pages have 4 KiB.
const HUGEPAGE: usize = 2 << 20;
/// Bytes of a stack. With `always` in `/sys/kernel/mm/transparent_hugepage/enabled`, the first access to memory in which
/// there is room for a hugepage allocates and clears one, and in a stack of 2 MiB there is room if it ends at a multiple of
/// that. The stack of the first vCPU does, right below guest memory. Stacks that are mapped with `MAP_STACK` get no
/// hugepages (Linux 6.7, include/linux/mman.h, `calc_vm_flag_bits`), but musl's are not (src/thread/pthread_create.c).
const STACK: usize = 1 << 20;
const _: () = assert!(STACK < HUGEPAGE);

/// A thread that is confined.
#[derive(Debug)]
pub(crate) struct Confined<T> {
    pub thread: JoinHandle<Option<T>>,
    /// Its number, for signals to it.
    pub number: Pid,
}

/// Such a thread does not start.
#[derive(Debug, thiserror::Error)]
pub enum ThreadError {
    /// The system has none.
    #[error(transparent)]
    Start(#[from] io::Error),
    /// It cannot be confined.
    #[error(transparent)]
    Confine(#[from] ConfineError),
}

impl ThreadError {
    /// As an error of `operation`, a verb phrase.
    pub(crate) fn of(operation: &'static str) -> impl FnOnce(Self) -> Error {
        move |error| match error {
            Self::Start(error) => process(operation)(error).into(),
            Self::Confine(error) => error.into(),
        }
    }
}

/// Starts a thread of this name, which is confined as one of `kind` before it does `work`, and when this returns.
///
/// # Errors
/// [`ThreadError`]; it does no work then.
pub(crate) fn start<T: Send + 'static>(
    name: String,
    confinement: &Confinement,
    kind: ThreadKind,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<Confined<T>, ThreadError> {
    let confinement = confinement.clone();
    let (ready, confined) = mpsc::sync_channel(1);
    let builder = Builder::new().name(name).stack_size(STACK);
    let thread = builder.spawn(move || {
        let entered = confinement.enter(kind).map(|()| gettid());
        let is_confined = entered.is_ok();
        let is_awaited = ready.send(entered).is_ok();
        drop((ready, confinement));
        (is_confined && is_awaited).then(work)
    })?;
    // It sends before anything of the caller's can panic.
    let number = confined
        .recv()
        .map_err(|_| io::Error::other("the thread ended at once"))??;
    Ok(Confined { thread, number })
}
