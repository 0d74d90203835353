// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The keeper's privileges: hold what it is given, and reset devices through sysfs.

use std::ffi::CStr;
use std::fs;
use std::io;

use nix::sys::signal::SigSet;
use rustix::process::{geteuid, setsid};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
use rustix::thread::{set_name, set_no_new_privs};

use crate::{KeeperError, setup};

/// What a keeper has to do, and has capabilities for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Duty {
    /// Not known yet: one of the others.
    Any,
    /// Hold `/dev/iommu`, which pins memory, and reset devices.
    Hold,
    /// Pin memory, see whether groups are free, and reset devices.
    Pin,
    /// The same, with all memory pinned.
    Keep,
}

impl Duty {
    /// What it takes: CAP_SYS_ADMIN, without which sysfs takes no reset of what is behind a bridge and shows no slot
    /// status; CAP_SYS_RAWIO to open groups; CAP_IPC_LOCK, without which pins count against the limit on locked memory.
    fn capabilities(self) -> CapabilitySet {
        let resets = CapabilitySet::SYS_ADMIN;
        match self {
            Self::Hold => resets,
            Self::Keep => resets | CapabilitySet::SYS_RAWIO,
            Self::Any | Self::Pin => resets | CapabilitySet::SYS_RAWIO | CapabilitySet::IPC_LOCK,
        }
    }

    /// The same, with what it takes to write to files of root's that are not the process's own.
    fn needed(self) -> CapabilitySet {
        match geteuid().is_root() {
            true => self.capabilities(),
            false => self.capabilities() | CapabilitySet::DAC_OVERRIDE,
        }
    }
}

/// Makes this process a keeper, with the capabilities that its duty may need.
pub(crate) fn confine_keeper() -> Result<(), KeeperError> {
    // It is small, and its end would give memory away. Needs CAP_SYS_RESOURCE.
    if let Err(error) = fs::write("/proc/self/oom_score_adj", "-1000") {
        log::debug!("cannot protect the keeper from the OOM killer: {error}");
    }
    confine(c"pinvisor-keeper", Duty::Any.needed())
}

/// Makes this process one of this `name` that holds nothing but its standard streams, belongs to no terminal, is ended by
/// SIGKILL only, and keeps the capabilities in `needed`. It must have one thread, and nothing open that is in use.
///
/// # Errors
/// [`KeeperError::Setup`]
pub fn confine(name: &CStr, needed: CapabilitySet) -> Result<(), KeeperError> {
    close_all_but_streams().map_err(setup("close inherited files"))?;
    // Refused to a process that leads its group already, which has a terminal only if it was
    // started by hand.
    let _ = setsid();
    // What is blocked is not lost on a process without handlers, but has no effect either.
    SigSet::all()
        .thread_block()
        .map_err(setup("block signals"))?;
    set_name(name).map_err(setup("name this process"))?;
    set_no_new_privs(true).map_err(setup("forbid new privileges"))?;
    keep(needed)
}

/// Drops the capabilities that are not for `duty`.
pub(crate) fn restrict_to(duty: Duty) -> Result<(), KeeperError> {
    keep(duty.needed())
}

/// Drops all capabilities but those in `needed`.
fn keep(needed: CapabilitySet) -> Result<(), KeeperError> {
    let failed = || setup("drop capabilities");
    let kept = capabilities(None).map_err(failed())?.permitted & needed;
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets).map_err(failed())
}

fn close_all_but_streams() -> io::Result<()> {
    // SAFETY: nothing in this process owns a descriptor above the standard streams yet; it has only
    // just been started, and the arguments are the call's own (close_range(2)).
    match unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
