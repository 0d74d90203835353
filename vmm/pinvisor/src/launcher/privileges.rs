// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Drops all privilege of this process, for good.

use std::io;

use nix::unistd::{initgroups, setgroups, setresgid, setresuid};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

use super::error::LaunchError;
use super::user::Account;

/// Makes this process one of `account`, if that is given, with no capability in any set, and with none that an executed
/// program could gain. With `lifts_limit` it may lock any amount of memory: what it has not mapped for an IOMMU yet counts.
///
/// This process must have one thread: capabilities belong to threads.
///
/// # Errors
/// [`LaunchError::Privilege`]
pub fn drop_all(account: Option<&Account>, lifts_limit: bool) -> Result<(), LaunchError> {
    if lifts_limit {
        lift_limit();
    }
    let failed = |operation| failed(operation);
    clear_ambient_capability_set().map_err(failed("clear the ambient capabilities"))?;
    empty_bounding_set().map_err(failed("drop the bounding set of capabilities"))?;
    if let Some(account) = account {
        become_user(account)?;
    }
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, none).map_err(failed("drop capabilities"))?;
    // For root: an executed program would get those of the bounding set (security/commoncap.c cap_bprm_creds_from_file).
    set_no_new_privs(true).map_err(failed("forbid new privileges"))
}

fn failed(operation: &'static str) -> impl FnOnce(rustix::io::Errno) -> LaunchError {
    move |errno| LaunchError::Privilege {
        operation,
        source: errno.into(),
    }
}

/// Without CAP_SYS_RESOURCE the limit stays, and the monitor reports it if it is too low.
fn lift_limit() {
    let limit = Rlimit {
        current: None,
        maximum: None,
    };
    if let Err(error) = setrlimit(Resource::Memlock, limit) {
        log::debug!("Cannot lift the limit on locked memory: {error}");
    }
}

/// Nothing is dropped without CAP_SETPCAP, with which alone it can be used.
fn empty_bounding_set() -> rustix::io::Result<()> {
    if !capabilities(None)?
        .permitted
        .contains(CapabilitySet::SETPCAP)
    {
        return Ok(());
    }
    for capability in CapabilitySet::all() {
        match remove_capability_from_bounding_set(capability) {
            // Of a later kernel.
            Err(rustix::io::Errno::INVAL) => {}
            result => result?,
        }
    }
    Ok(())
}

fn become_user(account: &Account) -> Result<(), LaunchError> {
    let Account { uid, gid, name } = account;
    let failed = |operation| {
        move |errno: nix::Error| LaunchError::Privilege {
            operation,
            source: io::Error::from(errno),
        }
    };
    let groups = match name {
        Some(name) => initgroups(name, *gid),
        None => setgroups(&[*gid]),
    };
    groups.map_err(failed("take the groups of --user"))?;
    setresgid(*gid, *gid, *gid).map_err(failed("take the group of --user"))?;
    setresuid(*uid, *uid, *uid).map_err(failed("become the user of --user"))
}
