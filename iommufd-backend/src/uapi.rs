// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The structure that published bindings lack: that of `IOMMU_IOAS_NOIOMMU_GET_PA`.

use std::mem::{offset_of, size_of};

/// `struct iommu_ioas_noiommu_get_pa` of include/uapi/linux/iommufd.h, Linux 7.3: asks for the
/// physical address behind an IOVA of an IOAS whose storage is a noiommu HWPT.
#[allow(non_camel_case_types, reason = "the kernel's name")]
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct iommu_ioas_noiommu_get_pa {
    /// Size of this structure in bytes.
    pub size: u32,
    /// Must be 0.
    pub flags: u32,
    /// The IOAS to look in.
    pub ioas_id: u32,
    /// Must be 0.
    pub reserved: u32,
    /// Any byte of a mapped area.
    pub iova: u64,
    /// In: bytes requested, not 0. Out: bytes that are physically contiguous from `iova`.
    pub length: u64,
    /// Out: physical address of the byte at `iova`.
    pub out_phys: u64,
}

const _: () = {
    assert!(size_of::<iommu_ioas_noiommu_get_pa>() == 40);
    assert!(offset_of!(iommu_ioas_noiommu_get_pa, flags) == 4);
    assert!(offset_of!(iommu_ioas_noiommu_get_pa, ioas_id) == 8);
    assert!(offset_of!(iommu_ioas_noiommu_get_pa, reserved) == 12);
    assert!(offset_of!(iommu_ioas_noiommu_get_pa, iova) == 16);
    assert!(offset_of!(iommu_ioas_noiommu_get_pa, length) == 24);
    assert!(offset_of!(iommu_ioas_noiommu_get_pa, out_phys) == 32);
};
