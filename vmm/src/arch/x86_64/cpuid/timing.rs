// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The leaf in which hypervisors report the frequency of a guest's clocks: not Linux, which asks
//! KVM's own clock or measures, but the BSDs and others read it. VMware defined it, QEMU has it
//! too.

use kvm_bindings::kvm_cpuid_entry2;

/// What the leaves of hypervisors begin with: EAX is the last of them, EBX to EDX are a name.
const FIRST: u32 = 0x4000_0000;
/// EAX: the TSC's frequency in kHz; EBX: that of the local APIC's timer.
const TIMING: u32 = 0x4000_0010;
/// What KVM's local APIC counts (arch/x86/kvm/lapic.h, APIC_BUS_CYCLE_NS_DEFAULT), in kHz.
const APIC_TIMER: u32 = 1_000_000;

/// Adds the leaf to `leaves`, if they have those of a hypervisor.
pub(super) fn add(leaves: &mut Vec<kvm_cpuid_entry2>, tsc_khz: u32) {
    let Some(first) = leaves.iter_mut().find(|leaf| leaf.function == FIRST) else {
        return;
    };
    first.eax = first.eax.max(TIMING);
    leaves.retain(|leaf| leaf.function != TIMING);
    leaves.push(kvm_cpuid_entry2 {
        function: TIMING,
        eax: tsc_khz,
        ebx: APIC_TIMER,
        ..Default::default()
    });
}
