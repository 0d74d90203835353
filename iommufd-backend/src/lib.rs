//! The kernel's side of passthrough: guest memory pinned through `/dev/iommu`, PCI devices through
//! VFIO character devices, and the facts about the host that both need. No KVM and no guest here.
//!
//! The way from a device to guest memory that it can use:
//! 1. [`Cdev::open`] finds the device's character device and tells whether an IOMMU stands behind
//!    it ([`CdevKind`]).
//! 2. [`VfioDevice::bind`] binds it to an [`Iommufd`]; the function is reset and quiet.
//! 3. [`NoiommuSpace::attach`] makes pinning possible.
//! 4. [`DmaBackend::pin`](backend::DmaBackend::pin) pins memory and tells where it is.
//!
//! And back: [`quiesce`], close, [`NoiommuSpace::release`]. Nothing but that order keeps a device
//! from writing into memory that is no longer the guest's: without an IOMMU the kernel unpins at
//! once and stops no process. The order is one of types: memory is released for evidence
//! ([`Quiet`]) that each device has ended its DMA, which only [`quiesce`] and, for a device that is
//! closed, [`settle`] can make.

pub mod backend;
mod bus_address;
mod cdev;
mod config_space;
mod device;
mod dma_width;
mod error;
mod evidence;
pub mod extent;
pub mod hugepages;
mod iomem;
mod iommu;
mod iommufd;
mod irq;
mod mapping;
mod noiommu;
mod operation;
mod pagemap;
mod pci_sysfs;
mod region;
mod reset;
mod settle;
pub mod software;
mod sys;
mod table_pages;
mod uapi;

pub use bus_address::TranslatedBar;
pub use cdev::{Cdev, CdevKind, CdevNode, is_vfio_driver};
pub use device::VfioDevice;
pub use dma_width::DmaWidth;
pub use error::{Error, ErrorKind, GetPaError};
pub use evidence::{Because, Quiet, quiesce};
pub use iomem::{Entry, IoMem};
pub use iommu::IommuSpace;
pub use iommufd::{DEV_IOMMU, DeviceId, HwptId, IoasId, Iommufd};
pub use irq::{IrqIndex, IrqInfo};
pub use mapping::Mapping;
pub use noiommu::NoiommuSpace;
pub use operation::{IommufdOperation, Operation};
pub use pagemap::{PageState, Pagemap};
pub use pci_sysfs::{BARS, IommuGroup, PciSysfs, REGIONS, RegionKind, Resource, memory_bars};
pub use region::{MalformedRegion, Region};
pub use reset::{BUS_RESET, ResetMethod, reset_each};
pub use settle::{Leftover, settle};
pub use table_pages::TablePages;
