// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The leaves that report the frequency of a guest's clocks: one of hypervisors, which VMware defined
//! and the BSDs read, and one of Intel's CPUs, which Linux reads where it does not ask KVM's own clock.
//! Linux on other CPUs measures.

use kvm_bindings::kvm_cpuid_entry2;

/// What the leaves of hypervisors begin with: EAX is the last of them, EBX to EDX are a name.
const FIRST: u32 = 0x4000_0000;
/// EAX: the TSC's frequency in kHz; EBX: that of the local APIC's timer.
const TIMING: u32 = 0x4000_0010;
/// What KVM's local APIC counts (arch/x86/kvm/lapic.h, APIC_BUS_CYCLE_NS_DEFAULT), in kHz.
const APIC_TIMER: u32 = 1_000_000;

/// The first leaf of the CPU. EAX is its last one; EBX, ECX and EDX are its vendor.
const CPU: u32 = 0;
/// "GenuineIntel".
const INTEL: [u32; 3] = [0x756e_6547, 0x6c65_746e, 0x4965_6e69];
/// The TSC's frequency as EBX / EAX of a crystal's, which ECX has in Hz (Intel SDM, volume 2, "CPUID",
/// leaf 15H). Linux takes the crystal for the source of the local APIC's timer, too.
const CRYSTAL: u32 = 0x15;
/// Largest error of that fraction in 10^-9: a clock that gains more than some 10^-5 is worse than a
/// measured one.
const MAX_ERROR: u64 = 10_000;

/// Adds the leaves to `leaves`: of a hypervisor's if they have those, of Intel's on such a CPU.
pub(super) fn add(leaves: &mut Vec<kvm_cpuid_entry2>, tsc_khz: u32) {
    add_crystal(leaves, tsc_khz);
    let Some(first) = leaves.iter_mut().find(|leaf| leaf.function == FIRST) else {
        return;
    };
    first.eax = first.eax.max(TIMING);
    let timing = kvm_cpuid_entry2 {
        function: TIMING,
        eax: tsc_khz,
        ebx: APIC_TIMER,
        ..Default::default()
    };
    replace(leaves, timing);
}

/// Puts `leaf` in the place of those of its function.
fn replace(leaves: &mut Vec<kvm_cpuid_entry2>, leaf: kvm_cpuid_entry2) {
    leaves.retain(|old| old.function != leaf.function);
    leaves.push(leaf);
}

fn add_crystal(leaves: &mut Vec<kvm_cpuid_entry2>, tsc_khz: u32) {
    let cpu = leaves.iter_mut().find(|leaf| leaf.function == CPU);
    let intel = cpu.filter(|leaf| [leaf.ebx, leaf.ecx, leaf.edx] == INTEL);
    let (Some(cpu), Some((numerator, denominator))) = (intel, ratio(tsc_khz)) else {
        return;
    };
    cpu.eax = cpu.eax.max(CRYSTAL);
    let crystal = kvm_cpuid_entry2 {
        function: CRYSTAL,
        eax: denominator,
        ebx: numerator,
        ecx: APIC_TIMER * 1000,
        ..Default::default()
    };
    replace(leaves, crystal);
}

/// `tsc_khz` as a fraction of [`APIC_TIMER`]: numerator and denominator, both small enough for Linux, which multiplies
/// in 32 bits (arch/x86/kernel/tsc.c native_calibrate_tsc); `None` if no such fraction is close enough.
fn ratio(tsc_khz: u32) -> Option<(u32, u32)> {
    let most = u32::MAX / APIC_TIMER;
    let (tsc, unit) = (u64::from(tsc_khz), u64::from(APIC_TIMER));
    let nearest = |denominator: u32| {
        let exact = tsc * u64::from(denominator);
        let numerator = u32::try_from((exact + unit / 2) / unit).ok()?;
        let error = exact.abs_diff(u64::from(numerator) * unit) * 1_000_000_000 / exact.max(1);
        (1..=most)
            .contains(&numerator)
            .then_some((error, numerator, denominator))
    };
    let (error, numerator, denominator) = (1..=most).filter_map(nearest).min()?;
    (error <= MAX_ERROR).then_some((numerator, denominator))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linux_gets_the_frequency_out_of_the_fraction_in_32_bits() {
        let mut offered = 0;
        let frequencies = (800_000..5_000_000).step_by(1873);
        for khz in frequencies.clone() {
            let Some((numerator, denominator)) = ratio(khz) else {
                continue;
            };
            offered += 1;
            let found = APIC_TIMER.checked_mul(numerator).unwrap() / denominator;
            assert!(found.abs_diff(khz) <= khz / 100_000 + 1, "{khz}: {found}");
        }
        assert!(10 * offered > 9 * frequencies.count(), "{offered}");
        assert_eq!(ratio(2_400_000), Some((12, 5)));
        assert_eq!(ratio(3_000_400), None, "3 is too far");
        for odd in [0, 1, u32::MAX] {
            assert_eq!(ratio(odd), None);
        }
    }
}
