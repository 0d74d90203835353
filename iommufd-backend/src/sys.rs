// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! All ioctls of this crate, one safe function each, and their numbers, which published bindings lack; the size of the
//! kernel's pages.

use std::ffi::CStr;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use address::Bdf;
use iommufd_bindings as iommufd;
use vfio_bindings::bindings::vfio;
use vmm_sys_util::ioctl::{
    ioctl, ioctl_with_mut_ptr, ioctl_with_mut_ref, ioctl_with_ptr, ioctl_with_ref, ioctl_with_val,
};

use crate::uapi;

/// All iommufd and VFIO commands are `_IO(';', nr)`: the number carries no size
/// (include/uapi/linux/{iommufd,vfio}.h).
const fn number(nr: u32) -> libc::c_ulong {
    ((b';' as libc::c_ulong) << 8) | nr as libc::c_ulong
}

/// Bytes of a page of the kernel's; `None` if it does not tell.
pub fn page_size() -> Option<u64> {
    // SAFETY: the call takes a number and changes nothing.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(size).ok()
}

/// Commands of `/dev/iommu`.
mod iommu {
    use super::number;
    use iommufd_bindings as iommufd;

    /// `IOMMU_DESTROY`
    pub const DESTROY: libc::c_ulong = number(iommufd::IOMMUFD_CMD_DESTROY);
    /// `IOMMU_IOAS_ALLOC`
    pub const IOAS_ALLOC: libc::c_ulong = number(iommufd::IOMMUFD_CMD_IOAS_ALLOC);
    /// `IOMMU_IOAS_MAP_FILE`
    pub const IOAS_MAP_FILE: libc::c_ulong = number(iommufd::IOMMUFD_CMD_IOAS_MAP_FILE);
    /// `IOMMU_IOAS_UNMAP`
    pub const IOAS_UNMAP: libc::c_ulong = number(iommufd::IOMMUFD_CMD_IOAS_UNMAP);
    /// `IOMMU_HWPT_ALLOC`
    pub const HWPT_ALLOC: libc::c_ulong = number(iommufd::IOMMUFD_CMD_HWPT_ALLOC);
    /// `IOMMU_IOAS_NOIOMMU_GET_PA`, Linux 7.3
    pub const IOAS_NOIOMMU_GET_PA: libc::c_ulong = number(0x95);
}

/// The first number of VFIO's commands.
const BASE: u32 = 100;

/// Commands of a VFIO container and of a group.
mod group {
    use super::{BASE, number};

    /// `VFIO_SET_IOMMU`, of a container
    pub const SET_IOMMU: libc::c_ulong = number(BASE + 2);
    /// `VFIO_GROUP_SET_CONTAINER`
    pub const SET_CONTAINER: libc::c_ulong = number(BASE + 4);
    /// `VFIO_GROUP_GET_DEVICE_FD`
    pub const GET_DEVICE_FD: libc::c_ulong = number(BASE + 6);
}

/// Commands of a VFIO device.
mod device {
    use super::{BASE, number};

    /// `VFIO_DEVICE_GET_INFO`
    pub const GET_INFO: libc::c_ulong = number(BASE + 7);
    /// `VFIO_DEVICE_GET_REGION_INFO`
    pub const GET_REGION_INFO: libc::c_ulong = number(BASE + 8);
    /// `VFIO_DEVICE_GET_IRQ_INFO`
    pub const GET_IRQ_INFO: libc::c_ulong = number(BASE + 9);
    /// `VFIO_DEVICE_SET_IRQS`
    pub const SET_IRQS: libc::c_ulong = number(BASE + 10);
    /// `VFIO_DEVICE_RESET`
    pub const RESET: libc::c_ulong = number(BASE + 11);
    /// `VFIO_DEVICE_GET_PCI_HOT_RESET_INFO`
    pub const GET_PCI_HOT_RESET_INFO: libc::c_ulong = number(BASE + 12);
    /// `VFIO_DEVICE_PCI_HOT_RESET`
    pub const PCI_HOT_RESET: libc::c_ulong = number(BASE + 13);
    /// `VFIO_DEVICE_BIND_IOMMUFD`
    pub const BIND_IOMMUFD: libc::c_ulong = number(BASE + 18);
    /// `VFIO_DEVICE_ATTACH_IOMMUFD_PT`
    pub const ATTACH_IOMMUFD_PT: libc::c_ulong = number(BASE + 19);
}

