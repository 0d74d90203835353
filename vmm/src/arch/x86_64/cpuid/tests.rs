// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Results for leaves that KVM returned on real machines, and for others that it may.

use super::*;

/// A leaf: function, subleaf, whether that counts, EAX to EDX.
type Leaf = (u32, u32, u32, [u32; 4]);

/// KVM_GET_SUPPORTED_CPUID on an AMD EPYC of family 0x19 with Linux 6.x, asked on CPU 1: without
/// leaves of zeros and those that nothing here looks at.
const EPYC: [Leaf; 17] = [
    (0x0, 0, 0, [0x1c, 0x6874_7541, 0x444d_4163, 0x6974_6e65]),
    (
        0x1,
        0,
        0,
        [0x00a1_0f11, 0x0102_0800, 0x8120_2000, 0x078b_fbff],
    ),
    (0x6, 0, 0, [4, 0, 0, 0]),
    (0x7, 0, 1, [1, 0x0180_0002, 0x104, 0x2000_0000]),
    (0xb, 0, 1, [0, 0, 0, 1]),
    (0xd, 0, 1, [0xe7, 0x980, 0x980, 0]),
    (
        0x4000_0000,
        0,
        0,
        [0x4000_0001, 0x4b4d_564b, 0x564b_4d56, 0x4d],
    ),
    (0x4000_0001, 0, 0, [0x0100_7efb, 0, 0, 0]),
    (
        0x8000_0000,
        0,
        0,
        [0x8000_0021, 0x6874_7541, 0x444d_4163, 0x6974_6e65],
    ),
    (
        0x8000_0001,
        0,
        0,
        [0x00a1_0f11, 0x4000_0000, 0x0040_0393, 0x23d3_fbff],
    ),
    (0x8000_0008, 0, 0, [0x3030, 0x5002_0005, 0x7001, 0]),
    (0x8000_001d, 0, 1, [0x121, 0x01c0_003f, 0x3f, 0]),
    (0x8000_001d, 2, 1, [0x143, 0x01c0_003f, 0x7ff, 2]),
    (0x8000_001d, 3, 1, [0x4163, 0x03c0_003f, 0x7fff, 1]),
    (0x8000_001d, 4, 1, [0, 0, 0, 0]),
    (0x8000_001e, 0, 0, [0, 0, 0, 0]),
    (0x8000_0021, 0, 0, [0x204, 0, 6, 0]),
];

/// Leaves as an Intel server has them that offers everything: values of those looked at only.
const INTEL: [Leaf; 16] = [
    (0x0, 0, 0, [0x1f, 0x756e_6547, 0x6c65_746e, 0x4965_6e69]),
    (0x1, 0, 0, [0x806f8, 0x2a40_0800, 0xfffa_b22b, 0x1f8b_fbff]),
    (0x4, 0, 1, [0xfc00_4121, 0x02c0_003f, 0x3f, 0]),
    (0x4, 2, 1, [0xfc00_4143, 0x03c0_003f, 0x7ff, 0]),
    (0x4, 3, 1, [0xfc1f_c163, 0x0380_003f, 0x1_dfff, 4]),
    (0x4, 4, 1, [0, 0, 0, 0]),
    (0x5, 0, 0, [0x40, 0x40, 3, 0x0010_2020]),
    (0x7, 0, 1, [2, 0xf3bf_bfef, 0x5b41_fffe, 0xffdf_4432]),
    (0x7, 1, 1, [0x0020_1c30, 0, 0, 0x100]),
    (0xa, 0, 0, [0x0730_0605, 0, 7, 0x8604]),
    (0xb, 0, 1, [0, 0, 0, 0x2a]),
    (0xd, 0, 1, [0x2e7, 0xa88, 0xa88, 0]),
    (0x14, 0, 1, [1, 0x5f, 7, 0]),
    (0x1d, 0, 1, [1, 0, 0, 0]),
    (0x1f, 0, 1, [0, 0, 0, 0x2a]),
    (0x8000_0008, 0, 0, [0x3934, 0x200, 0, 0]),
];

fn cpuid(leaves: &[Leaf]) -> CpuId {
    let leaf = |(function, index, flags, [eax, ebx, ecx, edx]): &Leaf| kvm_cpuid_entry2 {
        function: *function,
        index: *index,
        flags: *flags,
        eax: *eax,
        ebx: *ebx,
        ecx: *ecx,
        edx: *edx,
        ..Default::default()
    };
    CpuId::from_entries(&leaves.iter().map(leaf).collect::<Vec<_>>()).unwrap()
}

