// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The testbed: real boots on an emulated machine without an IOMMU.
//!
//! Nothing that can be bought without an IOMMU is needed. QEMU emulates a machine (called the *test
//! machine* here) that has none; the kernel on it is Linux 7.3 with VFIO's noiommu mode, its PCI devices
//! master the bus for real, and `pinvisor` runs on it as it would on hardware:
//!
//! ```text
//! build machine    QEMU, software emulation
//!   test machine   Linux 7.3: /dev/kvm, /dev/iommu, noiommu-vfioN; runs pinvisor
//!     guest        an unmodified kernel that drives the device passed through
//! ```
//!
//! * [`setup`] installs, downloads and builds what the testbed is made of, once.
//! * [`machine`] boots a test machine, runs a script on it and returns what came out.
//! * [`guest`] makes what a guest boots: kernel and initramfs.
//! * [`trace`] and [`order`] judge what QEMU and the test machine's kernel saw.
//! * [`inside`] is what runs on the test machine itself: memory shaping and the canary.
//! * [`mod@bench`] measures starts of guests beside other monitors.
//! * [`cases`] are the tests that `cargo testbed run` runs, [`runner`] runs them.

pub mod bench;
pub mod cases;
pub mod demo;
pub mod error;
pub mod guest;
pub mod image;
pub mod initramfs;
pub mod inside;
pub mod machine;
pub mod order;
pub mod paths;
pub mod runner;
pub mod setup;
pub mod shell;
pub mod trace;

pub use error::{Error, Result};
