// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The hardware that a guest sees: a PCI bus with passed-through and emulated functions, and the few
//! legacy devices that guests expect.
//!
//! Each device is a state machine that runs in the thread of its caller. This crate starts no threads,
//! opens no file descriptors, and does not use KVM. The monitor registers the devices with
//! `vm-device`'s `IoManager`. A passed-through function accesses the host's device through the trait
//! [`HostFunction`](vfio_pci::HostFunction), which the monitor implements.
//!
//! An emulated function with one register, on a bus that a vCPU thread accesses:
//!
//! ```
//! use address::Gpa;
//! use devices::pci::{Bar, BarKind, EmulatedConfig, Identity, PciFunction, PciRoot, Region, Windows};
//! use vm_device::DeviceMmio;
//! use vm_device::bus::MmioAddress;
//!
//! struct Scratch(EmulatedConfig, [u8; 8]);
//!
//! impl PciFunction for Scratch {
//!     fn config_read(&mut self, offset: u16, data: &mut [u8]) {
//!         self.0.read(offset, data);
//!     }
//!     fn config_write(&mut self, offset: u16, data: &[u8]) {
//!         self.0.write(offset, data);
//!     }
//!     fn windows(&self) -> Windows {
//!         self.0.windows()
//!     }
//!     fn bar_read(&mut self, _: Region, offset: u64, data: &mut [u8]) {
//!         match offset {
//!             0 => data.copy_from_slice(&self.1[..data.len()]),
//!             _ => data.fill(0xff),
//!         }
//!     }
//!     fn bar_write(&mut self, _: Region, offset: u64, data: &[u8]) {
//!         if offset == 0 {
//!             self.1[..data.len()].copy_from_slice(data);
//!         }
//!     }
//!     fn reset(&mut self) {
//!         self.0.reset();
//!         self.1 = [0; 8];
//!     }
//! }
//!
//! let mut config = EmulatedConfig::new(&Identity {
//!     vendor: 0x1234,
//!     device: 0x0001,
//!     revision: 0,
//!     class: 0xff_00_00,
//!     subsystem_vendor: 0x1234,
//!     subsystem: 0x0001,
//!     pin: None,
//! });
//! config.add_bar(0, Bar::new(BarKind::Memory32 { prefetchable: false }, 4096, 0xd000_0000)?)?;
//!
//! let ecam = 0xe000_0000;
//! let mut root = PciRoot::new(Gpa(ecam))?;
//! let bdf = root.add(1, 0, Box::new(Scratch(config, [0; 8])))?;
//! assert_eq!(bdf.to_string(), "0000:00:01.0");
//!
//! // What a guest does: find the function in ECAM, turn memory decode on, use BAR 0.
//! let mut id = [0; 4];
//! root.mmio_read(MmioAddress(ecam), 1 << 15, &mut id);
//! assert_eq!(u32::from_le_bytes(id), 0x0001_1234);
//! root.mmio_write(MmioAddress(ecam), 1 << 15 | 4, &[0x02, 0x00]);
//! root.mmio_write(MmioAddress(0xd000_0000), 0, &7_u32.to_le_bytes());
//! let mut value = [0; 4];
//! root.mmio_read(MmioAddress(0xd000_0000), 0, &mut value);
//! assert_eq!(u32::from_le_bytes(value), 7);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

pub mod dma_window;
pub mod guarded_nvme;
pub mod guest_table;
pub mod i8042;
pub mod mediate;
pub mod pci;
pub mod power;
pub mod rtc;
pub mod serial;
pub mod vfio_pci;
