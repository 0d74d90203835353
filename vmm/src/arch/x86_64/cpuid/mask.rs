// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Features that KVM may support, but this machine does not.

use kvm_bindings::CpuId;

/// A register that `CPUID` returns.
#[derive(Clone, Copy, Debug)]
enum Register {
    Eax,
    Ebx,
    Ecx,
    Edx,
}

use Register::{Eax, Ebx, Ecx, Edx};

/// Feature bits: leaf, subleaf, register, bits.
type Feature = (u32, u32, Register, u32);

/// Features that are hidden (Intel SDM, volume 2, "CPUID"; AMD APM, volume 3, appendix E).
const FEATURES: [Feature; 6] = [
    // MONITOR, which would stop the host's CPU, and PDCM: performance counters are not offered.
    (0x1, 0, Ecx, 1 << 3 | 1 << 15),
    // SGX needs memory from /dev/sgx_vepc, Processor Trace the host's buffers.
    (0x7, 0, Ebx, 1 << 2 | 1 << 25),
    // SGX_LC
    (0x7, 0, Ecx, 1 << 30),
    // SGX-KEYS, and ARCH_LBR, which belongs to the performance counters.
    (0x7, 0, Edx, 1 << 1 | 1 << 19),
    // PerfCtrExtCore, PerfCtrExtNB, PerfCtrExtLLC, MONITORX
    (0x8000_0001, 0, Ecx, 1 << 23 | 1 << 24 | 1 << 28 | 1 << 29),
    // Secure encryption of memory: the guest's is not encrypted.
    (0x8000_001f, 0, Eax, u32::MAX),
];

/// Leaves that are taken out, which makes them read as zeros: processor serial number, MONITOR,
/// performance counters, SGX, Processor Trace, last branch records, AMD's performance counters.
const LEAVES: [u32; 7] = [0x3, 0x5, 0xa, 0x12, 0x14, 0x1c, 0x8000_0022];

/// Leaf 0xd, subleaf 0, EAX: the state of tile registers, which a process must have asked the
/// kernel for before its guest may have it (arch_prctl, ARCH_REQ_XCOMP_GUEST_PERM).
const TILES: u32 = 1 << 17 | 1 << 18;

/// What makes no sense without [`TILES`]: AMX-BF16, AMX-TILE, AMX-INT8, AMX-FP16, AMX-COMPLEX.
const TILE_FEATURES: [Feature; 3] = [
    (0x7, 0, Edx, 1 << 22 | 1 << 24 | 1 << 25),
    (0x7, 1, Eax, 1 << 21),
    (0x7, 1, Edx, 1 << 8),
];
/// The leaves about tiles.
const TILE_LEAVES: [u32; 2] = [0x1d, 0x1e];

/// Hides what this machine has no part for.
pub(super) fn apply(cpuid: &mut CpuId) {
    hide(cpuid, &FEATURES, &LEAVES);
    let mut states = cpuid.as_slice().iter();
    if !states.any(|leaf| leaf.function == 0xd && leaf.index == 0 && leaf.eax & TILES == TILES) {
        hide(cpuid, &TILE_FEATURES, &TILE_LEAVES);
    }
}

fn hide(cpuid: &mut CpuId, features: &[Feature], leaves: &[u32]) {
    cpuid.retain(|leaf| !leaves.contains(&leaf.function));
    for leaf in cpuid.as_mut_slice() {
        for (function, index, register, bits) in features {
            if (leaf.function, leaf.index) != (*function, *index) {
                continue;
            }
            let register = match register {
                Eax => &mut leaf.eax,
                Ebx => &mut leaf.ebx,
                Ecx => &mut leaf.ecx,
                Edx => &mut leaf.edx,
            };
            *register &= !bits;
        }
    }
}
