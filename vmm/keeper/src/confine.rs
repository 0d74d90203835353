// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The keeper's privileges: hold what it is given, and reset devices through sysfs.

use std::fs;
use std::io;

use nix::sys::signal::SigSet;
use rustix::process::{geteuid, setsid};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
use rustix::thread::{set_name, set_no_new_privs};

use crate::{KeeperError, setup};

/// Makes this process one that holds nothing but its standard streams, belongs to no terminal, is
/// ended by SIGKILL only, and keeps the capabilities that its resets need. It has one thread, and
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
    drop_capabilities().map_err(setup("drop capabilities"))
}

/// Keeps CAP_SYS_ADMIN, without which sysfs takes no reset of what is behind a bridge and shows no
/// slot status, and CAP_DAC_OVERRIDE where files of root's are not its own.
fn drop_capabilities() -> io::Result<()> {
    let mut needed = CapabilitySet::SYS_ADMIN;
    if !geteuid().is_root() {
        needed |= CapabilitySet::DAC_OVERRIDE;
    }
    let kept = capabilities(None)?.permitted & needed;
    set_capabilities(
        None,
        CapabilitySets {
            effective: kept,
            permitted: kept,
            inheritable: CapabilitySet::empty(),
        },
    )?;
    Ok(())
}

fn close_all_but_streams() -> io::Result<()> {
    // SAFETY: nothing in this process owns a descriptor above the standard streams yet; it has only
    // just been started, and the arguments are the call's own (close_range(2)).
    match unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
