// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The privileges of a thread: user and capabilities; of the process: root directory and core dumps.
//!
//! The kernel gives each thread credentials of its own. Those calls are used here, not the C library's, which change all
//! threads and would have to be allowed to those that are confined already.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::process::{
    DumpableBehavior, Gid, Resource, Rlimit, Uid, chroot, fchdir, set_dumpable_behavior, setrlimit,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

use super::error::{ConfineError, cannot};
use super::user::User;

/// Whether this thread can drop its capabilities later, which a filter may deny: sets those that it has.
///
/// # Errors
/// [`ConfineError::Confine`]
pub(super) fn check_capabilities() -> Result<(), ConfineError> {
    let held = capabilities(None).map_err(cannot("read capabilities"))?;
    set_capabilities(None, held).map_err(cannot("drop capabilities"))
}

/// Takes all privileges from this thread: it becomes `user`, if there is one, has no capabilities, and gets none by
/// executing a program.
///
/// # Errors
/// [`ConfineError::Confine`]
pub fn drop_privileges(user: Option<&User>) -> Result<(), ConfineError> {
    empty_bounding_set()?;
    become_unprivileged(user)
}

/// No program that this thread executes has capabilities, nor one of a thread that it starts from now on.
///
/// # Errors
/// [`ConfineError::Confine`]
pub(super) fn empty_bounding_set() -> Result<(), ConfineError> {
    let held = capabilities(None).map_err(cannot("read capabilities"))?;
    if held.effective.contains(CapabilitySet::SETPCAP) {
        for capability in CapabilitySet::all() {
            // One that this kernel does not have is not in the set.
            let _ = remove_capability_from_bounding_set(capability);
        }
    }
    Ok(())
}

/// What [`drop_privileges`] does in a thread whose bounding set is empty.
///
/// # Errors
/// [`ConfineError::Confine`]
pub(super) fn become_unprivileged(user: Option<&User>) -> Result<(), ConfineError> {
    set_no_new_privs(true).map_err(cannot("forbid new privileges"))?;
    if let Some(User { uid, gid, groups }) = user {
        let (user, group) = (Uid::from_raw(*uid), Gid::from_raw(*gid));
        let groups: Vec<_> = groups.iter().copied().map(Gid::from_raw).collect();
        set_thread_groups(&groups).map_err(cannot("change the groups"))?;
        set_thread_res_gid(group, group, group).map_err(cannot("change the group"))?;
        set_thread_res_uid(user, user, user).map_err(cannot("change the user"))?;
    }
    // Kernels before 4.3 have no such set.
    let _ = clear_ambient_capability_set();
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, none).map_err(cannot("drop capabilities"))
}

/// The process leaves no core dump, in which guest memory would be.
///
/// # Errors
/// [`ConfineError::Confine`]
pub fn leave_no_dump() -> Result<(), ConfineError> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none).map_err(cannot("forbid core dumps"))
}

/// No other process of the same user can look into this one. Its files in `/proc` are root's then.
///
/// # Errors
/// [`ConfineError::Confine`]
pub fn hide_memory() -> Result<(), ConfineError> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(cannot("hide memory from other processes"))
}

/// Makes `directory` the root directory of the process; its path is `path`.
///
/// # Errors
/// [`ConfineError::JailRoot`]
pub fn change_root(directory: impl AsFd, path: &Path) -> Result<(), ConfineError> {
    fchdir(directory)
        .and_then(|()| chroot("."))
        .map_err(|errno| ConfineError::JailRoot {
            path: path.to_owned(),
            source: errno.into(),
        })
}
