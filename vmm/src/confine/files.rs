// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Landlock: no file can be opened any more, but what is open stays usable.
//!
//! Signals are not restricted here: until Linux 6.15 threads with domains of their own cannot signal each other then, and
//! the main thread interrupts vCPUs by a signal. [`tgkill`](super::calls) reaches this process only.

use std::os::fd::OwnedFd;
use std::sync::Once;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, make_bitflags,
};

/// The newest kernel interface whose restrictions are known here; older kernels have some of them.
const NEWEST: ABI = ABI::V6;

/// What the main thread may still do below a directory.
#[derive(Debug)]
pub enum Way {
    /// Remove files.
    Remove(OwnedFd),
    /// Make sockets, and remove files.
    Publish(OwnedFd),
}

/// Takes all access to files from this thread, and from those that it starts, except by `ways`; no TCP port can be bound
/// or connected to, and no abstract socket from outside.
pub fn restrict(ways: &[Way]) {
    static TOLD: Once = Once::new();
    match try_restrict(ways) {
        Ok(RulesetStatus::NotEnforced) => TOLD.call_once(|| {
            log::info!(
                "The host kernel has no Landlock: access to files is restricted by the system call filter only"
            );
        }),
        Ok(RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced) => {}
        // A container's filter may refuse it.
        Err(error) => TOLD.call_once(|| {
            log::warn!("Landlock does not restrict access to files: {error}");
        }),
    }
}

fn try_restrict(ways: &[Way]) -> Result<RulesetStatus, RulesetError> {
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::AbstractUnixSocket)?
        .create()?;
    for way in ways {
        let (directory, access): (_, BitFlags<AccessFs>) = match way {
            Way::Remove(directory) => (directory, AccessFs::RemoveFile.into()),
            Way::Publish(directory) => {
                (directory, make_bitflags!(AccessFs::{RemoveFile | MakeSock}))
            }
        };
        ruleset = ruleset.add_rule(PathBeneath::new(directory, access))?;
    }
    // That is so already: a thread becomes unprivileged first.
    let ruleset = ruleset.no_new_privs(false);
    Ok(ruleset.restrict_self()?.ruleset)
}