/// Numbers of those commands that a run issues after its guest has started, for filters of system calls.
pub mod requests {
    use super::{device, iommu};

    /// As the kernel gets it: 32 bits.
    const fn low(number: libc::c_ulong) -> u32 {
        assert!(number <= u32::MAX as libc::c_ulong);
        #[expect(clippy::cast_possible_truncation, reason = "checked in the line above")]
        let low = number as u32;
        low
    }

    /// `VFIO_DEVICE_SET_IRQS`
    pub const VFIO_DEVICE_SET_IRQS: u32 = low(device::SET_IRQS);
    /// `VFIO_DEVICE_RESET`
    pub const VFIO_DEVICE_RESET: u32 = low(device::RESET);
    /// `VFIO_DEVICE_GET_PCI_HOT_RESET_INFO`
    pub const VFIO_DEVICE_GET_PCI_HOT_RESET_INFO: u32 = low(device::GET_PCI_HOT_RESET_INFO);
    /// `VFIO_DEVICE_PCI_HOT_RESET`
    pub const VFIO_DEVICE_PCI_HOT_RESET: u32 = low(device::PCI_HOT_RESET);
    /// `IOMMU_IOAS_UNMAP`
    pub const IOMMU_IOAS_UNMAP: u32 = low(iommu::IOAS_UNMAP);
    /// `IOMMU_DESTROY`
    pub const IOMMU_DESTROY: u32 = low(iommu::DESTROY);
}

const _: () = {
    assert!(iommu::IOAS_NOIOMMU_GET_PA == 0x3b95);
    assert!(iommu::IOAS_ALLOC == 0x3b81);
    assert!(iommu::IOAS_UNMAP == 0x3b86);
    assert!(iommu::HWPT_ALLOC == 0x3b89);
    assert!(iommu::IOAS_MAP_FILE == 0x3b8f);
    assert!(group::SET_IOMMU == 0x3b66);
    assert!(group::SET_CONTAINER == 0x3b68);
    assert!(group::GET_DEVICE_FD == 0x3b6a);
    assert!(device::GET_INFO == 0x3b6b);
    assert!(device::RESET == 0x3b6f);
    assert!(device::PCI_HOT_RESET == 0x3b71);
    assert!(device::BIND_IOMMUFD == 0x3b76);
    assert!(device::ATTACH_IOMMUFD_PT == 0x3b77);
};

/// `size_of::<T>()` as the `u32` that leads every structure of this ABI.
pub(crate) const fn size<T>() -> u32 {
    assert!(size_of::<T>() <= u16::MAX as usize);
    #[expect(clippy::cast_possible_truncation, reason = "checked in the line above")]
    let size = size_of::<T>() as u32;
    size
}

