// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The time-stamp counter, and how fast it runs.

use core::arch::asm;
use core::arch::x86_64::{__cpuid, _rdtsc};

use super::apic;

/// How long the local APIC's timer is watched.
const WATCH_MS: u64 = 10;
/// Hypervisors' leaf of frequencies: TSC and bus in kHz.
const HYPERVISOR_TIMING: u32 = 0x4000_0010;
const HYPERVISOR: u32 = 0x4000_0000;
/// CPUID 1, ECX bit 31.
const IN_HYPERVISOR: u32 = 1 << 31;

/// The time-stamp counter.
pub fn now() -> u64 {
    // SAFETY: every 64-bit processor has the instruction.
    unsafe { _rdtsc() }
}

/// Its ticks in a millisecond. If it is not known, the local APIC's timer does, which in KVM and in
/// QEMU runs at [`apic::TIMER_PER_MS`].
pub fn ticks_per_ms() -> u64 {
    let told = (__cpuid(1).ecx & IN_HYPERVISOR != 0
        && (HYPERVISOR_TIMING..HYPERVISOR + 0x100).contains(&__cpuid(HYPERVISOR).eax))
    .then(|| u64::from(__cpuid(HYPERVISOR_TIMING).eax))
    .filter(|khz| *khz > 0);
    told.unwrap_or_else(|| {
        let start = now();
        let timer = apic::run_timer_down(WATCH_MS);
        let ticks = now().wrapping_sub(start);
        let khz = u128::from(ticks) * u128::from(apic::TIMER_PER_MS) / u128::from(timer.max(1));
        u64::try_from(khz).unwrap_or(1).max(1)
    })
}

/// Executes `2 * turns` instructions in a loop; `turns` is not 0.
pub fn count_down(turns: u64) {
    // SAFETY: a register is counted down; nothing else changes but flags.
    unsafe {
        asm!("2: dec {}", "jnz 2b", inout(reg) turns => _, options(nomem, nostack));
    }
}