/// What a guest reads there; zeros if there is no such leaf.
fn read(cpuid: &CpuId, function: u32, index: u32) -> [u32; 4] {
    let mut leaves = cpuid.as_slice().iter();
    leaves
        .find(|leaf| leaf.function == function && leaf.index == index)
        .map_or([0; 4], |leaf| [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx])
}

#[test]
fn each_cpu_has_its_own_id_in_every_leaf_that_has_one() {
    for (host, leaves) in [(&EPYC[..], &[0xb][..]), (&INTEL[..], &[0xb, 0x1f])] {
        for count in [1, 2, 3, 4, 32] {
            for index in 0..count {
                let cpuid = for_vcpu(&cpuid(host), index, count).unwrap();
                let (index, count) = (u32::from(index), u32::from(count));
                let bits = count.next_power_of_two().trailing_zeros();
                assert_eq!(read(&cpuid, 1, 0)[1], index << 24 | count << 16 | 0x0800);
                for leaf in leaves {
                    assert_eq!(read(&cpuid, *leaf, 0), [0, 1, 0x100, index]);
                    assert_eq!(read(&cpuid, *leaf, 1), [bits, count, 0x201, index]);
                    assert_eq!(read(&cpuid, *leaf, 2), [0, 0, 2, index]);
                }
            }
        }
    }
}

#[test]
fn amd_leaves_agree_with_the_others() {
    let guest = for_vcpu(&cpuid(&EPYC), 5, 6).unwrap();
    assert_eq!(read(&guest, 0x1f, 0), [0; 4], "not an AMD leaf");
    assert_eq!(read(&guest, 0x8000_0001, 0)[2], 0x0040_0393);
    assert_eq!(read(&guest, 0x8000_0008, 0)[2], 3 << 12 | 5);
    assert_eq!(read(&guest, 0x8000_001e, 0), [5, 5, 0, 0]);
    let sharing = [0, 2, 3].map(|cache| read(&guest, 0x8000_001d, cache)[0] >> 14 & 0xfff);
    assert_eq!(sharing, [0, 0, 5]);
    let single = for_vcpu(&cpuid(&EPYC), 0, 1).unwrap();
    assert_eq!(read(&single, 0x8000_0001, 0)[2], 0x0040_0391);
    assert_eq!(read(&single, 0x8000_0008, 0)[2], 0);
    assert_eq!(read(&single, 0x1, 0)[3] & 1 << 28, 0);
}

#[test]
fn intel_leaves_agree_with_the_others() {
    let guest = for_vcpu(&cpuid(&INTEL), 3, 8).unwrap();
    let caches = [0, 2, 3].map(|cache| read(&guest, 4, cache)[0]);
    assert_eq!(caches.map(|eax| eax >> 26), [7; 3]);
    assert_eq!(caches.map(|eax| eax >> 14 & 0xfff), [0, 0, 7]);
    assert_eq!(caches.map(|eax| eax & 0x3fff), [0x121, 0x143, 0x163]);
    assert_eq!(read(&guest, 4, 4), [0; 4], "the end of the caches");
    // What AMD has there is reserved on Intel.
    assert_eq!(read(&guest, 0x8000_0008, 0)[2], 0);
}

#[test]
fn what_the_machine_has_no_part_for_is_hidden() {
    let mut guest = cpuid(&INTEL);
    mask::apply(&mut guest);
    let features = read(&guest, 1, 0)[2];
    assert_eq!(features, 0xfffa_b22b & !(1 << 3 | 1 << 15));
    let [_, ebx, ecx, edx] = read(&guest, 7, 0);
    assert_eq!(ebx, 0xf3bf_bfef & !(1 << 2 | 1 << 25));
    assert_eq!(ecx, 0x5b41_fffe & !(1 << 30));
    assert_eq!(
        edx,
        0xffdf_4432 & !(1 << 1 | 1 << 19 | 1 << 22 | 1 << 24 | 1 << 25)
    );
    assert_eq!(read(&guest, 7, 1), [0x0000_1c30, 0, 0, 0]);
    for leaf in [5, 0xa, 0x14, 0x1d] {
        assert_eq!(read(&guest, leaf, 0), [0; 4], "{leaf:#x}");
    }
    let mut amd = cpuid(&EPYC);
    mask::apply(&mut amd);
    assert_eq!(read(&amd, 0x8000_0001, 0), EPYC[9].3, "nothing to hide");
    assert_eq!(read(&amd, 0x4000_0001, 0), EPYC[7].3, "KVM's own");
}