fn check(result: libc::c_int) -> io::Result<u32> {
    u32::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Defines a function that issues one command with one structure. It fills in the structure's size
/// itself, since the kernel reads and writes as many bytes as that field specifies.
macro_rules! command {
    ($name:ident, $number:path, $argument:ty, $size:ident) => {
        #[doc = concat!("`", stringify!($number), "`")]
        pub(crate) fn $name(fd: BorrowedFd<'_>, argument: &mut $argument) -> io::Result<u32> {
            argument.$size = size::<$argument>();
            // SAFETY: the command takes this structure, which is plain data, borrowed for the call
            // and as long as its size field specifies. The kernel writes nowhere else.
            check(unsafe { ioctl_with_mut_ref(&fd.as_raw_fd(), $number, argument) })
        }
    };
}

command!(
    ioas_alloc,
    iommu::IOAS_ALLOC,
    iommufd::iommu_ioas_alloc,
    size
);
command!(
    ioas_map_file,
    iommu::IOAS_MAP_FILE,
    iommufd::iommu_ioas_map_file,
    size
);
command!(
    ioas_unmap,
    iommu::IOAS_UNMAP,
    iommufd::iommu_ioas_unmap,
    size
);
command!(
    hwpt_alloc,
    iommu::HWPT_ALLOC,
    iommufd::iommu_hwpt_alloc,
    size
);
command!(destroy, iommu::DESTROY, iommufd::iommu_destroy, size);
command!(
    get_pa,
    iommu::IOAS_NOIOMMU_GET_PA,
    uapi::iommu_ioas_noiommu_get_pa,
    size
);
command!(device_info, device::GET_INFO, vfio::vfio_device_info, argsz);
command!(irq_info, device::GET_IRQ_INFO, vfio::vfio_irq_info, argsz);
command!(
    bind_iommufd,
    device::BIND_IOMMUFD,
    vfio::vfio_device_bind_iommufd,
    argsz
);
command!(
    attach_pt,
    device::ATTACH_IOMMUFD_PT,
    vfio::vfio_device_attach_iommufd_pt,
    argsz
);

/// `VFIO_DEVICE_RESET`
pub(crate) fn reset(fd: BorrowedFd<'_>) -> io::Result<u32> {
    // SAFETY: the command takes no argument.
    check(unsafe { ioctl(&fd.as_raw_fd(), device::RESET) })
}

/// `VFIO_GROUP_SET_CONTAINER`
pub(crate) fn set_container(group: BorrowedFd<'_>, container: BorrowedFd<'_>) -> io::Result<u32> {
    let container = container.as_raw_fd();
    // SAFETY: the command reads one 32-bit number, borrowed for the call.
    check(unsafe { ioctl_with_ref(&group.as_raw_fd(), group::SET_CONTAINER, &container) })
}

/// `VFIO_SET_IOMMU` with `VFIO_NOIOMMU_IOMMU`
pub(crate) fn set_noiommu(container: BorrowedFd<'_>) -> io::Result<u32> {
    let kind = libc::c_ulong::from(vfio::VFIO_NOIOMMU_IOMMU);
    // SAFETY: the command takes a number.
    check(unsafe { ioctl_with_val(&container.as_raw_fd(), group::SET_IOMMU, kind) })
}

/// `VFIO_GROUP_GET_DEVICE_FD` of the device with this `name`
pub(crate) fn device_of_group(group: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    let pointer = name.as_ptr();
    // SAFETY: the command reads a string that ends with NUL, borrowed for the call.
    let result = unsafe { ioctl_with_ptr(&group.as_raw_fd(), group::GET_DEVICE_FD, pointer) };
    check(result)?;
    // SAFETY: what the command returns is a new descriptor, which nothing else has.
    Ok(unsafe { OwnedFd::from_raw_fd(result) })
}

/// A function that a reset of a device's bus would reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hit {
    /// The function.
    pub(crate) bdf: Bdf,
    /// Its number in the `/dev/iommu` of the device that was asked, [`NOT_OWNED`] if it is not bound to that; the
    /// number of its group if that device was opened through its own.
    pub(crate) id: u32,
}

/// In [`Hit::id`]: the function is not bound to the same `/dev/iommu`.
pub(crate) const NOT_OWNED: u32 = vfio::VFIO_PCI_DEVID_NOT_OWNED.cast_unsigned();

/// `VFIO_DEVICE_GET_PCI_HOT_RESET_INFO`: the functions that a reset of the device's bus hits.
pub(crate) fn hot_reset_info(fd: BorrowedFd<'_>) -> io::Result<Vec<Hit>> {
    /// Words before the list: size, flags, count.
    const HEADER: usize = 3;
    /// Words of an entry: number, then segment, bus and function.
    const ENTRY: usize = 2;
    /// A bus has no more functions.
    const MAX_FUNCTIONS: usize = 256;

    let mut words = [0_u32; HEADER + MAX_FUNCTIONS * ENTRY];
    words[0] = u32::try_from(size_of_val(&words)).map_err(io::Error::other)?;
    let pointer = words.as_mut_ptr();
    // SAFETY: the buffer is laid out as `struct vfio_pci_hot_reset_info` with its list behind it,
    // and as long as its first field specifies.
    check(unsafe { ioctl_with_mut_ptr(&fd.as_raw_fd(), device::GET_PCI_HOT_RESET_INFO, pointer) })?;
    let count = (words[2] as usize).min(MAX_FUNCTIONS);
    let entries = words[HEADER..].chunks_exact(ENTRY).take(count);
    Ok(entries
        .filter_map(|entry| {
            let [low, high, bus, devfn] = entry[1].to_ne_bytes();
            let domain = u16::from_ne_bytes([low, high]).into();
            let bdf = Bdf::new(domain, bus, devfn >> 3, devfn & 7)?;
            Some(Hit { bdf, id: entry[0] })
        })
        .collect())
}

