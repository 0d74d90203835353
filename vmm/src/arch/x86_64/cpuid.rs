// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The CPU that the guest sees: the host's, as far as KVM and this machine support it, with the
//! topology of this VM.

mod mask;
#[cfg(test)]
mod tests;
mod timing;
mod topology;

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::{Cap, Kvm};

use topology::Topology;

/// Address bits assumed if the CPU does not report them.
const DEFAULT_ADDRESS_BITS: u8 = 36;

/// Leaf 1, ECX: the local APIC's timer can be armed with a value of the TSC.
const TSC_DEADLINE: u32 = 1 << 24;

/// A CPU with more leaves than KVM takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("The CPU has {0} CPUID leaves, KVM accepts {KVM_MAX_CPUID_ENTRIES}")]
pub struct TooManyLeavesError(usize);

/// Reads what KVM supports here, without what this machine has no part for.
///
/// # Errors
/// KVM's errno.
pub fn supported(kvm: &Kvm) -> Result<CpuId, kvm_ioctls::Error> {
    let mut cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?;
    mask::apply(&mut cpuid);
    // KVM's local APIC has the timer mode, but its user must report it: only the user is certain
    // that the APIC is KVM's.
    if kvm.check_extension(Cap::TscDeadlineTimer) {
        for leaf in entries(&mut cpuid, 1) {
            leaf.ecx |= TSC_DEADLINE;
        }
    }
    Ok(cpuid)
}

/// Bits of a guest-physical address (leaf 0x8000_0008).
#[must_use]
pub fn address_bits(cpuid: &CpuId) -> u8 {
    find(cpuid, 0x8000_0008).map_or(DEFAULT_ADDRESS_BITS, |leaf| leaf.eax.to_le_bytes()[0])
}

/// `supported` as CPU `index` of `count` sees it: one socket, one thread to a core.
///
/// # Errors
/// [`TooManyLeavesError`]
pub fn for_vcpu(supported: &CpuId, index: u8, count: u8) -> Result<CpuId, TooManyLeavesError> {
    let leaves = Topology::new(supported, index, count).leaves(supported);
    CpuId::from_entries(&leaves).map_err(|_| TooManyLeavesError(leaves.len()))
}

/// `supported`, and that the TSC runs at `tsc_khz` kHz, for software that reads CPUID.
///
/// # Errors
/// [`TooManyLeavesError`]
pub fn with_tsc_frequency(supported: &CpuId, tsc_khz: u32) -> Result<CpuId, TooManyLeavesError> {
    let mut leaves = supported.as_slice().to_vec();
    timing::add(&mut leaves, tsc_khz);
    CpuId::from_entries(&leaves).map_err(|_| TooManyLeavesError(leaves.len()))
}

/// The first leaf `function`.
fn find(cpuid: &CpuId, function: u32) -> Option<&kvm_cpuid_entry2> {
    let mut leaves = cpuid.as_slice().iter();
    leaves.find(|leaf| leaf.function == function)
}

fn entries(cpuid: &mut CpuId, function: u32) -> impl Iterator<Item = &mut kvm_cpuid_entry2> {
    cpuid
        .as_mut_slice()
        .iter_mut()
        .filter(move |leaf| leaf.function == function)
}
