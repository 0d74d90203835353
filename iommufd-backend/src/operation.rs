// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Names of operations on a device, `/dev/iommu` or io_uring, for errors.

/// A command to a device. Shown as a verb phrase, in which "it" is the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display)]
pub enum Operation {
    /// `VFIO_DEVICE_BIND_IOMMUFD`: refused where another process has the device, for example.
    #[strum(to_string = "bind it to /dev/iommu")]
    Bind,
    /// `VFIO_GROUP_SET_CONTAINER`
    #[strum(to_string = "attach its group to a VFIO container")]
    SetContainer,
    /// `VFIO_SET_IOMMU`: refused where the unsafe mode is off, for example.
    #[strum(to_string = "switch its VFIO container to noiommu mode")]
    SetNoiommu,
    /// `VFIO_GROUP_GET_DEVICE_FD`
    #[strum(to_string = "open it through its group")]
    OpenThroughGroup,
    /// `VFIO_DEVICE_ATTACH_IOMMUFD_PT`
    #[strum(to_string = "attach it to an I/O page table")]
    Attach,
    /// `VFIO_DEVICE_GET_INFO`
    #[strum(to_string = "query its VFIO information")]
    Describe,
    /// `VFIO_DEVICE_GET_REGION_INFO`
    #[strum(to_string = "query a region")]
    DescribeRegion,
    /// `VFIO_DEVICE_GET_IRQ_INFO`
    #[strum(to_string = "query its interrupts")]
    DescribeInterrupts,
    /// `VFIO_DEVICE_SET_IRQS` with eventfds
    #[strum(to_string = "enable its interrupts")]
    EnableInterrupts,
    /// `VFIO_DEVICE_SET_IRQS` without
    #[strum(to_string = "disable its interrupts")]
    DisableInterrupts,
    /// A read of a region
    #[strum(to_string = "read a register")]
    ReadRegister,
    /// A write to a region
    #[strum(to_string = "write a register")]
    WriteRegister,
    /// `mmap` of a region
    #[strum(to_string = "map a region")]
    MapRegion,
    /// `VFIO_DEVICE_RESET`
    #[strum(to_string = "reset it")]
    Reset,
    /// `VFIO_DEVICE_GET_PCI_HOT_RESET_INFO`
    #[strum(to_string = "query the reset of its bus")]
    DescribeBusReset,
    /// `VFIO_DEVICE_PCI_HOT_RESET`
    #[strum(to_string = "reset its bus")]
    ResetBus,
    /// An open of `config` in sysfs
    #[strum(to_string = "open its config space")]
    OpenConfigSpace,
    /// A read of `config` in sysfs
    #[strum(to_string = "read its config space")]
    ReadConfigSpace,
    /// A write to `config` in sysfs
    #[strum(to_string = "write its config space")]
    WriteConfigSpace,
    /// A write to `driver_override` in sysfs
    #[strum(to_string = "keep drivers from binding to it")]
    KeepDriversAway,
    /// A write to `reset_method` in sysfs
    #[strum(to_string = "choose how to reset it")]
    ChooseReset,
    /// A write to `reset` in sysfs
    #[strum(to_string = "reset it through sysfs")]
    ResetThroughSysfs,
    /// A write to `reset_subordinate` of a bridge in sysfs
    #[strum(to_string = "reset the bus behind it")]
    ResetBusBehind,
}

/// A command to `/dev/iommu`. Shown as a verb phrase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display)]
pub enum IommufdOperation {
    /// `IOMMU_IOAS_ALLOC`
    #[strum(to_string = "allocate an I/O address space")]
    MakeAddressSpace,
    /// `IOMMU_HWPT_ALLOC`
    #[strum(to_string = "allocate an I/O page table")]
    MakePageTable,
    /// `IOMMU_DESTROY`
    #[strum(to_string = "destroy an I/O page table")]
    DestroyPageTable,
    /// `IOMMU_IOAS_UNMAP`
    #[strum(to_string = "unmap guest memory")]
    Unmap,
}

/// A command to io_uring. Shown as a verb phrase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display)]
pub enum RingOperation {
    /// `io_uring_setup`, and a table for buffers
    #[strum(to_string = "set up a ring to pin memory with")]
    MakeRing,
    /// `IORING_REGISTER_BUFFERS_UPDATE`, which takes a buffer out
    #[strum(to_string = "unpin memory")]
    Unpin,
}