#[test]
fn tiles_that_may_be_used_stay() {
    let mut leaves = INTEL;
    leaves[11].3[0] |= 1 << 17 | 1 << 18;
    let mut guest = cpuid(&leaves);
    mask::apply(&mut guest);
    let tiles = 1 << 22 | 1 << 24 | 1 << 25;
    assert_eq!(read(&guest, 7, 0)[3] & tiles, 0xffdf_4432 & tiles);
    assert_eq!(read(&guest, 7, 1), INTEL[8].3);
    assert_eq!(read(&guest, 0x1d, 0), [1, 0, 0, 0]);
}

#[test]
fn a_guest_can_detect_that_it_is_one() {
    for host in [&EPYC[..], &INTEL] {
        let mut plain = cpuid(host);
        for leaf in entries(&mut plain, 1) {
            leaf.ecx &= !(1 << 31);
        }
        let guest = for_vcpu(&plain, 0, 1).unwrap();
        assert_ne!(read(&guest, 1, 0)[2] & 1 << 31, 0);
    }
}

#[test]
fn too_many_leaves_are_refused() {
    let host = cpuid(&[EPYC[0]; KVM_MAX_CPUID_ENTRIES]);
    assert_eq!(
        for_vcpu(&host, 0, 1),
        Err(TooManyLeavesError(KVM_MAX_CPUID_ENTRIES + 3))
    );
}

#[test]
fn address_bits_come_from_the_cpu() {
    assert_eq!(address_bits(&cpuid(&EPYC)), 48);
    assert_eq!(address_bits(&cpuid(&INTEL)), 52);
    assert_eq!(address_bits(&cpuid(&EPYC[..2])), DEFAULT_ADDRESS_BITS);
}

#[test]
fn the_frequency_of_the_tsc_is_among_the_leaves_of_hypervisors() {
    let guest = with_tsc_frequency(&cpuid(&EPYC), 2_445_406).unwrap();
    let timing = find(&guest, 0x4000_0010).unwrap();
    assert_eq!((timing.eax, timing.ebx), (2_445_406, 1_000_000));
    let first = find(&guest, 0x4000_0000).unwrap();
    assert_eq!((first.eax, first.ebx), (0x4000_0010, 0x4b4d_564b));
    assert_eq!(guest.as_slice().len(), EPYC.len() + 1);
    let again = with_tsc_frequency(&guest, 1).unwrap();
    assert_eq!(find(&again, 0x4000_0010).unwrap().eax, 1);
    assert_eq!(again.as_slice().len(), guest.as_slice().len());
    // A machine that hides its hypervisor, with a frequency that the CPU's own leaf cannot report.
    let hidden = with_tsc_frequency(&cpuid(&INTEL), 1).unwrap();
    assert_eq!(hidden.as_slice(), cpuid(&INTEL).as_slice());
}

#[test]
fn the_frequency_of_the_tsc_is_among_the_leaves_of_intels_cpus_only() {
    let crystal =
        |leaves: &[Leaf], khz| read(&with_tsc_frequency(&cpuid(leaves), khz).unwrap(), 0x15, 0);
    assert_eq!(crystal(&INTEL, 2_400_000), [5, 12, 1_000_000_000, 0]);
    assert_eq!(crystal(&EPYC, 2_400_000), [0; 4]);
    // An old CPU, which has fewer leaves, and one whose own leaf KVM passes on.
    let old = [(0x0, 0, 0, [0xd, 0x756e_6547, 0x6c65_746e, 0x4965_6e69])];
    let guest = with_tsc_frequency(&cpuid(&old), 2_400_000).unwrap();
    assert_eq!(read(&guest, 0, 0)[0], 0x15);
    let again = with_tsc_frequency(&guest, 2_700_000).unwrap();
    assert_eq!(read(&again, 0x15, 0), [10, 27, 1_000_000_000, 0]);
    assert_eq!(again.as_slice().len(), guest.as_slice().len());
}
