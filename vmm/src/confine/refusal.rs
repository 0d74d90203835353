// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a filter refused, for the handler of SIGSYS.

use std::ffi::c_int;

use super::calls::CALLS;
use super::thread_kind::{ThreadKind, current};

/// `SYS_SECCOMP` in include/uapi/asm-generic/siginfo.h.
const SYS_SECCOMP: c_int = 1;

/// The beginning of `siginfo_t` of SIGSYS (include/uapi/asm-generic/siginfo.h `_sigsys`), on 64-bit machines.
#[repr(C)]
struct SigSys {
    signal: c_int,
    errno: c_int,
    code: c_int,
    padding: c_int,
    address: usize,
    call: c_int,
    arch: u32,
}

const _: () = assert!(size_of::<SigSys>() <= size_of::<libc::siginfo_t>());
const _: () = assert!(align_of::<SigSys>() <= align_of::<libc::siginfo_t>());

/// A system call that a filter of this module's refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The thread.
    pub thread: ThreadKind,
    /// The number of the call.
    pub number: c_int,
    /// Its name, if some thread may make it with some arguments.
    pub name: Option<&'static str>,
}

impl Refusal {
    /// What `info` reports about this thread; `None` if it is no SIGSYS of a filter, or the thread is not confined. May be
    /// called in a signal handler.
    #[must_use]
    pub fn of(info: &libc::siginfo_t) -> Option<Self> {
        // SAFETY: for SIGSYS the kernel fills in this variant of the union; other signals have other data there, which
        // may be any number as well. Size and alignment are checked above.
        let info = unsafe { &*std::ptr::from_ref(info).cast::<SigSys>() };
        if info.signal != libc::SIGSYS || info.code != SYS_SECCOMP {
            return None;
        }
        let known = CALLS
            .iter()
            .find(|call| call.number == i64::from(info.call));
        Some(Self {
            thread: current()?,
            number: info.call,
            name: known.map(|call| call.name),
        })
    }
}
