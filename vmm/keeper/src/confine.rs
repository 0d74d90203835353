// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The keeper's privileges: hold what it is given, and reset devices through sysfs.

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
}

/// Makes this process one that holds nothing but its standard streams, belongs to no terminal, is
/// ended by SIGKILL only, and keeps the capabilities that its duty may need. It has one thread, and
/// nothing open that is in use.
pub(crate) fn confine() -> Result<(), KeeperError> {
    close_all_but_streams().map_err(setup("close inherited files"))?;
    // Refused to a process that leads its group already, which has a terminal only if it was
    // started by hand.
    let _ = setsid();
    // What is blocked is not lost on a process without handlers, but has no effect either.
    SigSet::all()
        .thread_block()
        .map_err(setup("block signals"))?;
    set_name(c"pinvisor-keeper").map_err(setup("name this process"))?;
    // It is small, and its end would give memory away. Needs CAP_SYS_RESOURCE.
    if let Err(error) = fs::write("/proc/self/oom_score_adj", "-1000") {
        log::debug!("cannot protect the keeper from the OOM killer: {error}");
    }
    set_no_new_privs(true).map_err(setup("forbid new privileges"))?;
    restrict_to(Duty::Any)
}

/// Drops the capabilities that are not for `duty`, except CAP_DAC_OVERRIDE where files of root's are not its own.
pub(crate) fn restrict_to(duty: Duty) -> Result<(), KeeperError> {
    let mut needed = duty.capabilities();
    if !geteuid().is_root() {
        needed |= CapabilitySet::DAC_OVERRIDE;
    }
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
