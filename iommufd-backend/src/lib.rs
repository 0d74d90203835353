// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The kernel interfaces of passthrough: `/dev/iommu` or io_uring to pin guest memory, VFIO character devices or
//! groups to use PCI devices, and sysfs and `/proc` for facts about the host. This crate does not use KVM and
//! knows no guest.
//!
//! To pin memory for a device:
//! 1. [`Cdev::open`] opens the device's character device, and determines whether the device is behind an
//!    IOMMU ([`CdevKind`]).
//! 2. [`VfioDevice::bind`] binds the device to an [`Iommufd`]. The kernel resets the device and turns
//!    its bus mastering off.
//! 3. [`NoiommuSpace::attach`] attaches the device to an address space. The kernel pins memory only in
//!    an address space with a device.
//! 4. [`NoiommuSpace::pin`] pins memory and returns its physical addresses.
//!
//! To release the memory:
//! 1. [`quiesce`] stops the device's DMA, and returns evidence of that ([`Quiet`]).
//! 2. Drop the [`VfioDevice`], which closes it.
//! 3. [`NoiommuSpace::release`] unpins the memory. It requires evidence for each attached device,
//!    because without an IOMMU the kernel does not check whether a device can still write to the memory.
//!
//! If [`quiesce`] fails, [`settle`](fn@settle) can still return evidence once the device is closed.
//!
//! Kernels before 7.3 have neither such a character device nor such an address space. There,
//! [`VfioDevice::open`] opens the device through its group, [`NoiommuSpace::of_groups`] pins by io_uring and reads
//! addresses from `/proc/self/pagemap`, and all else is the same, except that the pins end with the process. Another one
//! has to have the memory pinned as well ([`RingPins`]).
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
mod group;
mod handover;
pub mod hugepages;
mod iomem;
mod iommu;
mod iommufd;
mod irq;
mod mapping;
mod noiommu;
mod operation;
mod own_pages;
mod page_size;
mod pagemap;
mod parallel;
mod pci_sysfs;
mod pin_request;
mod region;
mod registers;
mod reset;
mod retry;
mod ring;
mod ring_pins;
mod ring_space;
mod settle;
mod sys;
mod table_pages;
mod uapi;

pub use bus_address::TranslatedBar;
pub use cdev::{Cdev, CdevKind, CdevNode, is_vfio_driver};
pub use device::VfioDevice;
pub use dma_width::DmaWidth;
pub use error::hint::locked_memory_hint;
pub use error::{Error, ErrorKind, GetPaError};
pub use evidence::{Because, Quiet, quiesce};
pub use file_range::FileRange;
pub use group::{GroupNode, Groups, container_node};
pub use handover::NoiommuIds;
pub use iomem::{COPY_IOMEM, Entry, IoMem};
pub use iommu::IommuSpace;
pub use iommufd::{DEV_IOMMU, DeviceId, HwptId, IoasId, Iommufd};
pub use irq::{IrqIndex, IrqInfo};
pub use mapping::Mapping;
pub use noiommu::{AddressSource, NoiommuSpace};
pub use operation::{IommufdOperation, Operation, RingOperation};
pub use own_pages::OwnPages;
pub use page_size::host_page_size;
pub use pagemap::{PageState, Pagemap, UnpinnedView};
pub use parallel::{in_parallel, meanwhile};
pub use pci_sysfs::{BARS, IommuGroup, PciSysfs, REGIONS, RegionKind, Resource, memory_bars};
pub use pin_request::PinRequest;
pub use region::{MalformedRegion, Region};
pub use registers::Registers;
pub use reset::{BUS_RESET, ResetMethod, reset_each};
pub use ring_pins::RingPins;
pub use settle::{Leftover, settle};
pub use sys::requests;
pub use table_pages::TablePages;
