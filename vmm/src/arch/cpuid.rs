//! The CPU that the guest sees: the host's, as far as KVM supports it, with the topology of this
//! VM.

use kvm_bindings::{
    CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2,
};
use kvm_ioctls::{Cap, Kvm};

/// Address bits assumed where the CPU does not say.
const DEFAULT_ADDRESS_BITS: u8 = 36;

/// Reads what KVM supports here.
///
/// # Errors
/// KVM's errno.
pub fn supported(kvm: &Kvm) -> Result<CpuId, kvm_ioctls::Error> {
    let mut cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?;
    // KVM's local APIC has the timer mode, but leaves it to us to say so: only we know that the
    // APIC is KVM's.
    if kvm.check_extension(Cap::TscDeadlineTimer) {
        for leaf in entries(&mut cpuid, 1) {
            leaf.ecx |= 1 << 24;
        }
    }
    Ok(cpuid)
}

/// Bits of a guest-physical address (leaf 0x8000_0008).
#[must_use]
pub fn address_bits(cpuid: &CpuId) -> u8 {
    cpuid
        .as_slice()
        .iter()
        .find(|leaf| leaf.function == 0x8000_0008)
        .map_or(DEFAULT_ADDRESS_BITS, |leaf| leaf.eax.to_le_bytes()[0])
}

/// `supported` as CPU `index` of `count` sees it: one socket, one thread to a core.
#[must_use]
pub fn for_vcpu(supported: &CpuId, index: u8, count: u8) -> CpuId {
    let mut cpuid = supported.clone();
    let cores = u32::from(count.max(1));
    // Bits of the APIC id that tell cores apart.
    let shift = cores.next_power_of_two().trailing_zeros();
    for leaf in cpuid.as_mut_slice() {
        match leaf.function {
            // Initial APIC id and number of ids in the package; the package has several CPUs.
            0x1 => {
                leaf.ebx = leaf.ebx & 0xffff | cores << 16 | u32::from(index) << 24;
                set(&mut leaf.edx, 1 << 28, cores > 1);
                // Under a hypervisor.
                leaf.ecx |= 1 << 31;
            }
            // Intel: ids for cores in the package, ids that share the cache.
            0x4 if leaf.eax & 0x1f != 0 => {
                let sharing = if leaf.eax >> 5 & 7 >= 3 { cores - 1 } else { 0 };
                leaf.eax = leaf.eax & 0x3fff | sharing << 14 | (cores - 1) << 26;
            }
            // Extended topology: threads at level 0, cores at level 1.
            0xb | 0x1f => topology(leaf, index, shift, cores),
            // AMD: number of CPUs, and that leaf 0x8000_001e is there.
            0x8000_0008 => leaf.ecx = leaf.ecx & !0xf0ff | shift << 12 | (cores - 1),
            0x8000_0001 => set(&mut leaf.ecx, 1 << 1, cores > 1),
            // AMD: ids that share the cache.
            0x8000_001d if leaf.eax & 0x1f != 0 => {
                let sharing = if leaf.eax >> 5 & 7 >= 3 { cores - 1 } else { 0 };
                leaf.eax = leaf.eax & !(0xfff << 14) | sharing << 14;
            }
            // AMD: APIC id, core id with one thread to a core, one node.
            0x8000_001e => {
                leaf.eax = u32::from(index);
                leaf.ebx = u32::from(index);
                leaf.ecx = 0;
            }
            _ => {}
        }
    }
    cpuid
}

fn topology(leaf: &mut kvm_cpuid_entry2, index: u8, shift: u32, cores: u32) {
    const THREAD: u32 = 1;
    const CORE: u32 = 2;
    leaf.flags |= KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
    leaf.edx = u32::from(index);
    (leaf.eax, leaf.ebx, leaf.ecx) = match leaf.index {
        0 => (0, 1, THREAD << 8),
        1 => (shift, cores, CORE << 8 | 1),
        level => (0, 0, level),
    };
}

fn set(register: &mut u32, bits: u32, on: bool) {
    if on {
        *register |= bits;
    } else {
        *register &= !bits;
    }
}

fn entries(cpuid: &mut CpuId, function: u32) -> impl Iterator<Item = &mut kvm_cpuid_entry2> {
    cpuid
        .as_mut_slice()
        .iter_mut()
        .filter(move |leaf| leaf.function == function)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(function: u32, index: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 {
            function,
            index,
            ..Default::default()
        }
    }

    fn find(cpuid: &CpuId, function: u32, index: u32) -> kvm_cpuid_entry2 {
        *cpuid
            .as_slice()
            .iter()
            .find(|leaf| leaf.function == function && leaf.index == index)
            .unwrap()
    }

    #[test]
    fn each_cpu_has_its_own_id_in_every_leaf_that_tells_it() {
        let supported =
            CpuId::from_entries(&[leaf(1, 0), leaf(0xb, 0), leaf(0xb, 1), leaf(0x8000_001e, 0)])
                .unwrap();
        for index in 0..3 {
            let cpuid = for_vcpu(&supported, index, 3);
            assert_eq!(find(&cpuid, 1, 0).ebx, 3 << 16 | u32::from(index) << 24);
            assert_eq!(find(&cpuid, 0xb, 0).edx, u32::from(index));
            assert_eq!(find(&cpuid, 0xb, 1).eax, 2);
            assert_eq!(find(&cpuid, 0xb, 1).ebx, 3);
            assert_eq!(find(&cpuid, 0x8000_001e, 0).eax, u32::from(index));
        }
    }

    #[test]
    fn address_bits_come_from_the_cpu() {
        let mut wide = leaf(0x8000_0008, 0);
        wide.eax = 0x3030_0034;
        assert_eq!(address_bits(&CpuId::from_entries(&[wide]).unwrap()), 0x34);
        assert_eq!(
            address_bits(&CpuId::from_entries(&[leaf(1, 0)]).unwrap()),
            36
        );
    }
}
