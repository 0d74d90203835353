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
    /// Bytes of the pages by which it manages memory, which are not those that guests are made of.
    PageSize(u64),
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

/// Bytes of the kernel's pages; `None` if it does not tell.
#[cfg(target_arch = "aarch64")]
pub(crate) fn page_size() -> Option<u64> {
    page_size_in(&std::fs::read("/proc/self/auxv").ok()?)
}

/// The same, of what it tells each process (getauxval(3), `AT_PAGESZ`): pairs of a type and a value.
#[cfg(any(target_arch = "aarch64", test))]
fn page_size_in(auxiliary: &[u8]) -> Option<u64> {
    const PAGE_SIZE: u64 = 6;
    let numbers = auxiliary
        .as_chunks()
        .0
        .iter()
        .map(|word| u64::from_ne_bytes(*word));
    let numbers: Vec<_> = numbers.collect();
    let pair = numbers
        .as_chunks::<2>()
        .0
        .iter()
        .find(|pair| pair[0] == PAGE_SIZE)?;
    Some(pair[1])
}

pub(crate) fn open(root: &SysRoot) -> io::Result<Kvm> {
    let path = root.path("dev/kvm");
    let path = CString::new(path.as_os_str().as_bytes())?;
    Kvm::new_with_path(path).map_err(|error| io::Error::from_raw_os_error(error.errno()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_as_the_kernel_tells_this_process() {
        let words = |words: &[u64]| {
            words
                .iter()
                .flat_map(|word| word.to_ne_bytes())
                .collect::<Vec<_>>()
        };
        assert_eq!(page_size_in(&words(&[33, 6, 6, 16384, 0, 0])), Some(16384));
        assert_eq!(page_size_in(&words(&[33, 6, 0, 0])), None);
        assert_eq!(page_size_in(&words(&[6])), None);
        assert_eq!(page_size_in(&[6, 0, 0]), None);
        let own = std::fs::read("/proc/self/auxv").unwrap();
        assert!(page_size_in(&own).is_some_and(u64::is_power_of_two));
    }
}
