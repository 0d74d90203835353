// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The identity and number of vCPUs: consistently in every leaf that describes it.
//!
//! KVM answers with the ids of the host's CPU that asked, and keeps the host's topology to itself
//! (arch/x86/kvm/cpuid.c `__do_cpuid_func`): nothing of either may be left.

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

use super::find;

/// Leaves of the extended topology: Intel's first and second, the first of which AMD has too.
const EXTENDED_TOPOLOGY: [u32; 2] = [0xb, 0x1f];
/// AMD's own leaf about the same, which describes chiplets.
const AMD_EXTENDED_TOPOLOGY: u32 = 0x8000_0026;

/// Leaf 1, EDX: there are several logical processors in the package.
const SEVERAL: u32 = 1 << 28;
/// Leaf 1, ECX: there is a hypervisor.
const HYPERVISOR: u32 = 1 << 31;
/// Leaf 0x8000_0001, ECX: several logical processors are several cores.
const CORES_ONLY: u32 = 1 << 1;
/// The level from which on a cache is not a core's own.
const SHARED_CACHE: u32 = 3;

/// One CPU among those of a socket without hyper-threads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Topology {
    index: u32,
    cores: u32,
    /// Bits of the APIC id that distinguish cores.
    bits: u32,
    amd: bool,
}

impl Topology {
    /// CPU `index`, which is its APIC id, of `count`, on a CPU like `supported`.
    pub fn new(supported: &CpuId, index: u8, count: u8) -> Self {
        let cores = u32::from(count.max(1));
        Self {
            index: index.into(),
            cores,
            bits: cores.next_power_of_two().trailing_zeros(),
            amd: is_amd(supported),
        }
    }

    /// All leaves of `supported` as this CPU has them.
    pub fn leaves(self, supported: &CpuId) -> Vec<kvm_cpuid_entry2> {
        let rewritten =
            |function| EXTENDED_TOPOLOGY.contains(&function) || function == AMD_EXTENDED_TOPOLOGY;
        let kept = supported.as_slice().iter();
        let mut leaves: Vec<_> = kept
            .filter(|leaf| !rewritten(leaf.function))
            .map(|leaf| self.adapted(*leaf))
            .collect();
        let last = find(supported, 0).map_or(0, |leaf| leaf.eax);
        for function in EXTENDED_TOPOLOGY {
            if function <= last {
                leaves.extend((0..3).map(|level| self.level(function, level)));
            }
        }
        leaves
    }

    fn adapted(self, mut leaf: kvm_cpuid_entry2) -> kvm_cpuid_entry2 {
        let Self {
            index,
            cores,
            bits,
            amd,
        } = self;
        match leaf.function {
            // Initial APIC id and number of ids in the package.
            0x1 => {
                leaf.ebx = leaf.ebx & 0xffff | cores << 16 | index << 24;
                set(&mut leaf.edx, SEVERAL, cores > 1);
                leaf.ecx |= HYPERVISOR;
            }
            // Intel's caches: ids for cores in the package, ids that share the cache.
            0x4 if is_cache(&leaf) => {
                leaf.eax = leaf.eax & 0x3fff | (self.sharing(&leaf) - 1) << 14 | (cores - 1) << 26;
            }
            0x8000_0001 if amd => set(&mut leaf.ecx, CORES_ONLY, cores > 1),
            // AMD: bits of the APIC id, number of CPUs.
            0x8000_0008 if amd => leaf.ecx = leaf.ecx & !0xf0ff | bits << 12 | (cores - 1),
            // AMD's caches: ids that share the cache.
            0x8000_001d if is_cache(&leaf) => {
                leaf.eax = leaf.eax & !(0xfff << 14) | (self.sharing(&leaf) - 1) << 14;
            }
            // AMD: APIC id, core id with one thread to a core, one node.
            0x8000_001e => {
                leaf.eax = index;
                leaf.ebx = index;
                leaf.ecx = 0;
            }
            _ => {}
        }
        leaf
    }

    /// CPUs that share a cache.
    fn sharing(self, cache: &kvm_cpuid_entry2) -> u32 {
        if cache.eax >> 5 & 7 >= SHARED_CACHE {
            self.cores
        } else {
            1
        }
    }

    /// A level of the extended topology: threads, cores, and the end (Intel SDM, volume 2,
    /// "CPUID", leaf 0xb).
    fn level(self, function: u32, level: u32) -> kvm_cpuid_entry2 {
        const THREAD: u32 = 1;
        const CORE: u32 = 2;
        let (eax, ebx, kind) = match level {
            0 => (0, 1, THREAD),
            1 => (self.bits, self.cores, CORE),
            _ => (0, 0, 0),
        };
        kvm_cpuid_entry2 {
            function,
            index: level,
            flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
            eax,
            ebx,
            ecx: kind << 8 | level,
            edx: self.index,
            ..Default::default()
        }
    }
}

/// Whether leaf 0x4 or 0x8000_001d describes a cache.
fn is_cache(leaf: &kvm_cpuid_entry2) -> bool {
    leaf.eax & 0x1f != 0
}

/// Whether the CPU is AMD's, or Hygon's, which is like it.
fn is_amd(cpuid: &CpuId) -> bool {
    find(cpuid, 0).is_some_and(|leaf| {
        let name = [leaf.ebx, leaf.edx, leaf.ecx]
            .map(u32::to_le_bytes)
            .concat();
        name == b"AuthenticAMD" || name == b"HygonGenuine"
    })
}

fn set(register: &mut u32, bits: u32, on: bool) {
    if on {
        *register |= bits;
    } else {
        *register &= !bits;
    }
}
