// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The parts of the kernel's ABI that published bindings lack: command numbers and
//! `IOMMU_IOAS_NOIOMMU_GET_PA`.
//!
//! All iommufd and VFIO commands are `_IO(';', nr)`: the number carries no size
//! (include/uapi/linux/{iommufd,vfio}.h).

use std::mem::{offset_of, size_of};

use iommufd_bindings as iommufd;

const fn command(nr: u32) -> libc::c_ulong {
    ((b';' as libc::c_ulong) << 8) | nr as libc::c_ulong
}

/// Commands of `/dev/iommu`.
pub mod iommu {
    use super::{command, iommufd};

    /// `IOMMU_DESTROY`
    pub const DESTROY: libc::c_ulong = command(iommufd::IOMMUFD_CMD_DESTROY);
    /// `IOMMU_IOAS_ALLOC`
    pub const IOAS_ALLOC: libc::c_ulong = command(iommufd::IOMMUFD_CMD_IOAS_ALLOC);
    /// `IOMMU_IOAS_MAP_FILE`
    pub const IOAS_MAP_FILE: libc::c_ulong = command(iommufd::IOMMUFD_CMD_IOAS_MAP_FILE);
    /// `IOMMU_IOAS_UNMAP`
    pub const IOAS_UNMAP: libc::c_ulong = command(iommufd::IOMMUFD_CMD_IOAS_UNMAP);
    /// `IOMMU_HWPT_ALLOC`
    pub const HWPT_ALLOC: libc::c_ulong = command(iommufd::IOMMUFD_CMD_HWPT_ALLOC);
    /// `IOMMU_IOAS_NOIOMMU_GET_PA`, Linux 7.3
    pub const IOAS_NOIOMMU_GET_PA: libc::c_ulong = command(0x95);
}

/// Commands of a VFIO device.
pub mod device {
    use super::command;

    const BASE: u32 = 100;

    /// `VFIO_DEVICE_GET_INFO`
    pub const GET_INFO: libc::c_ulong = command(BASE + 7);
    /// `VFIO_DEVICE_GET_REGION_INFO`
    pub const GET_REGION_INFO: libc::c_ulong = command(BASE + 8);
    /// `VFIO_DEVICE_GET_IRQ_INFO`
    pub const GET_IRQ_INFO: libc::c_ulong = command(BASE + 9);
    /// `VFIO_DEVICE_SET_IRQS`
    pub const SET_IRQS: libc::c_ulong = command(BASE + 10);
    /// `VFIO_DEVICE_RESET`
    pub const RESET: libc::c_ulong = command(BASE + 11);
    /// `VFIO_DEVICE_GET_PCI_HOT_RESET_INFO`
    pub const GET_PCI_HOT_RESET_INFO: libc::c_ulong = command(BASE + 12);
    /// `VFIO_DEVICE_PCI_HOT_RESET`
    pub const PCI_HOT_RESET: libc::c_ulong = command(BASE + 13);
    /// `VFIO_DEVICE_BIND_IOMMUFD`
    pub const BIND_IOMMUFD: libc::c_ulong = command(BASE + 18);
    /// `VFIO_DEVICE_ATTACH_IOMMUFD_PT`
    pub const ATTACH_IOMMUFD_PT: libc::c_ulong = command(BASE + 19);
}

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
    /// In: bytes wanted, not 0. Out: bytes that are physically contiguous from `iova`.
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
    assert!(iommu::IOAS_NOIOMMU_GET_PA == 0x3b95);

    assert!(iommu::IOAS_ALLOC == 0x3b81);
    assert!(iommu::IOAS_UNMAP == 0x3b86);
    assert!(iommu::HWPT_ALLOC == 0x3b89);
    assert!(iommu::IOAS_MAP_FILE == 0x3b8f);
    assert!(device::GET_INFO == 0x3b6b);
    assert!(device::RESET == 0x3b6f);
    assert!(device::PCI_HOT_RESET == 0x3b71);
    assert!(device::BIND_IOMMUFD == 0x3b76);
    assert!(device::ATTACH_IOMMUFD_PT == 0x3b77);
};
