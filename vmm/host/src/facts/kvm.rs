// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! KVM: whether it can be opened, and whether it has the required capabilities.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;

use kvm_bindings::KVM_API_VERSION;
use kvm_ioctls::{Cap, Kvm};

use crate::arch::{NEEDED_OF_KVM, kvm_obstacle};
use crate::sys_root::SysRoot;

/// Why a KVM that opens cannot run a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvmObstacle {
    /// The version of its API.
    ApiVersion(i32),
    /// A capability that it lacks.
    Lacks(Cap),
    /// It emulates neither a GICv3 with an ITS nor a GICv2, of which it does what the host has.
    NoGic,
}

/// Looks for what a guest needs of KVM.
///
/// # Errors
/// The first thing that is missing.
pub fn kvm_suffices(kvm: &Kvm) -> Result<(), KvmObstacle> {
    suffices(kvm.get_api_version(), |cap| kvm.check_extension(cap))?;
    kvm_obstacle(kvm).map_or(Ok(()), Err)
}

pub(crate) fn suffices(version: i32, has: impl Fn(Cap) -> bool) -> Result<(), KvmObstacle> {
    if version.cast_unsigned() != KVM_API_VERSION {
        return Err(KvmObstacle::ApiVersion(version));
    }
    match NEEDED_OF_KVM.iter().copied().find(|cap| !has(*cap)) {
        Some(cap) => Err(KvmObstacle::Lacks(cap)),
        None => Ok(()),
    }
}

pub(crate) fn open(root: &SysRoot) -> io::Result<Kvm> {
    let path = root.path("dev/kvm");
    let path = CString::new(path.as_os_str().as_bytes())?;
    Kvm::new_with_path(path).map_err(|error| io::Error::from_raw_os_error(error.errno()))
}
