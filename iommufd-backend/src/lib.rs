// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The kernel's side of passthrough: guest memory pinned through `/dev/iommu`, PCI devices through
//! VFIO character devices, and the facts about the host that both need. No KVM and no guest here.
//!
//! From a device to guest memory that it can use:
//! 1. [`Cdev::open`] finds the device's character device and whether an IOMMU is behind it
//!    ([`CdevKind`]).
//! 2. [`VfioDevice::bind`] binds it to an [`Iommufd`]; the function is reset and quiet.
//! 3. [`NoiommuSpace::attach`] makes pinning possible.
//! 4. [`NoiommuSpace::pin`] pins memory and returns its addresses.
//!
//! The reverse: [`quiesce`], close, [`NoiommuSpace::release`]. Only that order keeps a device from
//! writing into memory that is no longer the guest's: without an IOMMU the kernel unpins at once
//! and stops no process. The order is one of types: memory is released for evidence ([`Quiet`])
//! that each device has ended its DMA, which only [`quiesce`] and, for a device that is closed,
//! [`settle`](fn@settle) can make.
//!
//! ```no_run
//! use std::fs::File;
//! use std::sync::Arc;
//!
//! use address::Iova;
//! use iommufd_backend::{
//!     Cdev, CdevKind, Iommufd, NoiommuSpace, PciSysfs, PinRequest, VfioDevice, quiesce, reset_each,
//! };
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let sysfs = PciSysfs::default();
//!     let cdev = Cdev::open(&sysfs, "0000:01:00.0".parse()?)?;
//!     assert_eq!(cdev.kind(), CdevKind::Noiommu);
//!     let iommufd = Arc::new(Iommufd::open()?);
//!     let device = VfioDevice::bind(cdev, Arc::clone(&iommufd))?;
//!     let mut space = NoiommuSpace::new(iommufd)?;
//!     space.attach(&device)?;
//!     let method = device.reset_method(&sysfs)?;
//!     // Binding has reset it by its own method, if it has one.
//!     if !method.is_done_by_binding() {
//!         reset_each(&[(&device, &method)]).into_iter().collect::<Result<(), _>>()?;
//!     }
//!
//!     // A file of hugetlbfs. Its pages do not move from here on.
//!     let file = File::options().read(true).write(true).open("/dev/hugepages/guest")?;
//!     let request = PinRequest {
//!         file: &file,
//!         offset: 0,
//!         len: 2 << 20,
//!         page_size: 2 << 20,
//!         iova: Iova(1 << 30),
//!     };
//!     for extent in space.pin(&request)? {
//!         println!("{} bytes at HPA {}", extent.len(), extent.hpa());
//!     }
//!
//!     // The device can be given these addresses. Before memory is released its DMA has to end.
//!     let quiet = quiesce(&[(&device, &method)]);
//!     let evidence = quiet.into_iter().collect::<Result<Vec<_>, _>>()?;
//!     drop(device);
//!     Ok(space.release(&evidence)?)
//! }
//! ```

mod bus_address;
mod cdev;
mod config_space;
mod device;
mod dma_width;
mod error;
mod evidence;
pub mod extent;
mod file_range;
pub mod hugepages;
mod iomem;
mod iommu;
mod iommufd;
mod irq;
mod mapping;
mod noiommu;
mod operation;
mod own_pages;
mod pagemap;
mod parallel;
mod pci_sysfs;
mod region;
mod registers;
mod reset;
mod settle;
mod sys;
mod table_pages;
mod uapi;

pub use bus_address::TranslatedBar;
pub use cdev::{Cdev, CdevKind, CdevNode, is_vfio_driver};
pub use device::VfioDevice;
pub use dma_width::DmaWidth;
pub use error::{Error, ErrorKind, GetPaError, locked_memory_hint};
pub use evidence::{Because, Quiet, quiesce};
pub use file_range::FileRange;
pub use iomem::{Entry, IoMem};
pub use iommu::IommuSpace;
pub use iommufd::{DEV_IOMMU, DeviceId, HwptId, IoasId, Iommufd};
pub use irq::{IrqIndex, IrqInfo};
pub use mapping::Mapping;
pub use noiommu::{NoiommuSpace, PinRequest};
pub use operation::{IommufdOperation, Operation};
pub use own_pages::OwnPages;
pub use pagemap::{PageState, Pagemap};
pub use parallel::in_parallel;
pub use pci_sysfs::{BARS, IommuGroup, PciSysfs, REGIONS, RegionKind, Resource, memory_bars};
pub use region::{MalformedRegion, Region};
pub use registers::Registers;
pub use reset::{BUS_RESET, ResetMethod, reset_each};
pub use settle::{Leftover, settle};
pub use table_pages::TablePages;