/// `VFIO_DEVICE_PCI_HOT_RESET` of functions that all belong to the caller: to its `/dev/iommu`, or to `groups`, each
/// of which is named once.
pub(crate) fn hot_reset(fd: BorrowedFd<'_>, groups: &[BorrowedFd<'_>]) -> io::Result<u32> {
    const HEADER: usize = size_of::<vfio::vfio_pci_hot_reset>();

    let length = HEADER + groups.len() * size_of::<u32>();
    let count = u32::try_from(groups.len()).map_err(io::Error::other)?;
    let mut words = vec![u32::try_from(length).map_err(io::Error::other)?, 0, count];
    words.extend(groups.iter().map(|group| group.as_raw_fd().cast_unsigned()));
    let pointer = words.as_ptr().cast::<vfio::vfio_pci_hot_reset>();
    // SAFETY: the buffer is laid out as the structure (three 32-bit fields, then the descriptors) and is `argsz` bytes
    // long; the kernel only reads it.
    check(unsafe { ioctl_with_ptr(&fd.as_raw_fd(), device::PCI_HOT_RESET, pointer) })
}

/// `VFIO_DEVICE_GET_REGION_INFO` for region `index`: the structure and the capabilities behind
/// it, as the bytes that the kernel wrote.
pub(crate) fn region_info(fd: BorrowedFd<'_>, index: u32) -> io::Result<Vec<u8>> {
    const HEADER: usize = size_of::<vfio::vfio_region_info>();
    // Far more than any list of sparse areas needs; the kernel's wish is not trusted beyond it.
    const MAX_LEN: usize = 64 * 1024;

    let mut length = HEADER;
    loop {
        let mut words = vec![0_u64; length.div_ceil(size_of::<u64>())];
        let request = vfio::vfio_region_info {
            argsz: u32::try_from(length).map_err(io::Error::other)?,
            index,
            ..Default::default()
        };
        let pointer = words.as_mut_ptr().cast::<vfio::vfio_region_info>();
        // SAFETY: the buffer is at least HEADER bytes and aligned to 8, as the structure is.
        unsafe { pointer.write(request) };
        // SAFETY: the buffer holds the structure and `argsz` = `length` bytes in all, beyond
        // which the kernel does not write.
        check(unsafe { ioctl_with_mut_ptr(&fd.as_raw_fd(), device::GET_REGION_INFO, pointer) })?;
        // SAFETY: the structure is still there; every bit pattern of it is valid.
        let wanted = unsafe { (*pointer).argsz } as usize;
        if wanted <= length || wanted > MAX_LEN {
            let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
            bytes.truncate(length);
            return Ok(bytes);
        }
        length = wanted;
    }
}

/// `VFIO_DEVICE_SET_IRQS` with `fds` as eventfds, -1 for none; without any data if `fds` is
/// `None`. Returns what the kernel returned: more than 0 where it could serve only that many.
pub(crate) fn set_irqs(
    fd: BorrowedFd<'_>,
    header: &vfio::vfio_irq_set,
    fds: Option<&[i32]>,
) -> io::Result<u32> {
    const HEADER: usize = size_of::<vfio::vfio_irq_set>();

    let data = fds.unwrap_or(&[]);
    let length = HEADER + size_of_val(data);
    let mut words = Vec::with_capacity(length / size_of::<u32>());
    words.extend([
        u32::try_from(length).map_err(io::Error::other)?,
        header.flags,
        header.index,
        header.start,
        header.count,
    ]);
    words.extend(data.iter().map(|fd| fd.cast_unsigned()));
    let pointer = words.as_ptr().cast::<vfio::vfio_irq_set>();
    // SAFETY: the buffer is laid out as the structure (five 32-bit fields, then the data) and is
    // `argsz` bytes long; the kernel only reads it.
    check(unsafe { ioctl_with_ptr(&fd.as_raw_fd(), device::SET_IRQS, pointer) })
}
